//! Which URLs a hook of Kheish may have. These are their rules, for settings; what a worker calls is `egress.allow`'s to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;
use url::Url;

use crate::domain::address::{literal, refusal};

/// Blocked by Kheish, beside addresses that stand for a blocked one of IPv4.
const BLOCKED_V6: [Ipv6Net; 15] = [
    net([0; 8], 128),
    net([0, 0, 0, 0, 0, 0, 0, 1], 128),
    net([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    net([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    net([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    net([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
    net([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    net([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 48),
    net([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
    net([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    net([0x2001, 0, 0, 0, 0, 0, 0, 0], 32),
    net([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
    net([0x2001, 2, 0, 0, 0, 0, 0, 0], 48),
    net([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28),
    net([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28),
];
/// A cloud's address that we do not call, and Kheish does.
const OURS_ONLY_V4: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

const fn net(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::from_segments(segments), prefix)
}

/// Checks the URL of an http hook, as Kheish does when settings are given to it.
///
/// # Errors
/// One sentence. It repeats nothing of the URL, which may hold secrets.
pub(super) fn check(url: &str) -> Result<(), String> {
    let url = Url::parse(url).map_err(|error| format!("HTTP hook URL cannot be parsed: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("HTTP hook URL must use http or https".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("HTTP hook URL must not include userinfo".to_owned());
    }
    let Some(host) = url.host_str() else { return Err("HTTP hook URL requires a concrete host".to_owned()) };
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return Err("HTTP hook URL must not target localhost".to_owned());
    }
    if host.contains('%') {
        return Err("HTTP hook URL must not include IPv6 zone identifiers".to_owned());
    }
    if literal(&url).is_some_and(is_blocked) {
        return Err("HTTP hook URL must not target private or local addresses".to_owned());
    }
    Ok(())
}

/// Whether Kheish never calls this address.
///
/// Our own table ([`refusal`]) holds all of these and more: one cloud's metadata address, ISATAP, 3fff::/20, 5f00::/16, the
/// rest of 2001::/23, IPv4-translated addresses, IPv4-compatible ones of public addresses, and all outside 2000::/3.
fn is_blocked(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip != OURS_ONLY_V4 && refusal(IpAddr::V4(ip), &[]).is_some(),
        IpAddr::V6(ip) => match standing_for(ip) {
            Some(ip) => is_blocked(IpAddr::V4(ip)),
            None => BLOCKED_V6.iter().any(|net| net.contains(&ip)),
        },
    }
}

/// The IPv4 address that a mapped or compatible one of IPv6 stands for.
fn standing_for(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    ip.to_ipv4_mapped().or_else(|| ip.to_ipv4().filter(|_| !ip.is_unspecified() && !ip.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_url(url: &str, expected: &str) {
        let found = check(url).err().unwrap_or_else(|| "allowed".to_owned());
        assert!(found.contains(expected), "{url}: expected {expected}, found {found}");
    }

    #[test]
    fn urls_that_kheish_takes() {
        for url in [
            "https://hooks.example.com/x?token=a#b",
            "HTTP://Example.COM:8080",
            "https://localhost.example.com/",
            "https://mylocalhost/",
            "https://8.8.8.8/",
            "https://[2606:4700:4700::1111]:8443/",
            "https://[::ffff:8.8.8.8]/",
            "https://[::8.8.8.8]/",    // not called by us
            "https://168.63.129.16/",  // the same
            "https://[3fff::1]/",      // the same
            "https://[2001:1::1]/",    // the same
            "https://[64:ff9b:2::1]/", // the same
            "https://192.0.1.1/",
        ] {
            check_url(url, "allowed");
        }
    }

    #[test]
    fn urls_that_kheish_refuses() {
        for (url, expected) in [
            ("", "cannot be parsed: relative URL without a base"),
            ("example.com/x", "cannot be parsed"),
            ("http://", "cannot be parsed: empty host"),
            ("https://[fe80::1%25eth0]/", "cannot be parsed: invalid IPv6 address"),
            ("ftp://example.com/", "http or https"),
            ("file:///etc/passwd", "http or https"),
            ("https://me@example.com/", "userinfo"),
            ("https://:secret@example.com/", "userinfo"),
            ("http://localhost:9", "localhost"),
            ("http://LOCALHOST./", "localhost"),
            ("http://a.b.localhost/", "localhost"),
            ("http://127.0.0.1/", "private or local"),
            ("http://2130706433/", "private or local"),
            ("http://0x7f.1/", "private or local"),
            ("http://10.1.2.3/", "private or local"),
            ("http://169.254.169.254/", "private or local"),
            ("http://192.0.2.1/", "private or local"),
            ("http://100.64.0.1/", "private or local"),
            ("http://198.19.0.1/", "private or local"),
            ("http://192.88.99.1/", "private or local"),
            ("http://240.0.0.1/", "private or local"),
            ("http://0.1.2.3/", "private or local"),
            ("http://[::1]/", "private or local"),
            ("http://[::]/", "private or local"),
            ("http://[::ffff:10.0.0.1]/", "private or local"),
            ("http://[::127.0.0.1]/", "private or local"),
            ("http://[fd00::1]/", "private or local"),
            ("http://[fe80::1]/", "private or local"),
            ("http://[fec0::1]/", "private or local"),
            ("http://[ff02::1]/", "private or local"),
            ("http://[2001:db8::1]/", "private or local"),
            ("http://[2001::1]/", "private or local"),
            ("http://[2001:2::1]/", "private or local"),
            ("http://[2001:1f::1]/", "private or local"),
            ("http://[2001:2f::1]/", "private or local"),
            ("http://[2002::1]/", "private or local"),
            ("http://[64:ff9b::8.8.8.8]/", "private or local"),
            ("http://[64:ff9b:1::1]/", "private or local"),
            ("http://[100::1]/", "private or local"),
        ] {
            check_url(url, expected);
            assert!(!check(url).unwrap_err().contains("secret"));
        }
    }

    /// What Kheish blocks, we do not call either.
    #[test]
    fn our_table_holds_theirs() {
        for net in BLOCKED_V6 {
            for ip in [net.network(), net.broadcast()] {
                assert!(is_blocked(IpAddr::V6(ip)) && refusal(IpAddr::V6(ip), &[]).is_some(), "{ip}");
            }
        }
    }
}
