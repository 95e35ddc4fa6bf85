//! A steady load at a sink, and what has to be true of it afterwards whatever was broken meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

use crate::publishing::{Publisher, event};
use crate::sink::{Answer, Call, Sink};

/// A steady load, and what was killed while it lasted.
pub(crate) struct Load {
    pub(crate) seconds: u64,
    pub(crate) rate: u64,
    pub(crate) sink: Sink,
    pub(crate) kills: Vec<Instant>,
    pub(crate) redis_died: Option<Instant>,
    /// What was broken may make anything run twice.
    pub(crate) may_repeat: bool,
    /// When each event was first sent.
    sent: Arc<Mutex<HashMap<String, Instant>>>,
}

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) events: usize,
    /// Without a success.
    pub(crate) missing: Vec<String>,
    pub(crate) duplicates: usize,
    /// The longest time without a success that began while events were sent.
    pub(crate) pause: Duration,
    /// The longest way of an event, from its first sending to its success.
    pub(crate) slowest: Duration,
}

impl Load {
    /// At a target that takes 50 ms, and fails every third event at first: retries are what can be superseded.
    pub(crate) async fn new(seconds: u64, rate: u64) -> Self {
        let sink = Sink::start().await;
        sink.behave(|_, before| Answer {
            status: if before == 0 && fastrand::u8(..3) == 0 { 503 } else { 200 },
            ..Answer::after(Duration::from_millis(50))
        });
        let (kills, sent) = (Vec::new(), Arc::default());
        Self { seconds, rate, sink, kills, redis_died: None, may_repeat: false, sent }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = String> + use<> {
        let rate = self.rate;
        (0..self.seconds * 10).flat_map(move |round| (0..rate / 10).map(move |i| format!("e{round}-{i}")))
    }

    /// Publishes at the rate, each event until it is confirmed.
    pub(crate) fn publish(&self, publisher: Publisher) -> JoinHandle<()> {
        let (publisher, ids) = (Arc::new(publisher), self.ids().collect::<Vec<_>>());
        let batch = usize::try_from(self.rate / 10).unwrap();
        let sent = Arc::clone(&self.sent);
        tokio::spawn(async move {
            let mut tick = interval(Duration::from_millis(100));
            let mut sends = tokio::task::JoinSet::new();
            for batch in ids.chunks(batch) {
                tick.tick().await;
                for id in batch {
                    let (publisher, event) = (Arc::clone(&publisher), event("a", id));
                    sent.lock().unwrap().insert(id.clone(), Instant::now());
                    sends.spawn(async move { publisher.send(event).await });
                }
            }
            while sends.join_next().await.is_some() {}
        })
    }

    /// The calls of the hook that every event wants.
    fn calls(&self) -> Vec<Call> {
        let mut calls = self.sink.calls();
        calls.retain(|call| call.hook == "h");
        calls
    }

    /// Events that have not succeeded.
    pub(crate) fn missing(&self) -> Vec<String> {
        let calls = self.calls();
        let done: HashSet<&str> = calls.iter().filter(|call| succeeded(call)).map(|call| call.event.as_str()).collect();
        self.ids().filter(|id| !done.contains(id.as_str())).collect()
    }

    /// Waits until every event has succeeded at the sink.
    pub(crate) async fn until_all_done(&self, describe: impl Fn() -> String) {
        let began = Instant::now();
        loop {
            let missing = self.missing();
            let some = &missing[..missing.len().min(20)];
            if missing.is_empty() {
                println!("everything was done {:.0} s after the storm", began.elapsed().as_secs_f64());
                return;
            }
            if began.elapsed() > Duration::from_secs(300) {
                let tried: Vec<Call> = self.calls().into_iter().filter(|call| some.contains(&call.event)).collect();
                panic!("{} events are missing: {some:?}\n{tried:#?}\n{}", missing.len(), describe());
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Waits until the sink has not been called for so long.
    pub(crate) async fn until_quiet(&self, time: Duration) {
        let (mut count, mut since) = (self.sink.count(), Instant::now());
        while since.elapsed() < time {
            sleep(Duration::from_millis(200)).await;
            if self.sink.count() != count {
                (count, since) = (self.sink.count(), Instant::now());
            }
        }
    }

    /// What came of it; panics where an event has several keys, or ran twice without a reason.
    pub(crate) fn outcome(&self) -> Outcome {
        let calls = self.calls();
        let mut done: Vec<(Instant, &str)> = calls
            .iter()
            .filter(|call| call.status == 200)
            .filter_map(|call| Some((call.finished?, call.event.as_str())))
            .collect();
        done.sort_unstable();
        let (mut first, sent) = (HashMap::new(), self.sent.lock().unwrap());
        for (at, event) in &done {
            first.entry(*event).or_insert(*at);
        }
        let last = sent.values().max().copied();
        let under_load = done.windows(2).filter(|pair| Some(pair[0].0) < last);
        let pauses = under_load.map(|pair| pair[1].0 - pair[0].0);
        Outcome {
            events: self.ids().count(),
            missing: self.missing(),
            duplicates: self.check_duplicates(),
            pause: pauses.max().unwrap_or_default(),
            slowest: first.iter().map(|(event, at)| *at - sent[*event]).max().unwrap_or_default(),
        }
    }

    /// A run was in flight or not yet acked at a kill, or finished within a second before Redis died.
    fn explains(&self, call: &Call) -> bool {
        if self.may_repeat {
            return true;
        }
        let end = call.finished.unwrap_or_else(Instant::now) + Duration::from_secs(1);
        // A caller that was gone before its answer may have died before the sink read its request.
        let slack = if call.finished.is_none() { Duration::from_secs(1) } else { Duration::ZERO };
        self.kills.iter().any(|&kill| call.at <= kill + slack && kill <= end)
            || self.redis_died.is_some_and(|died| call.at <= died && died <= end)
    }

    /// One key an event; a run after a success, or of an attempt that was run before, follows one that a kill explains.
    /// Answers the number of such runs.
    pub(crate) fn check_duplicates(&self) -> usize {
        let calls = self.calls();
        let (mut duplicates, mut unexplained) = (0, Vec::new());
        let mut by_event: HashMap<&str, Vec<&Call>> = HashMap::new();
        for call in &calls {
            by_event.entry(call.event.as_str()).or_default().push(call);
        }
        for (event, calls) in by_event {
            assert_eq!(calls.iter().map(|call| &call.key).collect::<HashSet<_>>().len(), 1, "{event} has several keys");
            for pair in calls.windows(2) {
                let (earlier, later) = (pair[0], pair[1]);
                if later.attempt <= earlier.attempt || succeeded(earlier) {
                    duplicates += 1;
                    if !self.explains(earlier) {
                        unexplained.push((earlier, later));
                    }
                }
            }
        }
        assert!(unexplained.is_empty(), "runs without a kill: {unexplained:#?}\nkills: {:#?}", self.kills);
        duplicates
    }
}

/// Whether the caller was still there for a good answer.
fn succeeded(call: &Call) -> bool {
    call.status == 200 && call.finished.is_some()
}
