//! The state of both connections, as one value for readiness.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::super::Health;
use crate::amqp::supervised::Report;

/// The two connections of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Consume,
    Publish,
}

impl Part {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Publish => "publish",
        }
    }
}

/// What is wrong with each part, if anything.
pub(super) struct Status {
    parts: Mutex<[Option<String>; 2]>,
    health: watch::Sender<Health>,
}

impl Status {
    pub(super) fn new() -> Self {
        let starting = || Some("connecting".to_owned());
        let health = watch::Sender::new(Health::Down("connecting".to_owned()));
        Self { parts: Mutex::new([starting(), starting()]), health }
    }

    /// For the supervisor of a part.
    pub(super) fn report(self: &Arc<Self>, part: Part) -> Report {
        let status = Arc::clone(self);
        Box::new(move |reason| status.set(part, reason))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn set(&self, part: Part, reason: Option<String>) {
        let mut parts = self.parts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        parts[part as usize] = reason;
        let health = match parts.iter().flatten().next() {
            Some(reason) => Health::Down(reason.clone()),
            None => Health::Up,
        };
        self.health.send_if_modified(|current| {
            let changed = *current != health;
            *current = health;
            changed
        });
    }
}
