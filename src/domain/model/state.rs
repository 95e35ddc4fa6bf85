//! What the modelled fleet is made of: keys with their letters, messages, and what the workers have in hand.

use super::action::Place;
use crate::domain::claim::{self, Claim, ClaimRequest, DeathLimits, Found, Point, Request, Settlement, Token};
use crate::domain::fold;
use crate::domain::mutation::Mutation;
use crate::domain::settle::{self, Answer, Follow, Stage};

/// Low, so that both are reached.
pub(super) const LIMITS: DeathLimits = DeathLimits { suspect: 1, poisoned: 2 };
/// Any time will do: a lease ends when the model says so.
pub(super) const WAIT_MS: u64 = 1;
/// What a job carries while it has no run of its own.
pub(super) const NO_TOKEN: Token = Token { run: 0, body: 0 };
/// A run that begins; it gets its name when the state is put in order.
pub(super) const NEW_TOKEN: Token = Token { run: u64::MAX, body: 0 };

/// One invocation, as its message carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Invocation {
    pub(super) hook: usize,
    pub(super) at: Point,
    pub(super) deaths: u32,
    /// By which generation, as the message carries it.
    pub(super) forced: u32,
    /// On lane `suspect`.
    pub(super) suspect: bool,
}

impl Invocation {
    pub(super) const fn first(hook: usize, generation: u32, forced: u32) -> Self {
        Self { hook, at: Point::first(generation), deaths: 0, forced, suspect: false }
    }
}

/// A message in the queue: all lanes and the ladder in one, so that any wait may be over at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Message {
    Event,
    Invocation(Invocation),
}

/// One invocation in hand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Job {
    pub(super) of: Invocation,
    pub(super) guarded: bool,
    pub(super) token: Token,
    pub(super) stage: Stage,
}

impl Job {
    pub(super) const fn new(of: Invocation) -> Self {
        Self { of, guarded: false, token: NO_TOKEN, stage: Stage::Claiming { repeat: false } }
    }

    /// The protocol's own transition.
    pub(super) fn advance(&mut self, mutation: Mutation, answer: Answer) {
        let job = settle::Progress { at: self.of.at, guarded: self.guarded, unprotected: false };
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        self.stage = mutation.next_effect(&job, self.token, stage, answer);
        if !self.has_run() {
            self.token = NO_TOKEN;
        }
    }

    /// Whether its token may yet own the claim.
    fn has_run(&self) -> bool {
        match &self.stage {
            Stage::Claiming { repeat } => *repeat,
            Stage::Running { .. } | Stage::Recording { .. } | Stage::Releasing => true,
            Stage::Publishing(Follow::Next { mark, .. }) => *mark == Some(self.token), // recorded later by a mutation
            Stage::Publishing(_) | Stage::Marking { .. } | Stage::Acking | Stage::Ended => false,
        }
    }

    /// The call to the store that its stage asks for, if it asks for one.
    pub(super) fn request(&self) -> Option<Request> {
        let token = self.token;
        match &self.stage {
            Stage::Claiming { .. } => Some(Request::Claim(ClaimRequest {
                at: self.of.at,
                token,
                deaths: self.of.deaths,
                forced: self.of.forced,
                in_suspect: self.of.suspect,
                limits: LIMITS,
                lease_ms: WAIT_MS,
                floor_ms: WAIT_MS,
            })),
            Stage::Recording { settlement, deaths } => Some(Request::Settle {
                at: self.of.at,
                token,
                deaths: *deaths,
                settlement: settlement.clone(),
                keep_ms: WAIT_MS,
            }),
            Stage::Marking { at, token, .. } => Some(Request::Advance { at: *at, token: *token, keep_ms: WAIT_MS }),
            Stage::Releasing => Some(Request::Release { token, keep_ms: WAIT_MS }),
            Stage::Running { .. } | Stage::Publishing(_) | Stage::Acking | Stage::Ended => None,
        }
    }

    /// The call with which its run asks for a longer lease.
    pub(super) fn renewal(&self) -> Request {
        Request::Renew { token: self.token, lease_ms: WAIT_MS }
    }

    /// Every token that it may yet use.
    pub(super) fn tokens(&mut self) -> impl Iterator<Item = &mut Token> {
        let marked = match &mut self.stage {
            Stage::Publishing(Follow::Next { mark, .. }) => mark.as_mut(),
            Stage::Marking { token, .. } => Some(token),
            _ => None,
        };
        std::iter::once(&mut self.token).chain(marked)
    }
}

/// One message in the hands of a worker, with a job a hook.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Delivery {
    pub(super) message: Message,
    /// Not acked, and the connection it came on stands: an ack would count.
    pub(super) ours: bool,
    pub(super) jobs: Vec<Job>,
}

impl Delivery {
    /// An event's delivery is acked when every hook's job is over or stands in the queue as a guard.
    pub(super) fn can_be_acked(&self) -> bool {
        self.ours && self.jobs.iter().all(|job| job.guarded || job.stage == Stage::Acking)
    }
}

/// A rule that was broken on the way to a state, which the state itself no longer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Breach {
    /// Won after a recorded done, without force.
    WonAfterDone,
    /// Won after a cancel, at a generation that it covers.
    WonAfterCancel,
    /// The settlement on an attempt was recorded although one on it, or on a later one, was recorded before.
    RecordedAgain,
    /// An attempt ran although it, or a later one, had run before.
    RanAgain,
}

