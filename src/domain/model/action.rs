//! What can happen to the fleet, the faults among it, and when.

use super::Fleet;
use super::state::{Delivery, Job, Key, State};
use crate::domain::claim::Claim;
use crate::domain::settle::Stage;

/// What goes wrong only so many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// kill -9 of a worker: its runs are gone, its deliveries return.
    Crash,
    /// The lease of a run ends that is not gone: its owner wakes later and goes on.
    Stall,
    /// A store call ran and its answer was lost.
    AnswerLost,
    /// A store call did not run, and nobody knows.
    CallLost,
    /// A store call runs after the one that repeats it, at any time.
    CallLate,
    /// A message was published and its confirm was lost.
    ConfirmLost,
    /// A message was not published, and nobody knows.
    MessageLost,
    /// A worker loses its connection: its deliveries return, its runs go on.
    Disconnect,
    /// A delivery is held too long: a guard takes its place.
    Guard,
    /// A run is stopped without an outcome.
    Interrupt,
    /// The store was away for longer than a delivery is held.
    HeldTooLong,
    /// The store loses a key.
    Forget,
    /// An operator gives an invocation up, which is no fault but as rare.
    Cancel,
}

/// A job in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) worker: usize,
    pub(super) delivery: usize,
    pub(super) job: usize,
}

/// How a call to the store or a publish goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Answered,
    /// It was carried out; the job does not know.
    AnswerLost,
    /// It was not carried out; the job does not know.
    Lost,
    /// It may be carried out yet; the job does not know.
    Late,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Succeeds,
    Fails,
    Interrupted,
}

const ENDS: [End; 3] = [End::Succeeds, End::Fails, End::Interrupted];

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// A worker receives a message.
    Deliver {
        message: usize,
        worker: usize,
    },
    /// The store call that a job's stage asks for.
    Ask(Place, Call),
    /// The publish that a job's stage asks for.
    Publish(Place, Call),
    Run(Place, End),
    /// A run asks for a longer lease, and stops if the claim is no longer its own.
    Renew(Place),
    HoldTooLong(Place),
    Guard(Place, Call),
    Ack {
        worker: usize,
        delivery: usize,
    },
    EndLease {
        hook: usize,
        stalled: bool,
    },
    /// A late call reaches the store.
    Arrive {
        hook: usize,
    },
    Crash {
        worker: usize,
    },
    Disconnect {
        worker: usize,
    },
    Forget {
        hook: usize,
    },
    Cancel {
        hook: usize,
    },
    /// An operator publishes a replay of the highest letter.
    Replay {
        hook: usize,
    },
    /// An operator says so in the log.
    Mark {
        hook: usize,
        generation: u32,
    },
}

impl Action {
    /// The job that it happens to.
    pub(super) const fn place(&self) -> Option<Place> {
        match self {
            Self::Ask(place, _)
            | Self::Publish(place, _)
            | Self::Run(place, _)
            | Self::Renew(place)
            | Self::HoldTooLong(place)
            | Self::Guard(place, _) => Some(*place),
            _ => None,
        }
    }

    /// What it costs.
    pub(super) const fn fault(&self) -> Option<Fault> {
        match self {
            Self::Ask(_, Call::AnswerLost) => Some(Fault::AnswerLost),
            Self::Ask(_, Call::Lost) => Some(Fault::CallLost),
            Self::Ask(_, Call::Late) => Some(Fault::CallLate),
            Self::Publish(_, Call::AnswerLost) => Some(Fault::ConfirmLost),
            Self::Publish(_, Call::Lost | Call::Late) => Some(Fault::MessageLost),
            Self::Run(_, End::Interrupted) => Some(Fault::Interrupt),
            Self::HoldTooLong(_) => Some(Fault::HeldTooLong),
            Self::Guard(..) => Some(Fault::Guard),
            Self::EndLease { stalled: true, .. } => Some(Fault::Stall),
            Self::Crash { .. } => Some(Fault::Crash),
            Self::Disconnect { .. } => Some(Fault::Disconnect),
            Self::Forget { .. } => Some(Fault::Forget),
            Self::Cancel { .. } => Some(Fault::Cancel),
            Self::Deliver { .. }
            | Self::Ask(_, Call::Answered)
            | Self::Publish(_, Call::Answered)
            | Self::Run(_, End::Succeeds | End::Fails)
            | Self::Renew(_)
            | Self::Ack { .. }
            | Self::EndLease { stalled: false, .. }
            | Self::Arrive { .. }
            | Self::Replay { .. }
            | Self::Mark { .. } => None,
        }
    }
}

impl Fleet {
    /// What may happen next; of what may happen in any order, one order.
    pub(super) fn possible(&self, state: &State) -> Vec<Action> {
        let first = in_hand(state).find_map(|(place, delivery)| first(state, place, delivery));
        let mut actions = first.filter(|_| !self.every_order).unwrap_or_else(|| self.all(state));
        let affordable = |fault| state.faults_left > 0 && self.faults.contains(&fault);
        actions.retain(|action| action.fault().is_none_or(affordable));
        actions
    }

