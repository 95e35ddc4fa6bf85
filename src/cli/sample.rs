//! The bundled sample: events, hooks, and a receiver on loopback for them to reach.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use tokio::net::TcpListener;

use super::listen::of_sample;
use super::output;
use crate::broker::Broker;
use crate::catalog::{self, Terms};
use crate::config::{Egress, Settings};
use crate::domain::claim::{Next, Settlement};
use crate::domain::event::Reading;
use crate::domain::matching::HookSet;
use crate::domain::outcome::Outcome;
use crate::publish::prepare;
use crate::worker::{Attempted, Listener};

const HOOKS: &str = include_str!("../../config/sample/hooks.yaml");
const EVENTS: &str = include_str!("../../config/sample/events.ndjson");

/// What has been printed so far.
#[derive(Default)]
struct Tally {
    done: u32,
    retried: u32,
    letters: u32,
}

/// The running sample.
pub(super) struct Sample {
    receiver: SocketAddr,
    tally: Arc<Mutex<Tally>>,
}

impl Sample {
    /// Starts the receiver, and allows this process to reach it.
    pub(super) async fn start(settings: &mut Settings) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let receiver = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, of_sample()).await });
        let Egress { allow, ports, .. } = &mut settings.egress;
        allow.push(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
        if !ports.is_empty() {
            ports.push(receiver.port());
        }
        Ok(Self { receiver, tally: Arc::default() })
    }

    pub(super) fn hooks(&self, hint_max: Duration) -> anyhow::Result<HookSet> {
        let receiver = format!("http://{}", self.receiver);
        let env = |name: &str| (name == "SAMPLE_RECEIVER").then(|| receiver.clone());
        let terms = Terms { hint_max, env: &env, egress: &[IpAddr::V4(Ipv4Addr::LOCALHOST).into()], callbacks: None };
        Ok(catalog::parse(HOOKS, "config/sample/hooks.yaml", &terms)?.hooks)
    }

    pub(super) fn events() -> usize {
        EVENTS.lines().count()
    }

    /// Publishes every sample event, each under a new id.
    pub(super) async fn publish(&self, broker: &dyn Broker) -> anyhow::Result<()> {
        for line in EVENTS.lines() {
            let prepared = prepare(&Bytes::from_static(line.as_bytes()), None, None, &Reading::default());
            let prepared = prepared.map_err(|rejected| anyhow!("the bundled sample is broken: {rejected:?}"))?;
            broker.publish(prepared.outgoing()).await?;
        }
        Ok(())
    }

    /// Prints a line an attempt.
    pub(super) fn listener(&self) -> Listener {
        let tally = Arc::clone(&self.tally);
        Box::new(move |attempted| {
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            output::out(&line(attempted, &mut tally));
        })
    }

    pub(super) fn summary(&self) -> String {
        let Tally { done, retried, letters } = &*self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        format!(
            "{done} invocations done, {retried} attempts retried, {letters} given up: see `hookfleet dead-letters list`"
        )
    }
}

fn line(attempted: &Attempted<'_>, tally: &mut Tally) -> String {
    let Attempted { invocation, outcome, settlement, took } = attempted;
    let what = match settlement {
        Some(Settlement::Done) => {
            tally.done += 1;
            "done".to_owned()
        }
        None => "interrupted".to_owned(),
        Some(Settlement::Next(Next::Retry { delay_ms, .. })) => {
            tally.retried += 1;
            format!("failed, again in {delay_ms} ms")
        }
        Some(Settlement::Next(Next::Bury { class, .. })) => {
            tally.letters += 1;
            format!("given up ({})", class.name())
        }
    };
    let why = match outcome {
        Outcome::Failed(failure) => format!(": {}", failure.error),
        Outcome::Done | Outcome::Interrupted => String::new(),
    };
    let (hook, kind, attempt) = (&invocation.hook, &invocation.event.kind, invocation.at.attempt);
    format!("{kind:<16} -> {hook:<14} attempt {attempt}  {:>4} ms  {what}{why}", took.as_millis())
}
