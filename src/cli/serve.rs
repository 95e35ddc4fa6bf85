//! `hookfleet up`, `hookfleet worker` and `hookfleet server`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::exit::usage;
use super::output;
use super::place::Place;
use super::sample::Sample;
use super::signals::stop_at_signals;
use crate::app::App;
use crate::app::embed::source;
use crate::app::server::{self, Server};
use crate::app::start::Start;
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
    let stop = stop_at_signals()?;
    let start = begin(&settings, Kind::Worker).await?;
    let starting = async {
        let backends = start.open(&settings).await?;
        let source = file.map_or_else(|| backends.shared(&settings), Ok)?;
        App::new(&settings, start, backends, source, no_listener(), Callbacks::default()).await
    };
    let Some(app) = unless_stopped(&stop, starting).await? else { return Ok(ExitCode::SUCCESS) };
    tracing::info!(address = %app.address(), "a worker is up");
    finish(&Box::pin(app.run(stop.cancelled_owned())).await?)
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
    let stop = stop_at_signals()?;
    let start = begin(&settings, Kind::Server).await?;
    let starting = async {
        let backends = start.open(&settings).await?;
        let source = file.map_or_else(|| backends.shared(&settings), Ok)?;
        Server::new(&settings, start, backends, source).await
    };
    let Some(server) = unless_stopped(&stop, starting).await? else { return Ok(ExitCode::SUCCESS) };
    tracing::info!(address = %server.address(), "a server is up");
    server.run(stop.cancelled_owned()).await?;
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
    if up.exit_when_idle && matches!(settings.backend, Backend::Servers { .. }) {
        return Err(usage("--exit-when-idle needs the embedded broker: nobody can say when a shared one is idle"));
    }
    let stop = stop_at_signals()?;
    let start = begin(&settings, Kind::Up).await?;
    let listener = sample.as_ref().map_or_else(no_listener, Sample::listener);
    let starting = async {
        let backends = start.open(&settings).await?;
        let source = own.map_or_else(|| backends.shared(&settings), Ok)?;
        let (file, broker) = (backends.file.clone(), Arc::clone(&backends.broker));
        let app = App::new(&settings, start, backends, source, listener, Callbacks::default()).await?;
        anyhow::Ok((app, file, broker))
    };
    let Some((app, file, broker)) = unless_stopped(&stop, starting).await? else { return Ok(ExitCode::SUCCESS) };
    tracing::info!(address = %app.address(), "up");
    let (worker, address) = (app.worker(), app.address());
    let scheme = if settings.http.certificate.is_some() { "https" } else { "http" };
    let running = app.run(stop.clone().cancelled_owned());
    let beside = async {
        if let Some(sample) = &sample {
            output::out(&format!("serving on {scheme}://{address}; publishing {} sample events", Sample::events()));
            sample.publish(broker.as_ref()).await?;
        }
        if let Some(file) = file.filter(|_| up.exit_when_idle) {
            until_idle(&file, &worker).await;
            stop.cancel();
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

/// Begins to serve, and says so.
async fn begin(settings: &Settings, kind: Kind) -> anyhow::Result<Start> {
    let start = Start::new(settings, kind).await?;
    tracing::info!(address = %start.address(), "starting, with {}", Place::of(settings));
    Ok(start)
}

/// What is started, or nothing if the process is told to stop before that.
async fn unless_stopped<T>(
    stop: &CancellationToken,
    starting: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(None),
        started = starting => started.map(Some),
    }
}
