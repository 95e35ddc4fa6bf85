//! `hookfleet verify`: whether anything is lost or done twice on the user's own servers, or in a file, while workers are
//! killed, restarted and stopped.
//!
//! The workers are processes of this program, on the user's settings but in a namespace of their own; publisher and
//! receiver are in this one. Events of all phases are counted in the end: a run that is repeated late counts for the
//! phase in which its event was published.

use std::future::ready;
use std::ops::Range;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::exit::usage;
use super::output;
use super::trial::{self, Trial};
use crate::config::{Backend, Settings};
use crate::domain::hook::HookLane;
use crate::publish::{Event, Publisher, PublisherOptions};
use book::Book;
use faults::{Fault, LEASE};
use launch::Launch;
use receiver::Receiver;
use report::{Buried, Report, Row};
use way::Way;
use workers::Workers;

mod book;
mod faults;
pub(super) mod launch;
mod receiver;
mod report;
mod way;
mod workers;

/// The type of the events.
const KIND: &str = "verify.event";
/// Worker processes, unless the user says otherwise.
const WORKERS: u32 = 3;
/// Between two looks for what has not arrived yet.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks without an arrival before letters are looked at: what is missing may have become some.
const LOOKS: u32 = 20;
/// In the end, no call for so long means that none will come: claims have lapsed and were taken over.
const SETTLED_AFTER: Duration = LEASE.saturating_mul(2);

/// Loss and duplicates under faults, in a namespace of its own, which is removed in the end.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Events to publish in each of the four phases
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    events: u32,
    /// Events a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Worker processes [default: 3; in a file always 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: Option<u32>,
    /// Give a phase up after so many seconds; what has not arrived by then counts as lost
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    limit: u64,
}

/// A phase that is over.
struct Phase {
    fault: Fault,
    times: u32,
    load: Range<Duration>,
}

/// Everything that takes part.
struct Stage<'s> {
    verify: &'s Verify,
    way: &'s Way,
    receiver: &'s Receiver,
    workers: &'s mut Workers,
    publisher: Publisher,
}

