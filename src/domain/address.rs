//! Which addresses may be called: no private ones, nor any that are special, unless they are allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

/// The address that a URL names by itself; the `url` crate has brought all spellings into one by then.
#[must_use]
pub fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
    }
}

/// The class of an address that may not be called, or `None`.
///
/// An IPv4 address within an IPv6 one is judged too, so that allowing a translation prefix does not allow what can be
/// reached through it.
#[must_use]
pub fn refusal(ip: IpAddr, allow: &[IpNet]) -> Option<&'static str> {
    if let IpAddr::V6(ip) = ip
        && let Some(inner) = embedded(ip)
        && let Some(class) = refusal(IpAddr::V4(inner), allow)
    {
        return Some(class);
    }
    if allow.iter().any(|net| net.contains(&ip)) {
        return None;
    }
    match ip {
        IpAddr::V4(ip) => NOT_PUBLIC_V4.iter().find(|(net, _)| net.contains(&ip)).map(|(_, class)| *class),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => None, // is the IPv4 address that was judged above
        IpAddr::V6(ip) if is_isatap(ip) => Some("an ISATAP tunnel address"),
        IpAddr::V6(ip) => {
            let listed = NOT_PUBLIC_V6.iter().find(|(net, _)| net.contains(&ip)).map(|(_, class)| *class);
            listed.or_else(|| (!GLOBAL_UNICAST.contains(&ip)).then_some("a reserved address (outside 2000::/3)"))
        }
    }
}

/// The IPv4 address that a packet to this address ends at.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., third, second, first, zeroth] = ip.octets();
    let last = Ipv4Addr::new(third, second, first, zeroth);
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None, // unspecified, loopback
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last),
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!last.to_bits())), // Teredo hides it from address translators
        _ if is_isatap(ip) => Some(last),
        _ => None,
    }
}

/// RFC 5214 6.1, whatever the two flag bits are.
const fn is_isatap(ip: Ipv6Addr) -> bool {
    matches!(ip.segments(), [_, _, _, _, 0 | 0x0100 | 0x0200 | 0x0300, 0x5efe, _, _])
}

const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// IANA's special-purpose registry and the addresses under which clouds hand out credentials. The first row counts.
const NOT_PUBLIC_V4: [(Ipv4Net, &str); 21] = [
    (v4([169, 254, 169, 254], 32), "a cloud metadata address (169.254.169.254)"),
    (v4([169, 254, 170, 2], 32), "a cloud metadata address (169.254.170.2)"),
    (v4([100, 100, 100, 200], 32), "a cloud metadata address (100.100.100.200)"),
    (v4([168, 63, 129, 16], 32), "a cloud metadata address (168.63.129.16)"),
    (v4([192, 0, 0, 192], 32), "a cloud metadata address (192.0.0.192)"),
    (v4([0, 0, 0, 0], 8), "an address of this host (0.0.0.0/8)"),
    (v4([10, 0, 0, 0], 8), "a private address (10.0.0.0/8)"),
    (v4([100, 64, 0, 0], 10), "a carrier's shared address (100.64.0.0/10)"),
    (v4([127, 0, 0, 0], 8), "a loopback address (127.0.0.0/8)"),
    (v4([169, 254, 0, 0], 16), "a link-local address (169.254.0.0/16)"),
    (v4([172, 16, 0, 0], 12), "a private address (172.16.0.0/12)"),
    (v4([192, 0, 0, 0], 24), "a protocol address (192.0.0.0/24)"),
    (v4([192, 0, 2, 0], 24), "a documentation address (192.0.2.0/24)"),
    (v4([192, 88, 99, 0], 24), "a relay address (192.88.99.0/24)"),
    (v4([192, 168, 0, 0], 16), "a private address (192.168.0.0/16)"),
    (v4([198, 18, 0, 0], 15), "a benchmarking address (198.18.0.0/15)"),
    (v4([198, 51, 100, 0], 24), "a documentation address (198.51.100.0/24)"),
    (v4([203, 0, 113, 0], 24), "a documentation address (203.0.113.0/24)"),
    (v4([224, 0, 0, 0], 4), "a multicast address (224.0.0.0/4)"),
    (v4([255, 255, 255, 255], 32), "the broadcast address (255.255.255.255)"),
    (v4([240, 0, 0, 0], 4), "a reserved address (240.0.0.0/4)"),
];

