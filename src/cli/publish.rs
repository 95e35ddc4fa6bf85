//! `hookfleet publish`.

use std::io::{BufRead, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use futures_util::{Stream, StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::value::to_raw_value;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::output;
use super::remote::Remote;
use crate::app::Backends;
use crate::broker::Broker;
use crate::config::{Backend, Settings};
use crate::domain::event::Reading;
use crate::embedded;
use crate::publish::{Fields, Prepared, Rejected, prepare};

/// Unconfirmed events at a time.
const WINDOW: usize = 256;
/// Tries of one event, a second apart.
const TRIES: u32 = 15;

#[derive(Debug, Args)]
pub(super) struct Publish {
    /// What happened, such as task.failed
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "file")]
    kind: Option<String>,
    /// Who says so [default: /hookfleet/publish]
    #[arg(long, conflicts_with = "file")]
    source: Option<String>,
    /// What it happened to
    #[arg(long, conflicts_with = "file")]
    subject: Option<String>,
    /// The event's id: publishing an id twice handles it once [default: a random one]
    #[arg(long, conflicts_with = "file")]
    id: Option<String>,
    /// The data as JSON, or @FILE
    #[arg(long, conflicts_with = "file", value_name = "JSON")]
    data: Option<String>,
    /// Many events: one CloudEvent in JSON a line; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "kind")]
    file: Option<PathBuf>,
}

/// Why an event of many was not published.
enum Failed {
    Line(anyhow::Error),
    Send(anyhow::Error),
}

/// Where events go.
enum Sink {
    Broker(Arc<dyn Broker>, Backends),
    Owner(Remote),
}

pub(super) async fn run(settings: &Settings, publish: Publish) -> anyhow::Result<ExitCode> {
    match &publish.file {
        None => one(settings, &publish).await,
        Some(file) => many(settings, file).await,
    }
}

async fn one(settings: &Settings, publish: &Publish) -> anyhow::Result<ExitCode> {
    let mut event = Fields::new();
    for (name, value) in [
        ("type", &publish.kind),
        ("source", &publish.source),
        ("subject", &publish.subject),
        ("id", &publish.id),
        ("datacontenttype", &publish.data.as_ref().map(|_| "application/json".to_owned())),
    ] {
        if let Some(value) = value {
            event.insert(name.to_owned(), to_raw_value(value)?);
        }
    }
    if let Some(data) = &publish.data {
        let text = match data.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read --data {path}"))?,
            None => data.clone(),
        };
        event.insert("data".to_owned(), serde_json::from_str(&text).context("--data: expected JSON")?);
    }
    let prepared = ready(&serde_json::to_vec(&event)?, &settings.events).map_err(|error| anyhow!(error))?;
    let sink = Sink::open(settings).await?;
    let sent = sink.send(&prepared).await;
    sink.close().await;
    sent?;
    output::out(&format!("published {} (source {}), confirmed", prepared.event.id, prepared.event.source));
    Ok(ExitCode::SUCCESS)
}

async fn many(settings: &Settings, file: &Path) -> anyhow::Result<ExitCode> {
    let reading = settings.events;
    let (lines, bar): (Box<dyn BufRead + Send>, _) = if file.as_os_str() == "-" {
        (Box::new(BufReader::new(std::io::stdin())), bar(None))
    } else {
        // Every line is checked before the first is published: a file goes out whole or not at all.
        let total =
            check(open(file)?, &reading).with_context(|| format!("{}: nothing was published", file.display()))?;
        (Box::new(open(file)?), bar(Some(total)))
    };
    let sink = Sink::open(settings).await?;
    let mut sent = events(lines, reading)
        .map(|event| {
            let sink = &sink;
            async move { sink.send(&event.map_err(Failed::Line)?).await.map_err(Failed::Send) }
        })
        .buffer_unordered(WINDOW);
    let (mut confirmed, mut failed) = (0u64, None);
    while let Some(result) = sent.next().await {
        match result {
            Ok(()) => {
                confirmed += 1;
                bar.inc(1);
            }
            Err(Failed::Line(error)) => failed = Some(error), // the last one; what is under way goes on
            Err(Failed::Send(error)) => {
                failed = Some(error);
                break; // what is under way may still arrive: ids make sending again safe
            }
        }
    }
    drop(sent);
    bar.finish_and_clear();
    sink.close().await;
    if let Some(error) = failed {
        bail!("{error:#}; {confirmed} events were published and confirmed before");
    }
    output::out(&format!("published {confirmed} events, all confirmed"));
    Ok(ExitCode::SUCCESS)
}

