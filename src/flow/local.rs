//! The flow of a fleet of one process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Card, Crew, FORGET_AFTER, Flow, FlowError, Pause};
use crate::domain::flow::{Opened, PROBE, Rate, Slots, grant, open_time, reserve};
use crate::domain::id::HookId;

/// With so many hooks those are forgotten whose next slot is free.
const HOOKS_MAX: usize = 1024;

/// What one process knows, in memory: it starts anew with the process.
#[derive(Debug)]
pub struct LocalFlow {
    since: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the next slot of each hook is free, in microseconds since the start.
    free_us: HashMap<HookId, u64>,
    /// Level, and when it may be probed.
    opened: BTreeMap<String, (u8, Instant)>,
    /// Until when somebody probes.
    probes: HashMap<String, Instant>,
    card: Option<Card>,
    pause: Option<Pause>,
}

impl Default for LocalFlow {
    fn default() -> Self {
        Self { since: Instant::now(), state: Mutex::default() }
    }
}

impl LocalFlow {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Flow::slots`], which here needs no waiting.
    pub fn slots_now(&self, hook: &HookId, rate: Rate, want: u32) -> Slots {
        let now_us = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut state = self.state();
        if state.free_us.len() >= HOOKS_MAX {
            state.free_us.retain(|_, free_us| *free_us > now_us); // a slot of the past is as good as none
        }
        let free_us = state.free_us.entry(hook.clone()).or_default();
        let (slots, next_us) = reserve(rate, *free_us, now_us, want);
        *free_us = next_us;
        slots
    }
}

#[async_trait]
impl Flow for LocalFlow {
    async fn slots(&self, hook: &HookId, rate: Rate, want: u32) -> Result<Slots, FlowError> {
        Ok(self.slots_now(hook, rate, want))
    }

    async fn share(&self, _: &HookId, limit: u32, want: u32, _: u32) -> Result<u32, FlowError> {
        Ok(grant(limit, 0, want, 1))
    }

    async fn opened(&self) -> Result<BTreeMap<String, Opened>, FlowError> {
        let now = Instant::now();
        let left = |until: Instant| until.checked_duration_since(now).unwrap_or(Duration::ZERO);
        let opened = |(name, (level, until)): (&String, &(u8, Instant))| {
            (name.clone(), Opened { level: *level, left: left(*until) })
        };
        let mut state = self.state();
        state.opened.retain(|_, (_, until)| *until + FORGET_AFTER > now);
        Ok(state.opened.iter().map(opened).collect())
    }

    async fn open(&self, target: &str, level: u8) -> Result<(), FlowError> {
        let mut state = self.state();
        state.opened.insert(target.to_owned(), (level, Instant::now() + open_time(level)));
        state.probes.remove(target);
        Ok(())
    }

    async fn close(&self, target: &str) -> Result<(), FlowError> {
        let mut state = self.state();
        state.opened.remove(target);
        state.probes.remove(target);
        Ok(())
    }

    async fn probe(&self, target: &str) -> Result<bool, FlowError> {
        let now = Instant::now();
        let mut state = self.state();
        let taken = state.probes.get(target).is_some_and(|until| *until > now);
        if !taken {
            state.probes.insert(target.to_owned(), now + PROBE);
        }
        Ok(!taken)
    }

    async fn beat(&self, card: &Card) -> Result<Crew, FlowError> {
        self.state().card = Some(Card { worker: "local".to_owned(), ..card.clone() });
        Ok(Crew::default())
    }

    async fn crew(&self) -> Result<Vec<Card>, FlowError> {
        Ok(self.state().card.iter().cloned().collect())
    }

    async fn paused(&self) -> Result<Option<Pause>, FlowError> {
        Ok(self.state().pause.clone())
    }

    async fn pause(&self, pause: Option<&Pause>) -> Result<(), FlowError> {
        self.state().pause = pause.cloned();
        Ok(())
    }
}
