//! What a hook does.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use url::Url;

use super::Secret;
use crate::domain::signature::Signing;
use crate::domain::template::Text;
use crate::domain::tls::Tls;

/// How a hook is run, as data.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Http(HttpAction),
    Command(CommandAction),
}

/// How an http hook calls (RFC 9110, 9.3; RFC 5789).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    #[default]
    Post,
    Put,
    Patch,
    Delete,
    /// Without a body.
    Get,
}

impl Method {
    pub const ALL: [(&'static str, Self); 5] = [
        ("POST", Self::Post),
        ("PUT", Self::Put),
        ("PATCH", Self::Patch),
        ("DELETE", Self::Delete),
        ("GET", Self::Get),
    ];

    /// As it is sent.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Get => "GET",
        }
    }
}

/// Whether bodies are compressed on their way (RFC 9110, 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    None,
    /// Where it makes a body smaller.
    Gzip,
}

impl Compression {
    pub const ALL: [(&'static str, Self); 2] = [("none", Self::None), ("gzip", Self::Gzip)];
}

/// A request: of the wire payload, or of a body of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpAction {
    pub method: Method,
    /// http or https, with a host, without user info. May hold a secret in path or query: never shown whole. Of a URL with
    /// a template it is what stands before that, which names the host and the port.
    pub url: Secret<Url>,
    /// The URL as it is written.
    pub text: Text,
    /// Lower-case names; values may hold secrets.
    pub headers: Vec<(String, Text)>,
    /// In place of the wire payload.
    pub body: Option<Text>,
    pub compression: Compression,
    pub signing: Box<Signing>,
    pub tls: Tls,
}

impl HttpAction {
    /// Without templates.
    #[must_use]
    pub fn plain(url: Url, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Text::plain(*value)));
        Self {
            method: Method::default(),
            text: Text::plain(url.as_str()),
            url: Secret::new(url),
            headers: headers.collect(),
            body: None,
            compression: Compression::default(),
            signing: Box::default(),
            tls: Tls::default(),
        }
    }

    /// All that may hold templates and values from outside.
    pub fn texts(&self) -> impl Iterator<Item = &Text> + Clone {
        [&self.text].into_iter().chain(self.headers.iter().map(|(_, text)| text)).chain(&self.body)
    }
}

/// A program run with the wire payload on stdin.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandAction {
    /// Program and arguments; no shell.
    pub argv: Vec<String>,
    /// Variables set for it, beside the allow-listed ones.
    pub env: BTreeMap<String, Secret<String>>,
    pub cwd: Option<std::path::PathBuf>,
}

impl Action {
    /// Names exactly what this hook calls: the target, and a digest of what may not be shown of it.
    #[must_use]
    pub fn identity(&self) -> String {
        let digest = match self {
            Self::Http(http) => {
                let mut digest = Sha256::new_with_prefix(http.url.expose().as_str());
                for piece in http.text.pieces().iter().filter(|_| http.text.is_template()) {
                    digest.update(piece.value());
                }
                digest.update(http.tls.parts()); // trouble with these is not the target's
                digest.finalize()
            }
            Self::Command(command) => Sha256::digest(command.argv.join("\0")),
        };
        format!("{}#{}", self.target(), hex::encode(&digest[..4]))
    }

    /// Whether its URL is the same for all events.
    #[must_use]
    pub const fn calls_one_url(&self) -> bool {
        matches!(self, Self::Http(http) if !http.text.is_template())
    }

    /// Where this hook goes, safe to show: scheme, host and port, or the program's name. Of a server that is not known to
    /// this process, how it is written.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Self::Http(http) => {
                if let Some(origin) = http.text.unknown_origin() {
                    return origin;
                }
                let url = http.url.expose();
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
            }
            Self::Command(command) => format!("command:{}", command.argv.first().map_or("", String::as_str)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_show_no_secret() {
        let url = Url::parse("https://hooks.example.com:8443/services/T0/secret?key=1").unwrap();
        let action = Action::Http(HttpAction::plain(url, &[]));
        assert_eq!(action.target(), "https://hooks.example.com:8443");
        assert!(action.identity().starts_with("https://hooks.example.com:8443#"));
        assert!(!action.identity().contains("secret"));
        assert!(!format!("{action:?}").contains("secret"));
    }
}