/// The events of these lines, up to the first that is none. Read by a thread of its own: a slow pipe must not keep
/// confirms and heartbeats waiting.
fn events(lines: Box<dyn BufRead + Send>, reading: Reading) -> impl Stream<Item = anyhow::Result<Prepared>> {
    let (sender, mut receiver) = mpsc::channel(WINDOW);
    // No task of the runtime: its end would wait for the pipe's.
    std::thread::spawn(move || {
        for (index, line) in lines.split(b'\n').enumerate() {
            let event = match line {
                Ok(line) if line.trim_ascii().is_empty() => continue,
                Ok(line) => ready(&line, &reading).map_err(|error| anyhow!("line {}: {error}", index + 1)),
                Err(error) => Err(anyhow!("line {}: {error}", index + 1)),
            };
            let last = event.is_err();
            if sender.blocking_send(event).is_err() || last {
                return;
            }
        }
    });
    stream::poll_fn(move |context| receiver.poll_recv(context))
}

fn open(file: &Path) -> anyhow::Result<BufReader<std::fs::File>> {
    let opened = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(BufReader::new(opened))
}

/// The number of events in a file.
fn check(lines: impl BufRead, reading: &Reading) -> anyhow::Result<u64> {
    let mut count = 0;
    for (index, line) in lines.split(b'\n').enumerate() {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        ready(&line, reading).map_err(|error| anyhow!("line {}: {error}", index + 1))?;
        count += 1;
    }
    Ok(count)
}

fn ready(text: &[u8], reading: &Reading) -> Result<Prepared, String> {
    prepare(&Bytes::copy_from_slice(text), None, None, reading).map_err(|rejected| match rejected {
        Rejected::ContentType(error) | Rejected::Event(error) => error,
    })
}

fn bar(total: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    match total {
        Some(total) => {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} eta {eta}");
            ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        }
        None => ProgressBar::new_spinner(),
    }
}

impl Sink {
    async fn open(settings: &Settings) -> anyhow::Result<Self> {
        if let Backend::Embedded { path } = &settings.backend
            && let Some(address) = embedded::owner(path)
        {
            return Ok(Self::Owner(Remote::new(address)?));
        }
        let backends = Backends::open(settings).await?;
        Ok(Self::Broker(Arc::clone(&backends.broker), backends))
    }

    /// Publishes one event until it is confirmed, for a while.
    async fn send(&self, event: &Prepared) -> anyhow::Result<()> {
        let mut tries = 0;
        loop {
            let sent = match self {
                Self::Broker(broker, _) => broker.publish(event.outgoing()).await.map_err(anyhow::Error::from),
                Self::Owner(remote) => {
                    let body = event.event.body.to_vec();
                    remote.call(Method::POST, "/v1/events", Some(body)).await.map(|_| ())
                }
            };
            match sent {
                Ok(()) => return Ok(()),
                Err(error) if tries >= TRIES => return Err(error),
                Err(_) => sleep(Duration::from_secs(1)).await,
            }
            tries += 1;
        }
    }

    async fn close(self) {
        if let Self::Broker(broker, backends) = self {
            broker.close().await;
            if let Some(file) = backends.file {
                file.close().await;
            }
        }
    }
}
