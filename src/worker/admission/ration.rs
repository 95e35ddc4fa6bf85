//! This worker's part of what the fleet shares: asked for where the fleet can be asked, kept small where it cannot.

use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::flow::{Rate, Slots, split_share};
use crate::domain::id::HookId;
use crate::flow::local::LocalFlow;
use crate::flow::{Card, Crew, Flow};

/// The flow of the fleet, and what stands in for it.
pub(super) struct Ration {
    pub(super) flow: Arc<dyn Flow>,
    /// As last heard of.
    crew: Mutex<Crew>,
    alone: LocalFlow,
}

impl Ration {
    pub(super) fn new(flow: Arc<dyn Flow>) -> Self {
        Self { flow, crew: Mutex::default(), alone: LocalFlow::default() }
    }

    /// Says that this worker is there. Without an answer the crew is taken to be what it was.
    pub(super) async fn beat(&self, card: &Card) {
        if let Ok(crew) = self.flow.beat(card).await {
            *self.crew.lock().unwrap_or_else(PoisonError::into_inner) = crew;
        }
    }

    pub(super) async fn slots(&self, hook: &HookId, rate: Rate, want: u32) -> Slots {
        match self.flow.slots(hook, rate, want).await {
            Ok(slots) => slots,
            Err(_) => self.alone.slots_now(hook, rate.split(self.crew().workers), want),
        }
    }

    pub(super) async fn share(&self, hook: &HookId, limit: u32, want: u32) -> u32 {
        let crew = self.crew();
        match self.flow.share(hook, limit, want, crew.workers).await {
            Ok(granted) => granted,
            Err(_) => split_share(limit, crew.workers, crew.rank).min(want),
        }
    }

    fn crew(&self) -> Crew {
        *self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
