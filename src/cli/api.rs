//! The HTTP routes, as commands call them: over loopback where another process owns the file, else within this process.

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

use super::answer::Answer;
use super::remote::Remote;
use crate::http::{Routes, in_process};

/// The way to the routes.
pub(super) enum Api {
    /// Those of the process that owns the file.
    Loopback(Remote),
    /// Those of this process, over its own connections.
    InProcess(Router),
}

impl Api {
    /// These routes within this process.
    pub(super) fn in_process(routes: Routes) -> Self {
        Self::InProcess(in_process(vec![routes]))
    }

    /// One call.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Answer> {
        match self {
            Self::Loopback(remote) => remote.send(method, path, body).await,
            Self::InProcess(routes) => {
                let request = Request::builder().method(method).uri(path);
                let request = request.header(header::CONTENT_TYPE, "application/json");
                let request = request.body(Body::from(body.unwrap_or_default())).context("the path is no URI")?;
                let Ok(response) = routes.clone().oneshot(request).await;
                Ok(Answer::new(response))
            }
        }
    }

    /// What is read from a path.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Ok(serde_json::from_value(self.send(Method::GET, path, None).await?.json().await?)?)
    }

    /// What comes of a request with this body.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let body = Some(serde_json::to_vec(body)?);
        Ok(serde_json::from_value(self.send(Method::POST, path, body).await?.json().await?)?)
    }
}
