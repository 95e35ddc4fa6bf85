//! Speaking to the process that owns the embedded file: its HTTP address stands in the lock beside the file.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use reqwest::{Client, Method};

use super::answer::Answer;
use crate::config::Http;
use crate::domain::access::{Role, Token};

/// Longest wait for an answer of a process on the same machine, and for each part of a long one.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running `hookfleet up`.
pub(super) struct Remote {
    client: Client,
    address: SocketAddr,
    tokens: Vec<Token>,
}

impl Remote {
    /// The tokens are those of our own settings, which are the other process's too on its machine.
    pub(super) fn new(address: SocketAddr, http: &Http) -> anyhow::Result<Self> {
        crate::executor::install_crypto();
        Ok(Self { client: client(TIMEOUT)?, address, tokens: http.read_tokens()? })
    }

    /// The same, for calls that are answered after so long.
    pub(super) fn patient(&self, wait: Duration) -> anyhow::Result<Self> {
        let client = client(wait + TIMEOUT)?;
        Ok(Self { client, address: self.address, tokens: self.tokens.clone() })
    }

    /// The same, at another address.
    pub(super) fn at(&self, address: SocketAddr) -> Self {
        Self { client: self.client.clone(), address, tokens: self.tokens.clone() }
    }

    /// One call, with the token of a role that it takes, if there is one.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Answer> {
        let url = format!("http://{}{path}", self.address);
        let needed = needed(&method, path);
        let mut request = self.client.request(method, url);
        if let Some(token) = self.tokens.iter().find(|token| token.role.covers(needed)) {
            request = request.bearer_auth(token.text.expose());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let sent = request.send().await.with_context(|| {
            format!("the process that owns the embedded file does not answer at {}: is it hanging?", self.address)
        })?;
        Ok(Answer::new(axum::http::Response::from(sent).map(Body::new)))
    }
}

fn client(read_timeout: Duration) -> reqwest::Result<Client> {
    Client::builder().no_proxy().read_timeout(read_timeout).build()
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