pub(super) async fn run(settings: Settings, launch: Launch, verify: Verify) -> anyhow::Result<ExitCode> {
    let count = verify.checked(&settings)?;
    let trial = Trial::new(settings, "verify");
    let mut interrupted = pin!(trial::interrupted()?);
    let tried = tokio::select! {
        way = Way::open(&trial.settings) => way,
        () = &mut interrupted => Err(anyhow!("interrupted")),
    };
    let rows = match tried {
        Ok(way) => {
            let rows = on(&trial, &way, launch, (&verify, count), interrupted).await;
            way.close().await;
            rows
        }
        Err(error) => Err(error),
    };
    let report = Report::new(trial.broker(), count, verify.rate, trial.end(rows).await?);
    output::answer(&report, || report.shown())?;
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The phases, in processes that are gone afterwards.
async fn on(
    trial: &Trial,
    way: &Way,
    launch: Launch,
    (verify, count): (&Verify, u32),
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<Vec<Row>> {
    let Trial { settings, folder } = trial;
    let receiver = Receiver::start(Book::new(verify.events, Fault::ALL.len()))?;
    std::fs::create_dir(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let file = folder.join("hooks.yaml");
    std::fs::write(&file, hooks(&receiver, settings.worker.lanes))?;
    let mut launch = launch
        .set("namespace", &settings.namespace)
        .set("hooks", &file.to_string_lossy())
        .set("catalog.from", "file")
        .set("catalog.cache", "")
        .set("egress.allow", &receiver.address.ip().to_string())
        .set("egress.ports", "")
        .set("http.tls_cert", "")
        .set("http.tls_key", "")
        .set("idempotency.lease", &format!("{}s", LEASE.as_secs()))
        .set("log.level", "hookfleet=warn");
    if let Backend::Embedded { path } = &settings.backend {
        launch = launch.subcommand("up").set("embedded.path", &path.to_string_lossy());
    }
    let mut workers = Workers::new(launch, settings.worker.grace, folder)?;
    let rows = tokio::select! {
        rows = phases(settings, way, &receiver, &mut workers, (verify, count)) => rows,
        () = interrupted => Err(anyhow!("interrupted")),
    };
    workers.end().await;
    rows
}

async fn phases(
    settings: &Settings,
    way: &Way,
    receiver: &Receiver,
    workers: &mut Workers,
    (verify, count): (&Verify, u32),
) -> anyhow::Result<Vec<Row>> {
    workers.start_all(count as usize).await?;
    let patience = Duration::from_secs(verify.limit);
    let options =
        PublisherOptions { patience, body_bytes_max: settings.events.body_bytes_max, ..PublisherOptions::default() };
    let publisher = way.publisher(options, workers.first())?;
    let mut stage = Stage { verify, way, receiver, workers, publisher };
    let mut over = Vec::new();
    for (number, fault) in Fault::ALL.into_iter().enumerate() {
        over.push(stage.phase(number, fault).await.with_context(|| format!("phase \"{}\"", fault.shown()))?);
    }
    stage.until_settled().await;
    stage.rows(&over).await
}

impl Verify {
    /// How many workers there are to be, if the options go together.
    fn checked(&self, settings: &Settings) -> anyhow::Result<u32> {
        let load = u64::from(self.events.div_ceil(self.rate));
        if self.limit <= load {
            return Err(usage(format!(
                "expected --limit to be more than the {load} s that --events take at --rate, found {}",
                self.limit
            )));
        }
        match (&settings.backend, self.workers) {
            (Backend::Servers { .. }, workers) => Ok(workers.unwrap_or(WORKERS)),
            (Backend::Embedded { .. }, None | Some(1)) => Ok(1),
            (Backend::Embedded { .. }, Some(workers)) => Err(usage(format!(
                "expected --workers 1, found {workers}: a file has one owner; set broker.url and redis.url to verify a fleet"
            ))),
        }
    }
}

impl Stage<'_> {
    /// Publishes the events of a phase while its fault is made, and waits for what comes of them.
    async fn phase(&mut self, number: usize, fault: Fault) -> anyhow::Result<Phase> {
        let until = Instant::now() + Duration::from_secs(self.verify.limit);
        let over = CancellationToken::new();
        let load = async {
            let _over = over.clone().drop_guard();
            load(&self.publisher, self.receiver, self.verify, number).await
        };
        let both = async { tokio::try_join!(load, fault.make(self.workers, &over)) };
        let (load, times) = timeout_at(until, both).await.context("publishing took longer than --limit")??;
        let _ = timeout_at(until, self.until_complete(number)).await; // what is missing then is counted as lost
        Ok(Phase { fault, times, load })
    }

    /// Waits until every event of a phase has arrived or become a letter.
    async fn until_complete(&self, phase: usize) {
        let (mut looks, mut last) = (0, Duration::ZERO);
        while !self.receiver.book().is_complete(phase) {
            sleep(LOOK_EVERY).await;
            let latest = self.receiver.book().last();
            looks = if latest == last { looks + 1 } else { 0 };
            last = latest;
            if looks >= LOOKS {
                looks = 0;
                let missing = self.receiver.book().tally(phase, &(last..last)).missing;
                let letters = self.letters().await;
                if letters.is_ok_and(|letters| letters.has_all(&missing)) {
                    return;
                }
            }
        }
    }

    async fn until_settled(&self) {
        let began = self.receiver.now();
        loop {
            let last = self.receiver.book().last().max(began);
            let quiet = self.receiver.now().saturating_sub(last);
            if quiet >= SETTLED_AFTER {
                return;
            }
            sleep(SETTLED_AFTER.saturating_sub(quiet)).await;
        }
    }

    async fn letters(&self) -> anyhow::Result<Buried> {
        let owner = *self.workers.first().borrow();
        Ok(Buried::of(&self.way.letters(owner).await?))
    }

    async fn rows(&self, over: &[Phase]) -> anyhow::Result<Vec<Row>> {
        let buried = self.letters().await?;
        let book = self.receiver.book();
        let row = |(number, phase): (usize, &Phase)| {
            let tally = book.tally(number, &phase.load);
            Row::new((phase.fault, phase.times), self.verify.events, &tally, &buried, (number, over.len()))
        };
        Ok(over.iter().enumerate().map(row).collect())
    }
}

/// Publishes the events of a phase. Answers from when to when, in the time of the receiver.
async fn load(
    publisher: &Publisher,
    receiver: &Receiver,
    verify: &Verify,
    phase: usize,
) -> anyhow::Result<Range<Duration>> {
    let began = receiver.now();
    let first = verify.events * u32::try_from(phase)?;
    let events = trial::paced(verify.events, Some(verify.rate)).filter_map(|number| {
        let event = Event::builder(KIND).source("/hookfleet/verify").id(&trial::id(first + number)).build();
        ready(event.ok())
    });
    let mut answers = Box::pin(publisher.publish_all(events));
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(began..receiver.now())
}

/// One hook, in a lane that the workers serve.
fn hooks(receiver: &Receiver, lanes: [bool; HookLane::ALL.len()]) -> String {
    let lane = HookLane::ALL.into_iter().find(|&lane| lanes[lane as usize]).unwrap_or(HookLane::Default);
    let hook = format!("id: verify, on: {KIND}, lane: {}, timeout: 10s, concurrency: 256", lane.name());
    let retry = "{ attempts: 8, backoff: { initial: 500ms, factor: 2, max: 5s, jitter: 0.2 } }";
    let run = format!("{{ http: {{ url: \"http://{}/\" }} }}", receiver.address);
    format!("version: 1\nhooks:\n  - {{ {hook}, retry: {retry}, run: {run} }}\n")
}
