//! Where HTTP is served, and who may do what there.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::parse;
use super::raw::Raw;
use crate::domain::access::Token;
use crate::domain::secret::Secret;
use crate::yaml;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::flag;

/// Far above any list of tokens.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where HTTP is served, and who may do what there.
#[derive(Debug, Clone)]
pub struct Http {
    /// Address of `/metrics`, `/healthz`, `/readyz` and, in `up` and `server`, the event gateway and the rest.
    pub bind: SocketAddr,
    /// With their roles.
    pub tokens: Vec<Token>,
    /// A file with more of them. What it holds may change at any time.
    pub tokens_file: Option<PathBuf>,
    /// Kheish's own paths are served too.
    pub kheish_api: bool,
    /// What Bernstein signs its requests with.
    pub bernstein: BernsteinSecrets,
    /// Connections are encrypted with it, if it is there.
    pub certificate: Option<ServerCertificate>,
}

/// What Bernstein signs with, by surface. `None`: nothing is taken by its signature there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BernsteinSecrets {
    /// Payloads: `POST /v1/hooks/bernstein`.
    pub payloads: Option<Secret<String>>,
    /// Hooks of agents: `POST /hooks/{session_id}`.
    pub hooks: Option<Secret<String>>,
    /// Tasks: `POST /webhook`.
    pub webhook: Option<Secret<String>>,
}

impl BernsteinSecrets {
    /// Whether there are paths that are served for their signature alone.
    #[must_use]
    pub const fn serves_paths(&self) -> bool {
        self.hooks.is_some() || self.webhook.is_some()
    }
}

/// Files (PEM) by which a process shows its clients who it is. What they hold may change at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    /// The certificate, then those that lead to the authority.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Everything under `http.`. An address that others can reach is an open door without tokens.
pub(super) fn http(raw: &Raw<'_>) -> Option<Http> {
    let bind = raw.read("http.bind", |text| {
        text.parse::<SocketAddr>().map_err(|_| Mismatch::new("an address and port such as 127.0.0.1:8733"))
    });
    let expose = raw.read("http.expose", flag);
    let kheish_api = raw.read("http.kheish_api", flag);
    let secret = |path| raw.read(path, secret);
    let payloads = secret("http.bernstein_secret");
    let (hooks, webhook) = (secret("http.bernstein_hook_secret"), secret("http.bernstein_webhook_secret"));
    let bernstein = BernsteinSecrets { payloads: payloads?, hooks: hooks?, webhook: webhook? };
    let tokens = raw.read_list("http.tokens", |text| Token::parse(text).map_err(Mismatch::from));
    let tokens_file = raw.read("http.tokens_file", parse::path);
    let chain = raw.read("http.tls_cert", parse::path);
    let key = raw.read("http.tls_key", parse::path);
    let certificate = match (chain?, key?) {
        (Some(chain), Some(key)) => Some(ServerCertificate { chain, key }),
        (None, None) => None,
        (Some(_), None) => return alone(raw, "http.tls_cert", "http.tls_key"),
        (None, Some(_)) => return alone(raw, "http.tls_key", "http.tls_cert"),
    };
    let expose = expose?;
    let (tokens, tokens_file) = (tokens?, tokens_file?);
    let http = Http { bind: bind?, tokens, tokens_file, kheish_api: kheish_api?, bernstein, certificate };
    if !http.bind.ip().is_loopback() && !http.has_tokens() && !expose {
        let mismatch = Mismatch::new("a loopback address such as 127.0.0.1:8733");
        raw.wrong(
            "http.bind",
            mismatch.help(
                "other addresses need tokens: set `http.tokens` or `http.tokens_file`. Without them `http.expose: true` \
                 serves metrics and health there, and nothing else",
            ),
        );
    }
    Some(http)
}

/// Nothing, or a text on one line.
fn secret(text: &str) -> Result<Option<Secret<String>>, Mismatch> {
    if text.contains(char::is_control) {
        return Err(Mismatch::new("a secret without control characters"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()).map(|text| Secret::new(text.to_owned())))
}

fn alone<T>(raw: &Raw<'_>, set: &str, missing: &str) -> Option<T> {
    raw.wrong(set, Mismatch::new(format!("`{missing}` to be set too")).found("it unset"));
    None
}

impl Http {
    /// The URL of a path, as the settings have the address.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.bind)
    }

    /// Whether a request has to show a token.
    #[must_use]
    pub const fn has_tokens(&self) -> bool {
        !self.tokens.is_empty() || self.tokens_file.is_some()
    }

    /// The tokens of the settings, and those that the file holds now.
    ///
    /// # Errors
    /// One sentence: the file cannot be read, or is not what it should be. It repeats nothing that the file holds.
    pub fn read_tokens(&self) -> io::Result<Vec<Token>> {
        let mut tokens = self.tokens.clone();
        if let Some(path) = &self.tokens_file {
            tokens
                .extend(read_file(path).map_err(|problem| {
                    io::Error::other(format!("http.tokens_file ({}): {problem}", path.display()))
                })?);
        }
        Ok(tokens)
    }
}

/// One token a line; lines that are empty or begin with # do not count.
fn read_file(path: &Path) -> Result<Vec<Token>, String> {
    let sentence = |mismatch: Mismatch| {
        format!("expected {}, found {}", mismatch.expected, mismatch.found.as_deref().unwrap_or("another"))
    };
    let text = yaml::read_file(path, FILE_BYTES_MAX).map_err(sentence)?;
    let lines = text.lines().map(str::trim).enumerate();
    let tokens = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(at, line)| {
        Token::parse(line).map_err(|refusal| format!("line {}: {}", at + 1, sentence(Mismatch::from(refusal))))
    });
    let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
    if tokens.is_empty() { Err("expected a token a line, found none".to_owned()) } else { Ok(tokens) }
}

#[cfg(test)]
mod tests;
