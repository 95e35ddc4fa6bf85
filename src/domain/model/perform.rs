//! What happens then: the broker, the store, the log and bad luck around the protocol's own transitions.

use super::Fleet;
use super::action::{Action, Call, End, Place};
use super::state::{Delivery, Invocation, Job, Message, NEW_TOKEN, State, WAIT_MS};
use crate::domain::claim::{self, Next, Request, Settlement};
use crate::domain::failure::Class;
use crate::domain::settle::{Answer, Follow, Stage};
use crate::domain::{fold, replay};

/// Attempts a generation.
const ATTEMPTS: u32 = 2;

impl Fleet {
    /// Carries out one action.
    pub(super) fn perform(&self, state: &mut State, action: &Action) {
        match *action {
            Action::Deliver { message, worker } => self.deliver(state, message, worker),
            Action::Ask(place, call) => self.ask(state, place, call),
            Action::Publish(place, call) => self.publish(state, place, call),
            Action::Run(place, end) => {
                let job = job(state, place);
                let ended = ended(job, end);
                job.advance(self.mutation, ended);
            }
            Action::Renew(place) => self.renew(state, place),
            Action::HoldTooLong(place) => job(state, place).advance(self.mutation, Answer::HeldTooLong),
            Action::Guard(place, call) => {
                let job = job(state, place);
                job.guarded = call == Call::Answered;
                let guard = Message::Invocation(job.of);
                state.queue.push(guard);
            }
            Action::Ack { worker, delivery } => {
                let delivery = &mut state.workers[worker][delivery];
                delivery.ours = false;
                for job in delivery.jobs.iter_mut().filter(|job| job.stage == Stage::Acking) {
                    job.advance(self.mutation, Answer::Acked);
                }
            }
            Action::EndLease { hook, .. } => state.keys[hook].lease_over = true,
            Action::Arrive { hook } => {
                if let Some(request) = state.keys[hook].late.take() {
                    state.keys[hook].ask(self.mutation, &request);
                }
            }
            Action::Crash { worker } => {
                let lost = std::mem::take(&mut state.workers[worker]);
                state.queue.extend(lost.iter().filter(|delivery| delivery.ours).map(|delivery| delivery.message));
            }
            Action::Disconnect { worker } => {
                for delivery in state.workers[worker].iter_mut().filter(|delivery| delivery.ours) {
                    delivery.ours = false;
                    state.queue.push(delivery.message);
                }
            }
            Action::Forget { hook } => state.keys[hook].forget(),
            Action::Cancel { hook } => {
                let key = &mut state.keys[hook];
                let cancel = Request::Cancel { generation: key.asked_for.0, keep_ms: WAIT_MS };
                key.ask(self.mutation, &cancel);
            }
            Action::Replay { hook } => self.replay(state, hook),
            Action::Mark { hook, generation } => {
                let key = &mut state.keys[hook];
                key.marks_due &= !(1 << generation);
                key.append(generation, fold::State::Replaying);
            }
        }
    }

    fn deliver(&self, state: &mut State, message: usize, worker: usize) {
        let message = state.queue.remove(message);
        let jobs = match message {
            Message::Event => (0..self.hooks).map(|hook| Job::new(Invocation::first(hook, 0, 0))).collect(),
            Message::Invocation(invocation) => vec![Job::new(invocation)],
        };
        state.workers[worker].push(Delivery { message, ours: true, jobs });
    }

    fn ask(&self, state: &mut State, place: Place, call: Call) {
        let job = job(state, place);
        if job.stage == (Stage::Claiming { repeat: false }) {
            job.token = NEW_TOKEN;
        }
        let (hook, request) = (job.of.hook, job.request());
        let (key, Some(request)) = (&mut state.keys[hook], request) else { return };
        let answer = match call {
            Call::Answered => Answer::Store(key.ask(self.mutation, &request)),
            Call::AnswerLost => {
                key.ask(self.mutation, &request);
                Answer::Unanswered
            }
            Call::Late => {
                key.late = Some(request);
                Answer::Unanswered
            }
            Call::Lost => Answer::Unanswered,
        };
        let job = self::job(state, place);
        job.advance(self.mutation, answer);
        if let (Stage::Running { .. }, true) = (&job.stage, self.runs_once()) {
            let at = job.of.at;
            state.keys[hook].observe_run(at);
        }
    }

    fn renew(&self, state: &mut State, place: Place) {
        let job = job(state, place);
        let (hook, renewal) = (job.of.hook, job.renewal());
        let answer = state.keys[hook].ask(self.mutation, &renewal);
        if answer == claim::Answer::NotYours {
            self::job(state, place).advance(self.mutation, Answer::LeaseLost);
        }
    }

    fn publish(&self, state: &mut State, place: Place, call: Call) {
        let of = job(state, place).of;
        let Stage::Publishing(follow) = job(state, place).stage.clone() else { return };
        if matches!(call, Call::Answered | Call::AnswerLost) {
            take(state, of, &follow);
        }
        let answer = if call == Call::Answered { Answer::Confirmed } else { Answer::Unconfirmed };
        job(state, place).advance(self.mutation, answer);
    }

    fn replay(&self, state: &mut State, hook: usize) {
        let force = self.replays[state.replays_made];
        let key = &mut state.keys[hook];
        let (Some(letter), Some((highest, _))) = (key.letter, key.fold) else { return };
        let Some((generation, forced)) = replay::generation(letter, force.then_some(highest)) else { return };
        state.replays_made += 1;
        key.asked_for = key.asked_for.max((generation, forced));
        key.marks_due |= 1 << generation;
        state.queue.push(Message::Invocation(Invocation::first(hook, generation, forced)));
    }
}

fn job(state: &mut State, place: Place) -> &mut Job {
    &mut state.workers[place.worker][place.delivery].jobs[place.job]
}

fn ended(job: &Job, end: End) -> Answer {
    match end {
        End::Succeeds => Answer::Ran(Settlement::Done),
        End::Interrupted => Answer::Interrupted,
        End::Fails if job.of.at.attempt < ATTEMPTS => {
            Answer::Ran(Settlement::Next(Next::Retry { delay_ms: 0, spent_ms: 0, report: None }))
        }
        End::Fails => Answer::Ran(Settlement::Next(Next::Bury { class: Class::Exhausted, report: None })),
    }
}

/// The broker takes what is published: a message that carries what ours carry, or a record of the log.
fn take(state: &mut State, of: Invocation, follow: &Follow) {
    let key = &mut state.keys[of.hook];
    let message = match follow {
        Follow::Next { at, deaths, next: Next::Retry { .. }, .. } => {
            Invocation { at: at.next(), deaths: *deaths, suspect: false, ..of }
        }
        Follow::Next { at, next: Next::Bury { .. }, .. } => return key.append_letter(at.generation, of.forced),
        Follow::Resolved | Follow::Cancelled => return key.append(of.at.generation, fold::State::Resolved),
        Follow::Again { .. } | Follow::Behind { .. } => of,
        Follow::Suspect { deaths } => Invocation { deaths: *deaths, suspect: true, ..of },
    };
    state.queue.push(Message::Invocation(message));
}
