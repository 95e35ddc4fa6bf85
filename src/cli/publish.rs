//! `hookfleet publish`.

use std::io::{BufRead, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use futures_util::{Stream, StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::hooks::event_types;
use super::output;
use super::place::Place;
use super::sink::Sink;
use crate::config::Settings;
use crate::domain::dialect::Dialect;
use crate::domain::escape;
use crate::domain::event::Reading;
use crate::domain::event_type::EventTypes;
use crate::domain::json::text_without_mark;
use crate::domain::pattern::oddity;
use crate::publish::{Event, EventBuilder, Rejected, foreign, prepare};

/// Lines that are read ahead.
const LINES_AHEAD: usize = 256;

/// One event, from flags.
#[derive(Debug, Args)]
pub(super) struct About {
    /// Who says so [default: /hookfleet/publish]
    #[arg(long)]
    source: Option<String>,
    /// What it happened to
    #[arg(long)]
    subject: Option<String>,
    /// The event's id: publishing an id twice handles it once [default: a random one]
    #[arg(long)]
    id: Option<String>,
    /// The data as JSON, or @FILE
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Publish {
    /// What happened, such as task.failed
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "file")]
    kind: Option<String>,
    #[command(flatten)]
    about: About,
    /// Many events: one CloudEvent in JSON a line; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "source", "subject", "id", "data"])]
    file: Option<PathBuf>,
}

pub(super) async fn run(settings: &Settings, publish: Publish) -> anyhow::Result<ExitCode> {
    if let Some(Place::File { path, owner: None, .. }) = output::place() {
        output::err(&format!(
            "warning: no process has {} open: what is published waits there until `hookfleet up` runs on it",
            path.display()
        ));
    }
    match &publish.file {
        None => one(settings, &publish).await,
        Some(file) => many(settings, file).await,
    }
}

impl About {
    pub(super) fn event(&self, kind: &str) -> anyhow::Result<Event> {
        let mut event = Event::builder(kind);
        for (set, value) in [
            (EventBuilder::source as fn(EventBuilder, &str) -> EventBuilder, &self.source),
            (EventBuilder::subject, &self.subject),
            (EventBuilder::id, &self.id),
        ] {
            if let Some(value) = value {
                event = set(event, value);
            }
        }
        if let Some(text) = self.text()? {
            event = event
                .data(&serde_json::from_str::<&RawValue>(text_without_mark(&text)).context("--data: expected JSON")?);
        }
        Ok(event.build()?)
    }

    /// An event in the words of another system, which are the data.
    pub(super) fn foreign(&self, dialect: Dialect, reading: &Reading) -> anyhow::Result<Event> {
        let body = Bytes::from(self.text()?.unwrap_or_default());
        foreign(dialect, &[], &body, self.id.as_deref(), reading)
            .map_err(|rejected| anyhow!("--data: {}", rejected.sentence()))
    }

    /// The data, out of a file where they are in one.
    fn text(&self) -> anyhow::Result<Option<String>> {
        let Some(data) = &self.data else { return Ok(None) };
        let text = match data.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read --data {path}"))?,
            None => data.clone(),
        };
        Ok(Some(text))
    }
}

async fn one(settings: &Settings, publish: &Publish) -> anyhow::Result<ExitCode> {
    let event = publish.about.event(publish.kind.as_deref().unwrap_or_default())?;
    let kind = publish.kind.as_deref().unwrap_or_default();
    let odd = if kind.contains('*') { Some("a wildcard of hooks") } else { oddity(kind) };
    if let Some(odd) = odd {
        output::err(&format!("warning: the type \"{}\" has {odd}: is it what hooks wait for?", escape::name(kind)));
    }
    match event.misfit(&event_types(settings).await) {
        Some(misfit) if misfit.strict => bail!("nothing was published: {}", misfit.sentence()),
        Some(misfit) => output::err(&format!("warning: {}", misfit.sentence())),
        None => {}
    }
    let sink = Sink::open(settings).await?;
    let sent = sink.publisher.publish(&event).await;
    sink.close().await;
    sent?;
    let answer = json!({ "published": 1, "id": event.id(), "source": event.source() });
    output::answer(&answer, || format!("published {} (source {}), confirmed", event.id(), event.source()))?;
    Ok(ExitCode::SUCCESS)
}

