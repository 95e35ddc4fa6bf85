//! What hooks may call, and the way there.

use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

use super::raw::Raw;
use crate::domain::secret::Secret;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::count;

/// Which targets may be called.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    /// Addresses beside the public ones.
    pub allow: Vec<IpNet>,
    /// Names that may be called whatever address they have, in lower case.
    pub hosts: Vec<String>,
    /// Ports that may be called. Empty: any.
    pub ports: Vec<u16>,
    /// The way of http hooks out of here, if it is not a direct one.
    pub proxy: Option<Proxy>,
}

/// An HTTP proxy that http hooks go through.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// `http://[user:password@]host:port`.
    pub url: Secret<Url>,
    /// What is called directly: addresses in these networks,
    pub except_nets: Vec<IpNet>,
    /// and hosts of these names, in lower case; those that begin with a dot stand for all names that end so.
    pub except_hosts: Vec<String>,
}

pub(super) fn egress(raw: &Raw<'_>) -> Option<Egress> {
    let allowed = raw.read_list("egress.allow", parse_allowed);
    let ports = raw.read_list("egress.ports", count(1..=u16::MAX));
    let proxy = proxy(raw);
    let (mut nets, mut hosts) = (Vec::new(), Vec::new());
    for one in allowed? {
        match one {
            Allowed::Net(net) => nets.push(net),
            Allowed::Host(host) => hosts.push(host),
        }
    }
    Some(Egress { allow: nets, hosts, ports: ports?, proxy: proxy? })
}

/// The proxy of http hooks, if there is one.
#[expect(clippy::option_option, reason = "none where something is wrong")]
fn proxy(raw: &Raw<'_>) -> Option<Option<Proxy>> {
    let url = raw.is_set("egress.proxy").then(|| raw.read("egress.proxy", parse_proxy));
    let (mut nets, mut hosts) = (Vec::new(), Vec::new());
    for one in raw.read_list("egress.no_proxy", parse_excepted)? {
        match one {
            Allowed::Net(net) => nets.push(net),
            Allowed::Host(host) => hosts.push(host),
        }
    }
    let Some(url) = url else { return Some(None) };
    Some(Some(Proxy { url: Secret::new(url?), except_nets: nets, except_hosts: hosts }))
}

fn parse_proxy(text: &str) -> Result<Url, Mismatch> {
    let expected =
        || Mismatch::new("an HTTP proxy such as http://user:password@proxy.example.com:3128").found("another");
    let url = Url::parse(text).map_err(|_| expected())?;
    let is_plain = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if url.scheme() == "http" && url.host_str().is_some_and(|host| !host.is_empty()) && is_plain {
        return Ok(url);
    }
    Err(expected()
        .help("the proxy itself is spoken to over http://; https targets are reached by CONNECT all the same"))
}

/// As in `egress.allow`, and names with a dot before them for all names that end so.
fn parse_excepted(text: &str) -> Result<Allowed, Mismatch> {
    match text.strip_prefix('.') {
        None => parse_allowed(text),
        Some(rest) => match parse_allowed(rest)? {
            Allowed::Host(host) => Ok(Allowed::Host(format!(".{host}"))),
            Allowed::Net(_) => {
                Err(Mismatch::new("a network, an address, a name, or the end of names such as .internal"))
            }
        },
    }
}

/// What targets may be beside public addresses.
enum Allowed {
    Net(IpNet),
    Host(String),
}

fn parse_allowed(text: &str) -> Result<Allowed, Mismatch> {
    let net = text.parse::<IpNet>().map(|net| net.trunc()).ok();
    if let Some(net) = net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)) {
        return Ok(Allowed::Net(net));
    }
    let legal = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match Host::parse(text) {
        Ok(Host::Domain(name)) if legal(&name) => Ok(Allowed::Host(name.trim_end_matches('.').to_owned())),
        Ok(_) | Err(_) => {
            Err(Mismatch::new("a network such as 10.0.0.0/8, an address such as 10.1.2.3, or the name of a host"))
        }
    }
}
