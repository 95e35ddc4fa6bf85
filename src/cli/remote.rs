//! Speaking to the process that owns the embedded file: its HTTP address stands in the lock beside the file.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;

use crate::config::Http;
use crate::domain::access::{Role, Token};

/// Longest wait for an answer of a process on the same machine, and for each part of a long one.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The process has answered, and will not do it.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    detail: String,
}

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

    /// One call; an answer that is no success becomes its problem's sentence.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Value> {
        let answer = self.text(method, path, body).await?;
        serde_json::from_str(&answer).context("the answer is no JSON")
    }

    /// One call whose answer is taken as it is.
    pub(super) async fn text(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<String> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.text().await?);
        }
        let answer: Value = response.json().await.context("the answer is no JSON")?;
        match answer.get("detail").and_then(Value::as_str) {
            Some(detail) => bail!(Refused { status, detail: detail.to_owned() }),
            None => bail!("{} answered {status}", self.address),
        }
    }

    /// The answer's lines as they come, whole ones at a time.
    pub(super) async fn lines(&self, path: &str, sink: &mut (dyn FnMut(&str) + Send)) -> anyhow::Result<()> {
        let mut response = self.send(Method::GET, path, None).await?;
        let status = response.status();
        if !status.is_success() {
            let answer: Value = response.json().await.context("the answer is no JSON")?;
            bail!("{}", answer.get("detail").and_then(Value::as_str).unwrap_or("it was refused"));
        }
        let mut rest = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            rest.extend_from_slice(&chunk);
            if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
                let lines: Vec<u8> = rest.drain(..=end).collect();
                String::from_utf8_lossy(&lines).lines().for_each(&mut *sink);
            }
        }
        Ok(())
    }

    async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Response> {
        let url = format!("http://{}{path}", self.address);
        let needed = needed(&method, path);
        let mut request = self.client.request(method, url);
        if let Some(token) = self.tokens.iter().find(|token| token.role.covers(needed)) {
            request = request.bearer_auth(token.text.expose());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        request.send().await.with_context(|| {
            format!("the process that owns the embedded file does not answer at {}: is it hanging?", self.address)
        })
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
        (_, path) if path.starts_with("/v1/gates") => Role::Publish,
        (..) => Role::Operate,
    }
}