async fn many(settings: &Settings, file: &Path) -> anyhow::Result<ExitCode> {
    let taking = Taking { reading: settings.events, types: Arc::new(event_types(settings).await) };
    let (lines, bar): (Box<dyn BufRead + Send>, _) = if file.as_os_str() == "-" {
        (Box::new(BufReader::new(std::io::stdin())), bar(None))
    } else {
        // Every line is checked before the first is published: a file goes out whole or not at all.
        let total =
            check(open(file)?, &taking).with_context(|| format!("{}: nothing was published", file.display()))?;
        (Box::new(open(file)?), bar(Some(total)))
    };
    let sink = Sink::open(settings).await?;
    let (mut confirmed, mut failed, mut misfits) = (0u64, None, Misfits::default());
    {
        let mut bad = None;
        let mut sent = Box::pin(sink.publisher.publish_all(until_bad(lines, taking, &mut misfits, &mut bad)));
        while let Some(result) = sent.next().await {
            match result {
                Ok(_) => {
                    confirmed += 1;
                    bar.inc(1);
                }
                Err(error) => {
                    failed = Some(error.into());
                    break; // what is under way may still arrive: ids make sending again safe
                }
            }
        }
        drop(sent);
        failed = failed.or(bad);
    }
    bar.finish_and_clear();
    sink.close().await;
    misfits.tell();
    if let Some(error) = failed {
        return Err(error.context(format!("{confirmed} events were published and confirmed before this")));
    }
    output::answer(&json!({ "published": confirmed }), || format!("published {confirmed} events, all confirmed"))?;
    Ok(ExitCode::SUCCESS)
}

/// The events of these lines, up to the first that is none, which is left in `bad`. Read by a thread of its own: a slow
/// pipe must not keep confirms and heartbeats waiting.
fn until_bad(
    lines: Box<dyn BufRead + Send>,
    taking: Taking,
    misfits: &mut Misfits,
    bad: &mut Option<anyhow::Error>,
) -> impl Stream<Item = Event> {
    let (sender, mut receiver) = mpsc::channel(LINES_AHEAD);
    // No task of the runtime: its end would wait for the pipe's.
    std::thread::spawn(move || {
        for (index, line) in lines.split(b'\n').enumerate() {
            let event = match line {
                Ok(line) if line.trim_ascii().is_empty() => continue,
                Ok(line) => taking.read(&line, index + 1),
                Err(error) => Err(anyhow!("line {}: {error}", index + 1)),
            };
            let last = event.is_err();
            if sender.blocking_send(event).is_err() || last {
                return;
            }
        }
    });
    stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|line| match line? {
            Ok((event, misfit)) => {
                misfits.add(misfit);
                Some(event)
            }
            Err(error) => {
                *bad = Some(error);
                None
            }
        })
    })
}

fn open(file: &Path) -> anyhow::Result<BufReader<std::fs::File>> {
    let opened = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(BufReader::new(opened))
}

/// The number of events in a file.
fn check(lines: impl BufRead, taking: &Taking) -> anyhow::Result<u64> {
    let mut count = 0;
    for (index, line) in lines.split(b'\n').enumerate() {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        taking.read(&line, index + 1)?;
        count += 1;
    }
    Ok(count)
}

/// What the fleet takes.
struct Taking {
    reading: Reading,
    types: Arc<EventTypes>,
}

impl Taking {
    /// The event of a line, and how it differs from what its type declares, if that is no reason to refuse it.
    fn read(&self, line: &[u8], number: usize) -> anyhow::Result<(Event, Option<String>)> {
        let event =
            prepare(&Bytes::copy_from_slice(line), None, None, &self.reading).map_err(|rejected| match rejected {
                Rejected::ContentType(error)
                | Rejected::Coding(error)
                | Rejected::Event(error)
                | Rejected::TooLarge(error) => {
                    anyhow!("line {number}: {error}")
                }
            })?;
        match event.misfit(&self.types) {
            Some(misfit) if misfit.strict => bail!("line {number}: {}", misfit.sentence()),
            misfit => Ok((event, misfit.map(|misfit| format!("line {number}: {}", misfit.sentence())))),
        }
    }
}

/// Events that are published although they are not what their types declare.
#[derive(Default)]
struct Misfits {
    count: u64,
    first: Option<String>,
}

impl Misfits {
    fn add(&mut self, misfit: Option<String>) {
        if let Some(misfit) = misfit {
            self.count += 1;
            self.first.get_or_insert(misfit);
        }
    }

    fn tell(&self) {
        if let Some(first) = &self.first {
            output::err(&format!(
                "warning: {} events are not what their types declare, the first: {first}",
                self.count
            ));
        }
    }
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