const NOT_PUBLIC_V6: [(Ipv6Net, &str); 19] = [
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), "a cloud metadata address (fd00:ec2::254)"),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), "a cloud metadata address (fd20:ce::254)"),
    (v6([0; 8], 128), "an address of this host (::)"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "a loopback address (::1)"),
    (v6([0; 8], 96), "an IPv4-compatible address (::/96)"),
    (v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), "a translated address (::ffff:0:0:0/96)"),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 48), "a translated address (64:ff9b::/48)"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "a translated address (64:ff9b:1::/48)"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "a discard address (100::/64)"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "a Teredo tunnel address (2001::/32)"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "a protocol address (2001::/23)"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "a documentation address (2001:db8::/32)"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "a 6to4 tunnel address (2002::/16)"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "a documentation address (3fff::/20)"),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "a segment routing address (5f00::/16)"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "a private address (fc00::/7)"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "a link-local address (fe80::/10)"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "a site-local address (fec0::/10)"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "a multicast address (ff00::/8)"),
];

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from_octets(octets), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::from_segments(segments), prefix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(allow: &[&str]) -> Vec<IpNet> {
        allow.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn check(ip: &str, allow: &[&str], expected: &str) {
        let found = refusal(ip.parse().unwrap(), &nets(allow)).unwrap_or("public");
        assert!(found.contains(expected), "{ip}: expected {expected}, found {found}");
    }

    #[test]
    fn classes_of_ipv4() {
        for public in
            ["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"]
        {
            check(public, &[], "public");
        }
        for public in ["128.0.0.0", "169.253.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "192.0.3.1", "192.167.0.1"]
        {
            check(public, &[], "public");
        }
        for public in ["192.169.0.1", "198.17.0.1", "198.20.0.1", "223.255.255.255", "168.63.129.17"] {
            check(public, &[], "public");
        }
        for (ip, class) in [
            ("0.0.0.0", "this host"),
            ("0.1.2.3", "this host"),
            ("10.0.0.1", "private"),
            ("100.64.0.1", "shared"),
            ("100.127.255.255", "shared"),
            ("100.100.100.200", "metadata"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("168.63.129.16", "metadata"),
            ("169.254.169.254", "metadata"),
            ("169.254.170.2", "metadata"),
            ("169.254.1.1", "link-local"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.8", "protocol"),
            ("192.0.0.192", "metadata"),
            ("192.0.2.1", "documentation"),
            ("192.88.99.1", "relay"),
            ("192.168.1.1", "private"),
            ("198.18.0.1", "benchmarking"),
            ("198.19.255.255", "benchmarking"),
            ("198.51.100.7", "documentation"),
            ("203.0.113.7", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
        ] {
            check(ip, &[], class);
        }
    }

    #[test]
    fn classes_of_ipv6() {
        for (ip, class) in [
            ("2606:4700:4700::1111", "public"),
            ("2a00:1450:4001::200e", "public"),
            ("2001:200::1", "public"),
            ("2001:4860:4860::8888", "public"),
            ("2003::1", "public"),
            ("3ffe:ffff::1", "public"),
            ("::ffff:8.8.8.8", "public"),
            ("::", "this host"),
            ("::1", "loopback"),
            ("::2", "this host"), // IPv4-compatible 0.0.0.2
            ("::8.8.8.8", "compatible"),
            ("::127.0.0.1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:10.0.0.1", "private"),
            ("::ffff:169.254.169.254", "metadata"),
            ("::ffff:0:8.8.8.8", "translated"),
            ("::ffff:0:10.0.0.1", "private"),
            ("64:ff9b::8.8.8.8", "translated"),
            ("64:ff9b::7f00:1", "loopback"),
            ("64:ff9b:0:1::1", "translated"),
            ("64:ff9b:1::8.8.8.8", "translated"),
            ("64:ff9b:2::1", "reserved"),
            ("100::1", "discard"),
            ("100:0:0:1::1", "reserved"),
            ("2001:0:808:808::f7f7:f7f7", "Teredo"),
            ("2001::80ff:fffe", "loopback"), // 127.0.0.1, inverted
            ("2001:2::1", "protocol"),
            ("2001:10::1", "protocol"),
            ("2001:20::1", "protocol"),
            ("2001:1ff::1", "protocol"),
            ("2001:db8::1", "documentation"),
            ("2002:808:808::1", "6to4"),
            ("2002:7f00:1::1", "loopback"),
            ("2002:a9fe:a9fe::1", "metadata"),
            ("2606:4700::5efe:8.8.8.8", "ISATAP"),
            ("2606:4700::200:5efe:a00:1", "private"),
            ("3fff:fff::1", "documentation"),
            ("4000::1", "reserved"),
            ("5f00::1", "segment"),
            ("fc00::1", "private"),
            ("fd12:3456::1", "private"),
            ("fd00:ec2::254", "metadata"),
            ("fd20:ce::254", "metadata"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
        ] {
            check(ip, &[], class);
        }
    }

    #[test]
    fn allowed_addresses() {
        check("127.0.0.1", &["127.0.0.0/8"], "public");
        check("::ffff:127.0.0.1", &["127.0.0.0/8"], "public");
        check("::1", &["127.0.0.0/8"], "loopback");
        check("10.1.2.3", &["10.1.0.0/16", "fd00::/8"], "public");
        check("10.2.2.3", &["10.1.0.0/16", "fd00::/8"], "private");
        check("fd00::1", &["10.1.0.0/16", "fd00::/8"], "public");
        check("64:ff9b::8.8.8.8", &["64:ff9b::/96"], "public");
        check("64:ff9b::10.0.0.1", &["64:ff9b::/96"], "private");
        check("64:ff9b::10.0.0.1", &["64:ff9b::/96", "10.0.0.0/8"], "public");
        check("::ffff:10.0.0.1", &["::/0"], "private");
    }

    /// What may not be called, said once more: first and last address.
    const RANGES: [(&str, &str); 15] = [
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("127.0.0.0", "127.255.255.255"),
        ("168.63.129.16", "168.63.129.16"),
        ("169.254.0.0", "169.254.255.255"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.0.2.0", "192.0.2.255"),
        ("192.88.99.0", "192.88.99.255"),
        ("192.168.0.0", "192.168.255.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("198.51.100.0", "198.51.100.255"),
        ("203.0.113.0", "203.0.113.255"),
        ("224.0.0.0", "255.255.255.255"),
    ];

    /// The first and the last of every 4,096 addresses, and both sides of every edge.
    #[test]
    fn all_of_ipv4() {
        let ranges = RANGES.map(|(first, last)| [first, last].map(|ip| ip.parse::<Ipv4Addr>().unwrap().to_bits()));
        let blocks = (0..1 << 20).flat_map(|block: u32| [block << 12, block << 12 | 0xfff]);
        let edges =
            ranges.iter().flat_map(|[first, last]| [first.wrapping_sub(1), *first, *last, last.wrapping_add(1)]);
        for bits in blocks.chain(edges) {
            let listed = ranges.iter().any(|[first, last]| (*first..=*last).contains(&bits));
            let ip = Ipv4Addr::from_bits(bits);
            assert_eq!(refusal(ip.into(), &[]).is_some(), listed, "{ip}");
        }
    }

    proptest! {
        /// Whatever an IPv4 address is packed in, it is not easier to call than by itself.
        #[test]
        fn packing_helps_nobody(bits: u32, random: u128, allowed in prop_oneof![Just(""), Just("::/0"), Just("2000::/3")]) {
            let allow = if allowed.is_empty() { Vec::new() } else { nets(&[allowed]) };
            let (v4, low) = (u128::from(bits), random & 0xffff_ffff_ffff_ffff_ffff);
            let packed = [
                v4,
                0xffff << 32 | v4,
                0xffff_0000 << 32 | v4,
                0x0064_ff9b << 96 | v4,
                0x2002 << 112 | v4 << 80 | low,
                0x2001_0000 << 96 | (random >> 32 & 0xffff_ffff_ffff_ffff) << 32 | u128::from(!bits),
                0x2606_4700 << 96 | (random & 0xffff_ffff) << 64 | 0x5efe << 32 | v4,
            ];
            let refused = refusal(Ipv4Addr::from_bits(bits).into(), &allow).is_some();
            for packed in packed.into_iter().map(Ipv6Addr::from_bits).filter(|ip| ip.to_bits() > 1) {
                prop_assert!(!refused || refusal(packed.into(), &allow).is_some(), "{}", packed);
            }
        }

        #[test]
        fn agrees_with_the_standard_library(bits: u32) {
            let ip = Ipv4Addr::from_bits(bits);
            let found = refusal(ip.into(), &[]);
            let special = ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_multicast()
                || ip.is_broadcast() || ip.is_documentation() || ip.is_unspecified();
            prop_assert!(!special || found.is_some());
            prop_assert_eq!(refusal(ip.to_ipv6_mapped().into(), &[]), found);
        }

        #[test]
        fn only_global_unicast_is_public(bits: u128) {
            let ip = Ipv6Addr::from_bits(bits);
            prop_assert!(refusal(ip.into(), &[]).is_some() || ip.to_ipv4_mapped().is_some() || bits >> 125 == 1);
        }
    }
}
