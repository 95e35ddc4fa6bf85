//! The settings of the message broker, and which of them go together.

use rustls::pki_types::ServerName;

use super::raw::Raw;
use super::{BrokerServer, ClientCertificate, Tls, parse};
use crate::domain::secret::Secret;
use crate::yaml::problem::Mismatch;

/// Everything under `broker.`. Every value is read, whether there is a URL or not.
pub(super) fn broker(raw: &Raw<'_>) -> Option<BrokerServer> {
    let urls = raw.read_some("broker.url", |text| parse::server(text, &["amqp", "amqps"]).map(Secret::new));
    let password_file = raw.read("broker.password_file", parse::path);
    let ca = raw.read("broker.tls_ca", parse::path);
    let chain = raw.read("broker.tls_cert", parse::path);
    let key = raw.read("broker.tls_key", parse::path);
    let tls_name = raw.read("broker.tls_name", parse_name);
    let management = if raw.is_set("broker.management_url") {
        let url = raw.read("broker.management_url", |text| parse::server(text, &["http", "https"]));
        url.map(|url| Some(Secret::new(url)))
    } else {
        Some(None)
    };

    let client = match (chain?, key?) {
        (Some(chain), Some(key)) => Some(ClientCertificate { chain, key }),
        (None, None) => None,
        (Some(_), None) => return alone(raw, "broker.tls_cert", "broker.tls_key"),
        (None, Some(_)) => return alone(raw, "broker.tls_key", "broker.tls_cert"),
    };
    let tls = Tls { ca: ca?, client };
    let server =
        BrokerServer { urls: urls?, password_file: password_file?, tls, tls_name: tls_name?, management: management? };
    if server.urls.is_empty() {
        raw.wrong("broker.url", Mismatch::new("at least one URL").found("none"));
        return None;
    }
    check_tls(raw, &server)?;
    Some(server)
}

fn alone<T>(raw: &Raw<'_>, set: &str, missing: &str) -> Option<T> {
    raw.wrong(set, Mismatch::new(format!("`{missing}` to be set too")).found("it unset"));
    None
}

/// Rejects TLS settings beside an `amqp://` URL, which would connect unencrypted.
fn check_tls(raw: &Raw<'_>, server: &BrokerServer) -> Option<()> {
    let path = match (&server.tls.ca, &server.tls.client, &server.tls_name) {
        (Some(_), _, _) => "broker.tls_ca",
        (None, Some(_), _) => "broker.tls_cert",
        (None, None, Some(_)) => "broker.tls_name",
        (None, None, None) => return Some(()),
    };
    if server.urls.iter().all(|url| url.expose().scheme() == "amqps") {
        return Some(());
    }
    raw.wrong(path, Mismatch::new("a broker.url that begins with amqps://").found("one without TLS"));
    None
}

/// Nothing, or a name or address that a certificate can be for.
fn parse_name(text: &str) -> Result<Option<String>, Mismatch> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(Some(text.to_owned())),
        Err(_) if text.is_empty() => Ok(None),
        Err(_) => Err(Mismatch::new("a host name or an address")),
    }
}

#[cfg(test)]
mod tests;
