//! Which queues are taken message by message once the broker has ended a session at a delivery.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::{Delivery, Wanted};
use super::Dial;
use super::apart::{HandedOn, Seeker};
use super::publisher::Publisher;
use super::status::Status;
use crate::domain::message::Queue;

/// Two sessions that the broker ends within this time: what ended them may be in any queue.
const ANY_WITHIN: Duration = Duration::from_secs(30);

/// What begins after a session that the broker has ended.
pub(super) struct Seeking {
    pub(super) publisher: Arc<Publisher>,
    pub(super) handed_on: HandedOn,
    pub(super) status: Arc<Status>,
    pub(super) stop: CancellationToken,
    /// Set by the consumer that hears of it.
    pub(super) is_due: Arc<AtomicBool>,
    /// When that was seen last.
    pub(super) seen: Option<Instant>,
}

impl Seeking {
    /// Has queues taken message by message, if the last session was ended at a delivery: those that clients write to, since
    /// what the fleet writes can be handed out. If that was not the reason the last time, all that are wanted.
    pub(super) fn begin(&mut self, dial: &Arc<Dial>, wanted: &[Wanted], deliveries: &mpsc::UnboundedSender<Delivery>) {
        if !self.is_due.swap(false, Ordering::Relaxed) {
            return;
        }
        let is_again = self.seen.is_some_and(|seen| seen.elapsed() < ANY_WITHIN);
        let suspected = suspected(wanted, &dial.apart.queues.borrow(), is_again);
        for queue in suspected {
            self.seen = Some(Instant::now());
            if !dial.apart.queues.send_if_modified(|apart| apart.insert(queue)) {
                continue; // another cell does it
            }
            let seeker = Seeker {
                dial: Arc::clone(dial),
                publisher: Arc::clone(&self.publisher),
                queue,
                deliveries: deliveries.clone(),
                handed_on: self.handed_on.clone(),
                status: Arc::clone(&self.status),
            };
            tokio::spawn(self.stop.clone().run_until_cancelled_owned(seeker.run()));
        }
    }
}

fn suspected(wanted: &[Wanted], apart: &BTreeSet<Queue>, is_again: bool) -> Vec<Queue> {
    let all = wanted.iter().map(|wanted| wanted.queue);
    let of_clients: Vec<Queue> = all.clone().filter(|queue| !matches!(queue, Queue::Lane(_))).collect();
    if of_clients.iter().any(|queue| apart.contains(queue)) {
        return Vec::new(); // what another cell is seeking, and this one met as well
    }
    if is_again || of_clients.is_empty() { all.collect() } else { of_clients }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Lane;

    #[test]
    fn queues_of_clients_come_first() {
        let wanted = |queues: &[Queue]| -> Vec<Wanted> {
            queues.iter().map(|queue| Wanted { queue: *queue, prefetch: 1, bytes: 1 }).collect()
        };
        let lane = Queue::Lane(Lane::Default);
        let all = [Queue::Events, lane, Queue::Undecided];
        let check = |queues: &[Queue], apart: &[Queue], is_again, expected: &[Queue]| {
            let apart = apart.iter().copied().collect();
            assert_eq!(suspected(&wanted(queues), &apart, is_again), expected, "{queues:?} {apart:?} {is_again}");
        };
        check(&all, &[], false, &[Queue::Events, Queue::Undecided]);
        check(&all, &[], true, &all);
        check(&all, &[Queue::Gates], true, &all);
        check(&all, &[Queue::Events], false, &[]);
        check(&all, &[Queue::Undecided], true, &[]);
        check(&[lane], &[], false, &[lane]);
        check(&[Queue::Gates], &[], false, &[Queue::Gates]);
        check(&[], &[], true, &[]);
    }
}
