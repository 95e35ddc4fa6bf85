//! The flow of a fleet, in the Redis that keeps its claims. Every request touches one key.

use std::collections::BTreeMap;
use std::time::Duration;

use ::redis::cmd;
use async_trait::async_trait;
use serde::Serialize;

use super::{Card, Crew, FORGET_AFTER, Flow, FlowError, GONE_AFTER, Pause};
use crate::domain::flow::{Opened, PROBE, RESERVE_AHEAD, Rate, Slots, open_time};
use crate::domain::id::HookId;
use crate::redis::connection::Link;
use crate::redis::error::Failure;
use crate::redis::script::Script;

/// What a fleet shares through Redis.
pub struct RedisFlow {
    link: Link,
    script: Script,
    namespace: String,
    /// This worker's name.
    worker: String,
}

impl RedisFlow {
    /// Over a connection that others may use too.
    #[must_use]
    pub fn new(link: Link, namespace: &str) -> Self {
        let worker = format!("{:016x}", fastrand::u64(..));
        let script = Script::new(include_str!("redis/flow.lua"));
        Self { link, script, namespace: namespace.to_owned(), worker }
    }

    async fn call(&self, key: &str, arguments: &[&str]) -> Result<Vec<String>, FlowError> {
        let key = format!("{}:{key}", self.namespace);
        Ok(self.link.call().run(&self.script, &[&key], arguments).await?)
    }
}

impl From<Failure> for FlowError {
    fn from(failure: Failure) -> Self {
        Self(failure.to_string())
    }
}

/// The numbers of an answer, as many as were asked for.
fn numbers<const N: usize>(answer: &[String]) -> Result<[u64; N], FlowError> {
    let unreadable = || FlowError(format!("expected {N} numbers from Redis, found {answer:?}"));
    let parsed: Vec<u64> = answer.iter().map_while(|word| word.parse().ok()).collect();
    parsed.try_into().map_err(|_| unreadable())
}

fn json(value: &impl Serialize) -> Result<String, FlowError> {
    serde_json::to_string(value).map_err(|error| FlowError(error.to_string()))
}

fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[async_trait]
impl Flow for RedisFlow {
    async fn slots(&self, hook: &HookId, rate: Rate, want: u32) -> Result<Slots, FlowError> {
        let interval_us = rate.interval.as_micros();
        let ahead_us = RESERVE_AHEAD.as_micros().max(interval_us);
        let arguments = ["slots", &interval_us.to_string(), &want.to_string(), &ahead_us.to_string()];
        let [wait_us, granted] = numbers(&self.call(&format!("rate:{{{hook}}}"), &arguments).await?)?;
        Ok(Slots { wait: Duration::from_micros(wait_us), count: count(granted) })
    }

    async fn share(&self, hook: &HookId, limit: u32, want: u32, workers: u32) -> Result<u32, FlowError> {
        let ttl_ms = GONE_AFTER.as_millis().to_string();
        let (limit, want, workers) = (limit.to_string(), want.to_string(), workers.to_string());
        let arguments = ["share", &self.worker, &limit, &want, &workers, &ttl_ms];
        let [granted] = numbers(&self.call(&format!("share:{{{hook}}}"), &arguments).await?)?;
        Ok(count(granted))
    }

    async fn opened(&self) -> Result<BTreeMap<String, Opened>, FlowError> {
        let forget_ms = FORGET_AFTER.as_millis().to_string();
        let answer = self.call("breakers", &["opened", &forget_ms]).await?;
        let mut opened = BTreeMap::new();
        for entry in answer.chunks_exact(3) {
            let [level, left_ms] = numbers(&entry[1..])?;
            let level = u8::try_from(level).unwrap_or(u8::MAX);
            opened.insert(entry[0].clone(), Opened { level, left: Duration::from_millis(left_ms) });
        }
        Ok(opened)
    }

    async fn open(&self, target: &str, level: u8) -> Result<(), FlowError> {
        let open_ms = open_time(level).as_millis().to_string();
        let keep_ms = (FORGET_AFTER * 2).as_millis().to_string();
        self.call("breakers", &["open", target, &level.to_string(), &open_ms, &keep_ms]).await?;
        self.end_probe(target).await
    }

    async fn close(&self, target: &str) -> Result<(), FlowError> {
        let mut delete = cmd("HDEL");
        delete.arg(format!("{}:breakers", self.namespace)).arg(target);
        self.link.call().query::<()>(&delete).await?;
        self.end_probe(target).await
    }

    async fn probe(&self, target: &str) -> Result<bool, FlowError> {
        let ttl_ms = u64::try_from(PROBE.as_millis()).unwrap_or(u64::MAX);
        let mut set = cmd("SET");
        set.arg(self.probe_key(target)).arg(&self.worker).arg("NX").arg("PX").arg(ttl_ms);
        let taken: Option<String> = self.link.call().query(&set).await?;
        Ok(taken.is_some())
    }

    async fn beat(&self, card: &Card) -> Result<Crew, FlowError> {
        let ttl_ms = GONE_AFTER.as_millis().to_string();
        // It is there before its name is, and for longer.
        let card = Card { worker: self.worker.clone(), ..card.clone() };
        let mut set = cmd("SET");
        let card_ttl_ms = (GONE_AFTER * 2).as_millis().to_string();
        set.arg(self.card_key(&self.worker)).arg(json(&card)?).arg("PX").arg(card_ttl_ms);
        self.link.call().query::<()>(&set).await?;
        let [workers, rank] = numbers(&self.call("workers", &["beat", &self.worker, &ttl_ms]).await?)?;
        Ok(Crew { workers: count(workers), rank: count(rank) })
    }

    async fn crew(&self) -> Result<Vec<Card>, FlowError> {
        let mut crew = Vec::new();
        for worker in self.call("workers", &["crew"]).await? {
            let text: Option<String> = self.link.call().query(cmd("GET").arg(self.card_key(&worker))).await?;
            let said = text.and_then(|text| serde_json::from_str(&text).ok());
            crew.push(said.unwrap_or_else(|| Card { worker, ..Card::default() }));
        }
        Ok(crew)
    }

    async fn paused(&self) -> Result<Option<Pause>, FlowError> {
        let text: Option<String> = match self.link.call().query(cmd("GET").arg(self.pause_key())).await {
            Err(Failure::Unreadable(_)) => None, // no pause was ever of another type
            text => text?,
        };
        // Whoever wrote it there meant a pause.
        let unreadable = |text: String| Pause { by: "unknown".to_owned(), at_ms: 0, message: Some(text) };
        Ok(text.map(|text| serde_json::from_str(&text).unwrap_or_else(|_| unreadable(text))))
    }

    async fn pause(&self, pause: Option<&Pause>) -> Result<(), FlowError> {
        let command = match pause {
            Some(pause) => cmd("SET").arg(self.pause_key()).arg(json(pause)?).clone(),
            None => cmd("DEL").arg(self.pause_key()).clone(),
        };
        Ok(self.link.call().query(&command).await?)
    }
}

impl RedisFlow {
    fn card_key(&self, worker: &str) -> String {
        format!("{}:worker:{{{worker}}}", self.namespace)
    }

    fn pause_key(&self) -> String {
        format!("{}:pause", self.namespace)
    }

    fn probe_key(&self, target: &str) -> String {
        format!("{}:probe:{{{target}}}", self.namespace)
    }

    async fn end_probe(&self, target: &str) -> Result<(), FlowError> {
        let mut delete = cmd("DEL");
        delete.arg(self.probe_key(target));
        Ok(self.link.call().query(&delete).await?)
    }
}
