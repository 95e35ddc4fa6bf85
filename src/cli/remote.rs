//! Speaking to the process that owns the embedded file: its HTTP address stands in the lock beside the file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::Body;
use reqwest::{Client, Method};

use super::answer::Answer;
use crate::config::Http;
use crate::domain::access::{Role, Token};
use crate::embedded::Owner;

mod pinned;

/// Longest wait for an answer of a process on the same machine, and for each part of a long one.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running `hookfleet up`.
pub(super) struct Remote {
    client: Client,
    owner: Owner,
    tokens: Vec<Token>,
    /// The certificate that it has to show, if it speaks TLS.
    certificate: Option<PathBuf>,
}

impl Remote {
    /// Tokens and certificate are those of our own settings, which are the other process's too on its machine.
    pub(super) fn new(owner: Owner, http: &Http) -> anyhow::Result<Self> {
        crate::executor::install_crypto();
        let certificate = http.certificate.as_ref().filter(|_| owner.is_tls).map(|files| files.chain.clone());
        if owner.is_tls && certificate.is_none() {
            bail!(
                "the process that owns the embedded file speaks TLS at {owner}: set http.tls_cert and http.tls_key as it has them"
            );
        }
        let client = client(TIMEOUT, certificate.as_deref())?;
        Ok(Self { client, owner, tokens: http.read_tokens()?, certificate })
    }

    /// The same, for calls that are answered after so long.
    pub(super) fn patient(&self, wait: Duration) -> anyhow::Result<Self> {
        let client = client(wait + TIMEOUT, self.certificate.as_deref())?;
        Ok(Self { client, owner: self.owner, tokens: self.tokens.clone(), certificate: self.certificate.clone() })
    }

    /// The same, at another address.
    pub(super) fn at(&self, address: SocketAddr) -> Self {
        let owner = Owner { address, ..self.owner };
        Self { client: self.client.clone(), owner, tokens: self.tokens.clone(), certificate: self.certificate.clone() }
    }

    /// One call, with the token of a role that it takes, if there is one.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Answer> {
        let url = format!("{}{path}", self.owner);
        let needed = needed(&method, path);
        let mut request = self.client.request(method, url);
        if let Some(token) = self.tokens.iter().find(|token| token.role.covers(needed)) {
            request = request.bearer_auth(token.text.expose());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let sent = request.send().await.with_context(|| {
            format!("the process that owns the embedded file does not answer at {}: is it hanging?", self.owner.address)
        })?;
        Ok(Answer::new(axum::http::Response::from(sent).map(Body::new)))
    }
}

fn client(read_timeout: Duration, certificate: Option<&Path>) -> anyhow::Result<Client> {
    let builder = Client::builder().no_proxy().read_timeout(read_timeout);
    Ok(match certificate {
        Some(file) => builder.tls_backend_preconfigured(pinned::config(file)?).build()?,
        None => builder.build()?,
    })
}

/// The role that a call takes.
fn needed(method: &Method, path: &str) -> Role {
    match (method, path) {
        (&Method::GET, _) => Role::Read,
        (_, "/v1/events") => Role::Publish,
        (_, path) if path.starts_with("/v1/gates") => Role::Decide,
        (..) => Role::Operate,
    }
}
