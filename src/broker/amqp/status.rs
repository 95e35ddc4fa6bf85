//! The state of both connections, and of queues that are taken message by message, as one value for readiness.

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
#[derive(Default)]
struct Parts {
    connections: [Option<String>; 2],
    /// Queues that are taken message by message.
    apart: Vec<String>,
}

/// What is wrong with a broker, if anything.
pub(super) struct Status {
    parts: Mutex<Parts>,
    health: watch::Sender<Health>,
}

impl Status {
    pub(super) fn new() -> Self {
        let starting = || Some("connecting".to_owned());
        let health = watch::Sender::new(Health::Down("connecting".to_owned()));
        let parts = Parts { connections: [starting(), starting()], ..Parts::default() };
        Self { parts: Mutex::new(parts), health }
    }

    /// For the supervisor of a part.
    pub(super) fn report(self: &Arc<Self>, part: Part) -> Report {
        let status = Arc::clone(self);
        Box::new(move |reason| status.set(part, reason))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// A queue is taken message by message from now on, or no longer.
    pub(super) fn apart(&self, queue: &str, is_apart: bool) {
        self.change(|parts| {
            parts.apart.retain(|other| other != queue);
            if is_apart {
                parts.apart.push(queue.to_owned());
            }
        });
    }

    fn set(&self, part: Part, reason: Option<String>) {
        self.change(|parts| parts.connections[part as usize] = reason);
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut parts);
        let health = match (parts.connections.iter().flatten().next(), parts.apart.as_slice()) {
            (Some(reason), _) => Health::Down(reason.clone()),
            (None, []) => Health::Up,
            (None, queues) => Health::Limping(format!(
                "queue {} is taken message by message, until one that the broker cannot hand out is set apart",
                queues.join(" and ")
            )),
        };
        self.health.send_if_modified(|current| {
            let changed = *current != health;
            *current = health;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_told() {
        let status = Arc::new(Status::new());
        let check = |expected: &str| {
            let found = match &*status.subscribe().borrow() {
                Health::Up => "up".to_owned(),
                Health::Limping(reason) => format!("limping: {reason}"),
                Health::Down(reason) => format!("down: {reason}"),
            };
            assert!(found.starts_with(expected), "{found}");
        };
        check("down: connecting");
        status.set(Part::Consume, None);
        status.set(Part::Publish, None);
        check("up");
        status.apart("t.gates", true);
        status.apart("t.events", true);
        check("limping: queue t.gates and t.events is taken message by message");
        status.set(Part::Publish, Some("away".to_owned()));
        check("down: away");
        status.set(Part::Publish, None);
        status.apart("t.gates", false);
        check("limping: queue t.events is");
        status.apart("t.events", false);
        check("up");
    }
}