    fn all(&self, state: &State) -> Vec<Action> {
        let mut all = self.receiving(state);
        for (place, delivery) in in_hand(state) {
            job_actions(state, place, delivery, &mut all);
        }
        worker_actions(state, &mut all);
        for (hook, key) in state.keys.iter().enumerate() {
            self.key_actions(state, hook, key, &mut all);
        }
        all
    }

    fn receiving(&self, state: &State) -> Vec<Action> {
        if state.workers.iter().flatten().filter(|delivery| delivery.ours).count() >= self.prefetch {
            return Vec::new();
        }
        let alike = state.workers[0] == state.workers[1] || state.faults_left == 0;
        let news = |message: &usize| *message == 0 || state.queue[*message] != state.queue[*message - 1];
        (0..state.queue.len())
            .filter(news)
            .flat_map(|message| (0..if alike { 1 } else { 2 }).map(move |worker| Action::Deliver { message, worker }))
            .collect()
    }

    fn key_actions(&self, state: &State, hook: usize, key: &Key, actions: &mut Vec<Action>) {
        if let Some(Claim::Held { token, .. }) = key.claim
            && !key.lease_over
        {
            actions.push(Action::EndLease { hook, stalled: state.is_owned(hook, token) });
        }
        if key.late.is_some() {
            actions.push(Action::Arrive { hook });
        }
        if key.claim.is_some() {
            actions.push(Action::Forget { hook });
        }
        actions.push(Action::Cancel { hook });
        if key.letter.is_some() && state.replays_made < self.replays.len() {
            actions.push(Action::Replay { hook });
        }
        let due = (0..u8::BITS).filter(|generation| key.marks_due & (1 << generation) != 0);
        actions.extend(due.map(|generation| Action::Mark { hook, generation }));
    }
}

/// What commutes with all that may happen before it, so that it may as well happen first.
///
/// A run's end does at any time: a crash after it is a crash before it, and of a lost lease the run learns in the
/// next stage as well. A publish and an ack do once no fault is left.
fn first(state: &State, place: Place, delivery: &Delivery) -> Option<Vec<Action>> {
    match delivery.jobs.get(place.job).map(|job| &job.stage) {
        Some(Stage::Running { .. }) => Some(ENDS.map(|end| Action::Run(place, end)).to_vec()),
        Some(Stage::Publishing(_)) if state.faults_left == 0 => Some(vec![Action::Publish(place, Call::Answered)]),
        _ if state.faults_left == 0 && delivery.can_be_acked() => {
            Some(vec![Action::Ack { worker: place.worker, delivery: place.delivery }])
        }
        _ => None,
    }
}

/// Every delivery in hand with each of its jobs; one without jobs comes once.
fn in_hand(state: &State) -> impl Iterator<Item = (Place, &Delivery)> {
    state.workers.iter().enumerate().flat_map(|(worker, deliveries)| {
        deliveries.iter().enumerate().flat_map(move |(delivery, found)| {
            (0..found.jobs.len().max(1)).map(move |job| (Place { worker, delivery, job }, found))
        })
    })
}

fn worker_actions(state: &State, actions: &mut Vec<Action>) {
    for (worker, deliveries) in state.workers.iter().enumerate() {
        for (delivery, found) in deliveries.iter().enumerate() {
            if found.can_be_acked() {
                actions.push(Action::Ack { worker, delivery });
            }
        }
        if !deliveries.is_empty() {
            actions.extend([Action::Crash { worker }, Action::Disconnect { worker }]);
        }
    }
}

fn job_actions(state: &State, place: Place, delivery: &Delivery, actions: &mut Vec<Action>) {
    let Some(job) = delivery.jobs.get(place.job) else { return };
    let calls = [Call::Answered, Call::AnswerLost, Call::Lost];
    match job.stage {
        Stage::Claiming { .. } => actions.push(Action::HoldTooLong(place)),
        Stage::Publishing(_) => actions.extend(calls.map(|call| Action::Publish(place, call))),
        Stage::Running { .. } | Stage::Recording { .. } | Stage::Releasing => {
            run_actions(place, delivery, job, actions);
        }
        Stage::Marking { .. } | Stage::Acking | Stage::Ended => {}
    }
    if job.request().is_some() {
        actions.extend(calls.map(|call| Action::Ask(place, call)));
        if state.keys[job.of.hook].late.is_none() {
            actions.push(Action::Ask(place, Call::Late));
        }
    }
}

/// What may happen to a run, from its beginning until its verdict is recorded.
fn run_actions(place: Place, delivery: &Delivery, job: &Job, actions: &mut Vec<Action>) {
    if matches!(job.stage, Stage::Running { .. }) {
        actions.extend(ENDS.map(|end| Action::Run(place, end)));
    }
    actions.push(Action::Renew(place));
    if delivery.ours && !job.guarded {
        actions.extend([Call::Answered, Call::AnswerLost].map(|call| Action::Guard(place, call)));
    }
}
