//! What each part of a process consumes.

use crate::broker::Wanted;
use crate::config::{Backend, Settings};
use crate::domain::hook::HookLane;
use crate::domain::message::{Lane, Queue};

/// Bodies of unacked deliveries in a process, bytes.
const IN_HAND_BYTES: usize = 64 * 1024 * 1024;
/// The same of requests to gates.
const GATES_BYTES: usize = 16 * 1024 * 1024;
/// Unacked deliveries of an overflow queue.
const OVERFLOW_PREFETCH: u16 = 16;
/// Of requests that nobody has decided in time.
const UNDECIDED_PREFETCH: u16 = 16;

/// The queues that one cell of so many consumes: of the lanes that are served, and of requests that nobody has decided in
/// time. What may kill a worker comes one at a time, and of what only waits few are in hand.
pub(super) fn wanted(settings: &Settings, cells: u16) -> Vec<Wanted> {
    let worker = &settings.worker;
    let share = |prefetch: u16| (prefetch / cells.max(1)).max(1);
    let serves = |lane: HookLane| worker.lanes[lane as usize];
    let prefetch_of = |queue| match queue {
        Queue::Events | Queue::Lane(Lane::Default) => serves(HookLane::Default).then_some(share(worker.prefetch)),
        Queue::Lane(Lane::Slow) => serves(HookLane::Slow).then_some(share(worker.prefetch)),
        Queue::Lane(Lane::Replay) => Some(share(worker.prefetch)),
        Queue::Lane(Lane::Suspect) => Some(1),
        Queue::Lane(Lane::Overflow(number)) => {
            let of = |lane: &HookLane| lane.overflows().contains(&number);
            HookLane::ALL.iter().find(|lane| of(lane)).filter(|lane| serves(**lane)).map(|_| share(OVERFLOW_PREFETCH))
        }
        Queue::Undecided => serves(HookLane::Default).then_some(share(UNDECIDED_PREFETCH)),
        Queue::Gates => None, // those have a cell of their own
    };
    let of_gates = Queue::OF_GATES.into_iter().filter(|_| matches!(settings.backend, Backend::Servers { .. }));
    let queues = Queue::ALL.into_iter().chain(of_gates).filter_map(|queue| Some((queue, prefetch_of(queue)?)));
    let places: usize = queues.clone().map(|(_, prefetch)| usize::from(prefetch)).sum();
    let bytes = |prefetch: u16| IN_HAND_BYTES / usize::from(cells.max(1)) * usize::from(prefetch) / places.max(1);
    queues.map(|(queue, prefetch)| Wanted { queue, prefetch, bytes: bytes(prefetch) }).collect()
}

/// What the cell of gates consumes, where there are queues for them and this process asks any.
pub(super) fn requests(settings: &Settings) -> Option<Wanted> {
    let prefetch = settings.gates.concurrency;
    let has_queue = matches!(settings.backend, Backend::Servers { .. });
    (has_queue && prefetch > 0).then_some(Wanted { queue: Queue::Gates, prefetch, bytes: GATES_BYTES })
}
