//! The settings of the store of claims, and which of them go together.

use std::path::PathBuf;

use url::Url;

use super::raw::Raw;
use super::{ClientCertificate, Node, Redis, Tls, Topology, parse};
use crate::domain::secret::Secret;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::flag;

/// Valkey's are the same under another name.
const SCHEMES: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];
const PORT: u16 = 6379;

/// Everything under `redis.` but the policy. Every value is read, whether there is a URL or not.
pub(super) fn redis(raw: &Raw<'_>) -> Option<Redis> {
    let url = raw.read("redis.url", parse_url);
    let password_file = raw.read("redis.password_file", parse::path);
    let sentinels = raw.read_list("redis.sentinels", parse_sentinel);
    let cluster = raw.read("redis.cluster", flag);
    let nodes = raw.read_list("redis.nodes", parse_node);
    let ca = raw.read("redis.tls_ca", parse::path);
    let chain = raw.read("redis.tls_cert", parse::path);
    let key = raw.read("redis.tls_key", parse::path);

    if !raw.is_set("redis.url") {
        let alone = match (sentinels?.is_empty(), cluster?) {
            (false, _) => "redis.sentinels",
            (true, true) => "redis.cluster",
            (true, false) => return None,
        };
        raw.wrong(alone, Mismatch::new("`redis.url` to be set too").found("it unset"));
        return None;
    }
    let (url, password_file) = (url?, password_file?);
    let topology = topology(raw, &url, sentinels?, cluster?, nodes?)?;
    let tls = Tls { ca: ca?, client: client(raw, chain?, key?).ok()? };
    check_tls(raw, &url, &topology, &tls)?;
    if password_file.is_some() && url.password().is_some() {
        let mismatch = Mismatch::new("no file, as redis.url has a password").found("both");
        raw.wrong("redis.password_file", mismatch);
        return None;
    }
    Some(Redis { url: Secret::new(url), password_file, tls, topology })
}

fn topology(
    raw: &Raw<'_>,
    url: &Url,
    sentinels: Vec<Secret<Url>>,
    cluster: bool,
    nodes: Vec<Node>,
) -> Option<Topology> {
    let wrong = |path: &str, mismatch: Mismatch| {
        raw.wrong(path, mismatch);
        None
    };
    if !nodes.is_empty() && !cluster {
        let mismatch = Mismatch::new("`redis.cluster: true` beside it").found("no cluster");
        return wrong("redis.nodes", mismatch);
    }
    if cluster && !sentinels.is_empty() {
        let mismatch = Mismatch::new("either it or redis.sentinels").found("both");
        return wrong("redis.cluster", mismatch.help("a Redis Cluster fails over by itself, without sentinels"));
    }
    if !sentinels.is_empty() && url.port().is_some() {
        let mismatch = Mismatch::new("the name of the primary in place of host and port").found("a port");
        return wrong(
            "redis.url",
            mismatch.help("as in redis://user:password@mymaster; redis.sentinels have the ports"),
        );
    }
    Some(match (cluster, sentinels.is_empty()) {
        (true, _) => Topology::Cluster { nodes },
        (false, true) => Topology::Single,
        (false, false) => Topology::Sentinels(sentinels),
    })
}

/// Certificate and key go together. The error is reported already.
fn client(raw: &Raw<'_>, chain: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<ClientCertificate>, ()> {
    let alone = |set: &str, missing: &str| {
        raw.wrong(set, Mismatch::new(format!("`{missing}` to be set too")).found("it unset"));
        Err(())
    };
    match (chain, key) {
        (Some(chain), Some(key)) => Ok(Some(ClientCertificate { chain, key })),
        (None, None) => Ok(None),
        (Some(_), None) => alone("redis.tls_cert", "redis.tls_key"),
        (None, Some(_)) => alone("redis.tls_key", "redis.tls_cert"),
    }
}

/// Rejects TLS settings where no URL asks for TLS, which would connect unencrypted.
fn check_tls(raw: &Raw<'_>, url: &Url, topology: &Topology, tls: &Tls) -> Option<()> {
    let sentinels = if let Topology::Sentinels(sentinels) = topology { sentinels.as_slice() } else { &[] };
    if has_tls(url) || sentinels.iter().any(|sentinel| has_tls(sentinel.expose())) {
        return Some(());
    }
    let path = match (&tls.ca, &tls.client) {
        (Some(_), _) => "redis.tls_ca",
        (None, Some(_)) => "redis.tls_cert",
        (None, None) => return Some(()),
    };
    raw.wrong(path, Mismatch::new("a redis.url that begins with rediss://").found("one without TLS"));
    None
}

/// Whether a URL says that the connection is encrypted.
fn has_tls(url: &Url) -> bool {
    matches!(url.scheme(), "rediss" | "valkeys")
}

fn database(url: &Url) -> Option<u16> {
    match url.path().trim_start_matches('/') {
        "" => Some(0),
        number => number.parse().ok(),
    }
}

fn parse_url(text: &str) -> Result<Url, Mismatch> {
    let url = parse::server(text, &SCHEMES)?;
    if database(&url).is_none() {
        let mismatch = Mismatch::new("the number of a database behind the host, such as /0");
        return Err(mismatch.found("something else"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Mismatch::new("nothing behind host and database").found("something that begins with ? or #"));
    }
    Ok(url)
}

fn parse_sentinel(text: &str) -> Result<Secret<Url>, Mismatch> {
    let url = parse_url(text)?;
    if !matches!(url.path(), "" | "/") {
        return Err(Mismatch::new("a sentinel's address such as redis://host:26379").found("one with a path"));
    }
    Ok(Secret::new(url))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn parse_node(text: &str) -> Result<Node, Mismatch> {
    let expected = || Mismatch::new("the address of a node such as redis-2:6379");
    let url = Url::parse(&format!("redis://{text}")).map_err(|_| expected())?;
    let only_an_address = url.username().is_empty()
        && url.password().is_none()
        && url.path().is_empty()
        && url.query().is_none()
        && url.fragment().is_none();
    let host = url.host_str().filter(|host| !host.is_empty() && only_an_address).ok_or_else(expected)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Node { host, port: url.port().unwrap_or(PORT) })
}

#[cfg(test)]
mod tests;
