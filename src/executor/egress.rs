//! The guard of all outgoing HTTP: which addresses may be called.
//!
//! Names are judged by the addresses that they resolve to, at every connect, and exactly these addresses are connected
//! to, so that a second answer cannot differ from the checked one. Addresses in a URL never reach a resolver and are
//! judged beforehand; the `url` crate has brought all their spellings into one by then.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Name, Resolve, Resolving};
use url::{Host, Url};

use crate::domain::address::{literal, refusal};
use crate::domain::outcome::Outcome;
use crate::domain::settle::Class;

/// Why a target may not be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the target's scheme is neither http nor https")]
    Scheme,
    #[error("the target's URL holds a user name or a password")]
    UserInfo,
    #[error("the target's URL has no host")]
    NoHost,
    #[error("the target {host} is {class}; `egress.allow` can allow it")]
    Address { host: String, class: &'static str },
}

impl From<&Refused> for Outcome {
    fn from(refused: &Refused) -> Self {
        Self::never(Class::TargetBlocked, refused.to_string())
    }
}

/// Resolves names, and answers with addresses that may be called or not at all.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    allow: Arc<[IpNet]>,
}

impl Guard {
    pub(super) fn new(allow: &[IpNet]) -> Self {
        Self { allow: allow.into() }
    }

    /// What can be refused without resolving anything.
    pub(super) fn check(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::UserInfo);
        }
        if url.host().is_none() {
            return Err(Refused::NoHost);
        }
        let Some(ip) = literal(url) else { return Ok(()) };
        match refusal(ip, &self.allow) {
            None => Ok(()),
            Some(class) => Err(Refused::Address { host: ip.to_string(), class }),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allow = Arc::clone(&self.allow);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let checked = judge(name.as_str(), found, &allow)?;
            if checked.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into());
            }
            Ok(Box::new(checked.into_iter()) as _)
        })
    }
}

/// What the guard says of a URL now, its name resolved as for a call.
pub(super) async fn refused(allow: &[IpNet], url: &Url) -> Result<Option<String>, String> {
    if let Err(refused) = Guard::new(allow).check(url) {
        return Ok(Some(refused.to_string()));
    }
    let Some(Host::Domain(name)) = url.host() else { return Ok(None) };
    let found = tokio::net::lookup_host((name, 0)).await;
    let found = found.map_err(|error| format!("the name {name} has no address here ({error})"))?.collect();
    Ok(judge(name, found, allow).err().map(|refused| refused.to_string()))
}

/// One bad address refuses the whole answer: which of them is called is chance.
fn judge(host: &str, found: Vec<SocketAddr>, allow: &[IpNet]) -> Result<Vec<SocketAddr>, Refused> {
    match found.iter().find_map(|address| refusal(address.ip(), allow)) {
        None => Ok(found),
        Some(class) => Err(Refused::Address { host: host.to_owned(), class }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_address_refuses_the_answer() {
        let addresses = |ips: &[&str]| ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
        let good: Vec<SocketAddr> = addresses(&["8.8.8.8", "2606:4700::1"]);
        assert_eq!(judge("a.example", good.clone(), &[]), Ok(good));
        let mixed = judge("a.example", addresses(&["8.8.8.8", "10.0.0.1"]), &[]).unwrap_err();
        let text = "the target a.example is a private address (10.0.0.0/8); `egress.allow` can allow it";
        assert_eq!(mixed.to_string(), text);
    }

    #[test]
    fn literals_schemes_and_user_info() {
        let guard = Guard::new(&[]);
        let check = |url: &str, expected: &str| {
            let found = guard.check(&url.parse().unwrap()).map_or_else(|refused| refused.to_string(), |()| "ok".into());
            assert!(found.contains(expected), "{url}: {found}");
        };
        for url in ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/"]
        {
            check(url, "the target 127.0.0.1 is a loopback address");
        }
        for url in ["http://127.0.0.1./", "https://%31%32%37.0.0.1/", "http://①②⑦.0.0.1/", "http://017700000001/"]
        {
            check(url, "the target 127.0.0.1 is a loopback address");
        }
        check("http://[::ffff:127.0.0.1]/", "loopback");
        check("http://[0:0:0:0:0:0:0:1]/", "the target ::1 is a loopback address");
        check("http://0/", "this host");
        check("http://8.8.8.8:8080/", "ok");
        check("https://hooks.example.com/", "ok");
        check("http://localhost/", "ok"); // its addresses are judged
        check("ftp://hooks.example.com/", "scheme");
        check("file:///etc/passwd", "scheme");
        check("https://user@hooks.example.com/", "user name");
        check("https://:secret@hooks.example.com/", "user name");
    }
}