/// What the store, the log and an observer know of one hook's invocation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) claim: Option<Claim>,
    pub(super) lease_over: bool,
    /// A call that nobody waits for any more, and that the store may carry out yet.
    pub(super) late: Option<Request>,
    /// The fold of letters and marks.
    pub(super) fold: Option<(u32, fold::State)>,
    /// The highest generation that has a letter, and by which generation that was forced.
    pub(super) letter: Option<(u32, u32)>,
    /// Generations that were replayed and whose mark the operator may append yet: one bit each.
    pub(super) marks_due: u8,
    /// Observed: the highest generation that was asked for, and by which generation it was forced.
    pub(super) asked_for: (u32, u32),
    /// Observed: the highest generation recorded as done, ever.
    pub(super) done: Option<u32>,
    /// Observed: the generation recorded as done since the store last forgot.
    pub(super) done_kept: Option<u32>,
    /// Observed: the last attempt whose settlement was recorded since the store last forgot.
    pub(super) recorded: Option<Point>,
    /// Observed: the highest generation that an operator cancelled.
    pub(super) cancelled: Option<u32>,
    /// Observed where nothing excuses a second run: the last attempt that ran.
    pub(super) ran: Option<Point>,
    /// Observed: the store forgot.
    pub(super) forgotten: bool,
    pub(super) breach: Option<Breach>,
}

impl Key {
    /// What the store would do.
    pub(super) fn step(&self, mutation: Mutation, request: &Request) -> claim::Step {
        let lease_left_ms = if self.lease_over { 0 } else { WAIT_MS };
        let found = self.claim.clone().map(|claim| Found { claim, lease_left_ms });
        mutation.step(found.as_ref(), request)
    }

    /// What the store does and answers.
    pub(super) fn ask(&mut self, mutation: Mutation, request: &Request) -> claim::Answer {
        let step = self.step(mutation, request);
        self.observe(request, &step);
        if let Some(write) = step.write {
            self.lease_over = matches!(write.claim, Claim::Held { floor_ms, .. } if write.ttl_ms <= floor_ms);
            self.claim = Some(write.claim);
        }
        step.answer
    }

    fn observe(&mut self, request: &Request, step: &claim::Step) {
        match (request, &step.write) {
            (Request::Claim(asked), Some(_)) if matches!(step.answer, claim::Answer::Won { .. }) => {
                let generation = asked.at.generation;
                if self.done_kept.is_some_and(|done| asked.forced <= done) {
                    self.breach = Some(Breach::WonAfterDone);
                }
                if self.cancelled >= Some(generation) && !self.forgotten {
                    self.breach = Some(Breach::WonAfterCancel);
                }
            }
            (Request::Settle { at, settlement, .. }, Some(_)) => {
                if self.recorded >= Some(*at) {
                    self.breach = Some(Breach::RecordedAgain);
                }
                self.recorded = Some(*at);
                if *settlement == Settlement::Done {
                    self.recorded = Some(Point { attempt: u32::MAX, ..*at }); // no attempt of it may follow
                    self.done = self.done.max(Some(at.generation));
                    self.done_kept = Some(at.generation);
                }
            }
            (Request::Cancel { .. }, Some(claim::Write { claim: Claim::Buried { generation, .. }, .. })) => {
                self.cancelled = self.cancelled.max(Some(*generation));
            }
            _ => {}
        }
    }

    /// An attempt begins.
    pub(super) fn observe_run(&mut self, at: Point) {
        if self.ran >= Some(at) {
            self.breach = Some(Breach::RanAgain);
        }
        self.ran = Some(at);
    }

    pub(super) fn forget(&mut self) {
        (self.claim, self.lease_over, self.forgotten) = (None, false, true);
        (self.done_kept, self.recorded) = (None, None);
    }

    pub(super) fn append_letter(&mut self, generation: u32, forced: u32) {
        self.letter = self.letter.max(Some((generation, forced)));
        self.append(generation, fold::State::Open);
    }

    /// A letter or a mark: the join of the log's lattice.
    pub(super) fn append(&mut self, generation: u32, state: fold::State) {
        self.fold = self.fold.max(Some((generation, state)));
    }

    /// Every token that it may yet be compared with.
    pub(super) fn tokens(&mut self) -> impl Iterator<Item = &mut Token> {
        let stored = match &mut self.claim {
            Some(
                Claim::Held { token, .. }
                | Claim::Settled { token, .. }
                | Claim::Done { token, .. }
                | Claim::Decided { token, .. },
            ) => Some(token),
            Some(Claim::Out { .. } | Claim::Buried { .. }) | None => None,
        };
        let late = match &mut self.late {
            Some(Request::Claim(asked)) => Some(&mut asked.token),
            Some(
                Request::Settle { token, .. }
                | Request::Advance { token, .. }
                | Request::Release { token, .. }
                | Request::Renew { token, .. }
                | Request::Decide { token, .. },
            ) => Some(token),
            Some(Request::Cancel { .. } | Request::Recall) | None => None,
        };
        stored.into_iter().chain(late)
    }
}

/// One state of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// One a hook.
    pub(super) keys: Vec<Key>,
    /// A multiset: sorted.
    pub(super) queue: Vec<Message>,
    /// What each worker has in hand.
    pub(super) workers: [Vec<Delivery>; 2],
    pub(super) replays_made: usize,
    pub(super) faults_left: u8,
}

impl State {
    /// Nothing is left to do but for operators.
    pub(super) fn is_quiescent(&self) -> bool {
        self.queue.is_empty() && self.workers.iter().all(Vec::is_empty)
    }

    pub(super) fn job(&self, place: Place) -> Option<&Job> {
        self.workers[place.worker].get(place.delivery)?.jobs.get(place.job)
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.workers.iter().flatten().flat_map(|delivery| &delivery.jobs)
    }

    /// Whether the run that holds a claim under this token is left, awake or not.
    pub(super) fn is_owned(&self, hook: usize, token: Token) -> bool {
        self.jobs().any(|job| job.of.hook == hook && job.token == token)
    }
}
