//! `hookfleet up`, `hookfleet worker` and `hookfleet server`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::exit::usage;
use super::output;
use super::sample::Sample;
use crate::app::embed::source;
use crate::app::server::{self, Server};
use crate::app::{App, Backends};
use crate::catalog::watch::Source;
use crate::config::{Backend, Settings};
use crate::executor::callback::Callbacks;
use crate::http::Kind;
use crate::telemetry;
use crate::worker::{Worker, no_listener};

#[derive(Debug, Args)]
pub(super) struct Up {
    /// Publish the bundled sample events to the bundled sample hooks and print a line an invocation
    #[arg(long)]
    sample: bool,
    /// End once nothing is left to do (embedded only)
    #[arg(long)]
    exit_when_idle: bool,
}

/// A worker of a fleet: it needs servers, since an embedded file has one owner.
pub(super) async fn worker(settings: Settings) -> anyhow::Result<ExitCode> {
    let _logs = telemetry::logs::start(&settings.log)?;
    if matches!(settings.backend, Backend::Embedded { .. }) {
        return Err(usage(
            "a worker shares its work with others over RabbitMQ and Redis: set broker.url and redis.url \
               (HOOKFLEET_BROKER_URL, HOOKFLEET_REDIS_URL), or run `hookfleet up` for everything in one process",
        ));
    }
    let file = source(&settings, &Callbacks::default())?;
    let backends = Backends::open(&settings).await?;
    let source = file.map_or_else(|| backends.shared(&settings), Ok)?;
    let app = App::new(&settings, backends, source, Kind::Worker, no_listener(), Callbacks::default()).await?;
    tracing::info!(address = %app.address()?, "a worker is up");
    finish(&app.run(shutdown(CancellationToken::new())).await?)
}

/// A server of a fleet: it needs servers too, since an embedded file is served by the process that owns it.
pub(super) async fn server(settings: Settings) -> anyhow::Result<ExitCode> {
    let _logs = telemetry::logs::start(&settings.log)?;
    if matches!(settings.backend, Backend::Embedded { .. }) {
        return Err(usage(
            "a server speaks for workers that it shares RabbitMQ and Redis with: set broker.url and redis.url \
             (HOOKFLEET_BROKER_URL, HOOKFLEET_REDIS_URL), or run `hookfleet up` for everything in one process",
        ));
    }
    let file = server::source(&settings)?;
    let backends = Backends::open(&settings).await?;
    let source = file.map_or_else(|| backends.shared(&settings), Ok)?;
    let server = Server::new(&settings, backends, source).await?;
    tracing::info!(address = %server.address()?, "a server is up");
    server.run(shutdown(CancellationToken::new())).await?;
    Ok(ExitCode::SUCCESS)
}

/// Everything in one process.
pub(super) async fn up(mut settings: Settings, up: Up) -> anyhow::Result<ExitCode> {
    if up.sample {
        "error".clone_into(&mut settings.log.filter); // its own lines tell the rest
    }
    let _logs = telemetry::logs::start(&settings.log)?;
    let sample = if up.sample { Some(Sample::start(&mut settings).await?) } else { None };
    let own = match &sample {
        Some(sample) => Some(Source::Fixed(sample.hooks(settings.hint_max)?)),
        None => source(&settings, &Callbacks::default())?,
    };
    let backends = Backends::open(&settings).await?;
    let source = own.map_or_else(|| backends.shared(&settings), Ok)?;
    let file = backends.file.clone();
    if up.exit_when_idle && file.is_none() {
        return Err(usage("--exit-when-idle needs the embedded broker: nobody can say when a shared one is idle"));
    }
    let (broker, done) = (Arc::clone(&backends.broker), CancellationToken::new());
    let listener = sample.as_ref().map_or_else(no_listener, Sample::listener);
    let app = App::new(&settings, backends, source, Kind::Up, listener, Callbacks::default()).await?;
    tracing::info!(address = %app.address()?, "up");
    let (worker, address) = (app.worker(), app.address()?);
    let scheme = if settings.http.certificate.is_some() { "https" } else { "http" };
    let running = app.run(shutdown(done.clone()));
    let beside = async {
        if let Some(sample) = &sample {
            output::out(&format!("serving on {scheme}://{address}; publishing {} sample events", Sample::events()));
            sample.publish(broker.as_ref()).await?;
        }
        if let Some(file) = file.filter(|_| up.exit_when_idle) {
            until_idle(&file, &worker).await;
            done.cancel();
        }
        std::future::pending::<anyhow::Result<()>>().await
    };
    let orphans = tokio::select! {
        orphans = running => orphans?,
        failed = beside => { failed?; Vec::new() }
    };
    if let Some(sample) = sample {
        output::out(&sample.summary());
    }
    finish(&orphans)
}

fn finish(orphans: &[String]) -> anyhow::Result<ExitCode> {
    if !orphans.is_empty() {
        bail!("{} runs were cut off; they will be taken over:\n  {}", orphans.len(), orphans.join("\n  "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Nothing queued, delayed or in hand, seen twice in a row.
async fn until_idle(file: &crate::embedded::Store, worker: &Worker) {
    let mut idle = 0;
    while idle < 2 {
        sleep(Duration::from_millis(100)).await;
        let left = file.messages().await.unwrap_or(u64::MAX);
        idle = if left == 0 && worker.in_flight.names().is_empty() { idle + 1 } else { 0 };
    }
}

/// Completes on the first SIGTERM or SIGINT, or when `done`; a second signal ends the process at once.
async fn shutdown(done: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals: stop this process with kill -9, nothing will be lost");
        return done.cancelled().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = done.cancelled() => {}
    }
    tracing::info!("stopping: no new work; a second signal ends this at once");
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    });
}
