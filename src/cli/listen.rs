//! `hookfleet listen`: a receiver of one's own, for hooks to reach.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, post};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;

use super::output;
use super::signals::stop_at_signals;

#[derive(Debug, Args)]
pub(super) struct Listen {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8735")]
    bind: SocketAddr,
    /// Answer as the bundled sample's hooks want it: /oncall fails twice for each key and then works, /crm refuses
    #[arg(long)]
    sample: bool,
}

/// Answers and prints a line a request, until it is stopped.
pub(super) async fn run(Listen { bind, sample }: Listen) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(bind).await.with_context(|| format!("cannot listen on {bind}"))?;
    let address = listener.local_addr()?;
    output::err(&format!("listening on http://{address}"));
    let routes = if sample { of_sample() } else { Router::new().fallback(any(StatusCode::NO_CONTENT)) };
    let stop = stop_at_signals()?;
    axum::serve(listener, routes.layer(middleware::from_fn(printed)))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await?;
    Ok(ExitCode::SUCCESS)
}

async fn printed(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let key = key(request.headers());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let seen = json!({ "method": method.as_str(), "path": path, "idempotency_key": key, "status": status });
    // Nobody else's words reach the terminal as they are: a path of a URL has no control characters, a key may have.
    let text = || format!("{method} {path} {} -> {status}", key.escape_debug());
    if let Err(error) = output::answer(&seen, text) {
        tracing::warn!(%error, "a request is not printed");
    }
    response
}

/// Calls so far, by Idempotency-Key.
type Calls = Arc<Mutex<HashMap<String, u32>>>;

/// The receiver of the bundled sample.
pub(super) fn of_sample() -> Router {
    Router::new()
        .route("/audit", post(StatusCode::NO_CONTENT))
        .route("/oncall", post(flaky))
        .route("/crm", post((StatusCode::NOT_FOUND, "no such customer")))
        .with_state(Calls::default())
}

/// Fails twice for every key, then works: a target that mends itself.
async fn flaky(State(calls): State<Calls>, headers: HeaderMap) -> StatusCode {
    let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
    let count = calls.entry(key(&headers)).or_default();
    *count += 1;
    if *count > 2 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn key(headers: &HeaderMap) -> String {
    headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned()
}
