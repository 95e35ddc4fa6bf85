//! What follows from an outcome, and in which order it is done.
//!
//! [`settle`] turns an outcome into a [`Settlement`]. [`next_effect`] is the whole way of one invocation through the
//! pipeline as a pure transition: the worker interprets the [`Stage`] it returns, and so does the model.
//!
//! ```text
//! Claiming --won--> Running --done-------> Recording --ok--> Acking            (two store calls)
//!    |  ^              |  `--failed------> Recording --ok--> Publishing --confirmed--> Marking --> Acking
//!    |  |              `--interrupted----> Releasing ------> Publishing --confirmed--> Acking
//!    |  `--not yours, and the delivery is still ours-- Recording
//!    |--resume-------------------------------------------->  Publishing --confirmed--> Marking --> Acking
//!    |--busy, suspect, held too long --------------------->  Publishing --confirmed--> Acking
//!    `--done, superseded, cancelled ----------------------------------------------->  Acking
//! ```
//!
//! Bookkeeping trouble never re-runs an action: an unanswered store call or an unconfirmed publish is repeated as it is.

use std::time::Duration;

use super::claim::{self, Next, Point, Settlement, Token};
use super::failure::{AttemptReport, Class, ERROR_CHARS_MAX};
use super::outcome::{Again, Failure, Outcome};
use super::retry::RetryPolicy;
use super::time::millis;

/// How long a message goes round the ladder when it could not be claimed because the store is away.
pub const STORE_AWAY_WAIT: Duration = Duration::from_secs(8);

/// One finished attempt, as far as settling needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    pub attempt: u32,
    /// Runs and planned waits before this attempt.
    pub spent: Duration,
    /// Start of the attempt, in milliseconds since 1970.
    pub at_ms: u64,
    pub took: Duration,
}

/// Where an invocation goes after one attempt. `None`: it was interrupted, which is no failure, so that it is handed back as it
/// is and no attempt is spent. Pure: the clock's readings and the die are arguments.
#[must_use]
pub fn settle(tried: &Tried, outcome: Outcome, policy: &RetryPolicy, roll: f64) -> Option<Settlement> {
    let Failure { again, status, error, tries, .. } = match outcome {
        Outcome::Done => return Some(Settlement::Done),
        Outcome::Interrupted => return None,
        Outcome::Failed(failure) => failure,
    };
    let report = Some(AttemptReport {
        generation: 0, // the invocation says it
        attempt: tried.attempt,
        at_ms: tried.at_ms,
        took_ms: millis(tried.took),
        status,
        tries,
        error: error.chars().take(ERROR_CHARS_MAX).collect(),
    });
    let hint = match again {
        Again::Never(class) => return Some(Settlement::Next(Next::Bury { class, report })),
        Again::Later(hint) => hint,
    };
    let spent = tried.spent + tried.took;
    let next = match policy.delay(tried.attempt, spent, hint, roll) {
        Some(delay) => Next::Retry { delay_ms: millis(delay), spent_ms: millis(spent + delay), report },
        None => Next::Bury { class: Class::Exhausted, report },
    };
    Some(Settlement::Next(next))
}

/// How far an invocation in hand is, as far as [`next_effect`] needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Progress {
    pub at: Point,
    /// A guard stands in for the delivery, which is acked: if the run loses its claim, it has nothing left to do.
    pub guarded: bool,
    /// Run without a claim, because the store is away and the settings say `proceed`.
    pub unprotected: bool,
}

/// A message to publish before the delivery may be acked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Follow {
    /// The retry or the letter that was settled at `at`; `mark` is the run whose settlement is to be marked as out.
    Next { at: Point, deaths: u32, next: Next, mark: Option<Token> },
    /// The mark that says that this generation is finished.
    Resolved,
    /// The mark that says that an operator has cancelled this generation, so that its letter is closed.
    Cancelled,
    /// The same message again, back to where it came from, after this wait.
    Again { wait_ms: u64 },
    /// The same, because another run of it is under way, whose lease ends after this wait.
    Behind { wait_ms: u64 },
    /// The same message to lane `suspect`.
    Suspect { deaths: u32 },
}

/// What is being done for one invocation now; its answer decides what comes next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Ask for the claim: again with the same token if `repeat`, else with a new one.
    Claiming { repeat: bool },
    /// Execute the hook. `deaths` is what the claim counted.
    Running { deaths: u32 },
    /// Step 1: write the settlement into the claim.
    Recording { settlement: Settlement, deaths: u32 },
    /// Step 2: publish what follows and wait for the confirm.
    Publishing(Follow),
    /// Step 3: mark exactly that settlement as out or buried. What is out arrives after `wait_ms`.
    Marking { at: Point, token: Token, wait_ms: u64 },
    /// Give the claim back.
    Releasing,
    /// Step 4: ack the delivery.
    Acking,
    /// Nothing is left to do.
    Ended,
}

/// What an effect came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The store's answer.
    Store(claim::Answer),
    /// The store did not answer; the call may have run.
    Unanswered,
    /// The delivery was held as long as one may be held.
    HeldTooLong,
    /// The store is away and this invocation may run without a claim.
    Proceed,
    /// The run ended, and came to this.
    Ran(Settlement),
    /// The run was stopped without an outcome.
    Interrupted,
    /// The claim was lost in the middle of the run, which is cancelled.
    LeaseLost,
    /// The broker has what was published.
    Confirmed,
    /// The broker may or may not have it.
    Unconfirmed,
    /// The delivery is acked, or is no longer ours to ack.
    Acked,
}

/// The stage after `stage`, given what it came to. `token` is the run's own.
///
/// An answer that does not belong to the stage changes nothing: the effect is asked for again.
#[must_use]
pub fn next_effect(progress: &Progress, token: Token, stage: Stage, answer: Answer) -> Stage {
    match (stage, answer) {
        (Stage::Claiming { .. }, Answer::Store(answer)) => claimed(progress, answer),
        (Stage::Claiming { .. }, Answer::Unanswered) => Stage::Claiming { repeat: true },
        (Stage::Claiming { .. }, Answer::HeldTooLong) => {
            Stage::Publishing(Follow::Again { wait_ms: millis(STORE_AWAY_WAIT) })
        }
        (Stage::Claiming { .. }, Answer::Proceed) => Stage::Running { deaths: 0 },
        (Stage::Running { deaths }, Answer::Ran(settlement)) => ran(progress, deaths, settlement),
        (Stage::Running { .. }, Answer::Interrupted) => interrupted(progress),
        (Stage::Recording { settlement, deaths }, Answer::Store(claim::Answer::Ok)) => {
            recorded(progress, token, deaths, settlement)
        }
        (Stage::Recording { .. }, Answer::Store(_)) | (Stage::Running { .. }, Answer::LeaseLost) => lost(progress),
        (Stage::Publishing(follow), Answer::Confirmed) => published(progress, follow),
        (Stage::Marking { .. }, Answer::Store(_) | Answer::Unanswered) => ack(progress), // that it fails is fine
        (Stage::Releasing, Answer::Store(_)) => {
            if progress.guarded {
                Stage::Ended
            } else {
                Stage::Publishing(Follow::Again { wait_ms: 0 })
            }
        }
        (Stage::Acking, Answer::Acked) => Stage::Ended,
        (stage, _) => stage,
    }
}

fn claimed(progress: &Progress, answer: claim::Answer) -> Stage {
    match answer {
        claim::Answer::Won { deaths, .. } => Stage::Running { deaths },
        claim::Answer::Done { .. } => finished(progress),
        claim::Answer::Busy { lease_left_ms } => Stage::Publishing(Follow::Behind { wait_ms: lease_left_ms }),
        claim::Answer::Resume { at, token, deaths, next } => {
            Stage::Publishing(Follow::Next { at, deaths, next, mark: Some(token) })
        }
        claim::Answer::Suspect { deaths } => Stage::Publishing(Follow::Suspect { deaths }),
        claim::Answer::Superseded => ack(progress),
        claim::Answer::Cancelled { .. } => cancelled(progress),
        claim::Answer::Ok | claim::Answer::NotYours | claim::Answer::Decided { .. } => Stage::Claiming { repeat: true },
    }
}

fn ran(progress: &Progress, deaths: u32, settlement: Settlement) -> Stage {
    match settlement {
        Settlement::Done if progress.unprotected => ack(progress),
        Settlement::Next(next) if progress.unprotected => {
            Stage::Publishing(Follow::Next { at: progress.at, deaths, next, mark: None })
        }
        settlement => Stage::Recording { settlement, deaths },
    }
}

/// Hands the invocation back: its claim first, if it has one.
const fn interrupted(progress: &Progress) -> Stage {
    if progress.unprotected { Stage::Publishing(Follow::Again { wait_ms: 0 }) } else { Stage::Releasing }
}

/// The key says that another run owns it. If our delivery is still ours the claim decides again; if a guard has
/// replaced it, the guard will.
fn lost(progress: &Progress) -> Stage {
    if progress.guarded { Stage::Ended } else { Stage::Claiming { repeat: false } }
}

fn recorded(progress: &Progress, token: Token, deaths: u32, settlement: Settlement) -> Stage {
    match settlement {
        Settlement::Done => finished(progress),
        Settlement::Next(next) => Stage::Publishing(Follow::Next { at: progress.at, deaths, next, mark: Some(token) }),
    }
}

/// A finished replay closes its letter, also when it is only found to be finished.
fn finished(progress: &Progress) -> Stage {
    if progress.at.generation > 0 { Stage::Publishing(Follow::Resolved) } else { ack(progress) }
}

/// A replay that was cancelled leaves no letter that waits for it.
fn cancelled(progress: &Progress) -> Stage {
    if progress.at.generation > 0 { Stage::Publishing(Follow::Cancelled) } else { ack(progress) }
}

fn published(progress: &Progress, follow: Follow) -> Stage {
    match follow {
        Follow::Next { at, mark: Some(token), next, .. } => Stage::Marking { at, token, wait_ms: next.wait_ms() },
        Follow::Next { mark: None, .. }
        | Follow::Resolved
        | Follow::Cancelled
        | Follow::Again { .. }
        | Follow::Behind { .. }
        | Follow::Suspect { .. } => ack(progress),
    }
}

fn ack(progress: &Progress) -> Stage {
    if progress.guarded { Stage::Ended } else { Stage::Acking }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIED: Tried = Tried { attempt: 1, spent: Duration::ZERO, at_ms: 0, took: Duration::from_secs(1) };

    fn check_settle(attempt: u32, outcome: Outcome, expected: &str) {
        let policy = RetryPolicy { attempts: 3, initial: Duration::from_secs(2), ..RetryPolicy::default() };
        let settled = match settle(&Tried { attempt, ..TRIED }, outcome, &policy, 0.5) {
            Some(Settlement::Done) => "finish".into(),
            None => "release".into(),
            Some(Settlement::Next(Next::Retry { delay_ms, spent_ms, .. })) => {
                format!("retry in {delay_ms}, spent {spent_ms}")
            }
            Some(Settlement::Next(Next::Bury { class, .. })) => format!("bury {class:?}"),
        };
        assert_eq!(settled, expected);
    }

    #[test]
    fn outcomes() {
        check_settle(1, Outcome::Done, "finish");
        check_settle(1, Outcome::Interrupted, "release");
        check_settle(1, Outcome::later("500"), "retry in 2000, spent 3000");
        check_settle(2, Outcome::later("500"), "retry in 4000, spent 5000");
        check_settle(3, Outcome::later("500"), "bury Exhausted");
        check_settle(1, Outcome::never(Class::Rejected, "404"), "bury Rejected");
    }

    /// The stages of one progress, one letter each, given the answers it meets.
    fn check(generation: u32, guarded: bool, answers: Vec<Answer>, expected: &str) {
        let progress = Progress { at: Point::first(generation), guarded, unprotected: false };
        let token = Token { run: 1, body: 0 };
        let mut stage = Stage::Claiming { repeat: false };
        let mut path = name(&stage).to_owned();
        for answer in answers {
            stage = next_effect(&progress, token, stage, answer);
            path.push(' ');
            path.push_str(name(&stage));
        }
        assert_eq!(path, expected);
    }

    fn name(stage: &Stage) -> &'static str {
        match stage {
            Stage::Claiming { .. } => "claim",
            Stage::Running { .. } => "run",
            Stage::Recording { .. } => "record",
            Stage::Publishing(Follow::Next { .. }) => "publish",
            Stage::Publishing(Follow::Resolved) => "resolve",
            Stage::Publishing(Follow::Cancelled) => "close",
            Stage::Publishing(Follow::Again { .. }) => "again",
            Stage::Publishing(Follow::Behind { .. }) => "behind",
            Stage::Publishing(Follow::Suspect { .. }) => "suspect",
            Stage::Marking { .. } => "mark",
            Stage::Releasing => "release",
            Stage::Acking => "ack",
            Stage::Ended => "end",
        }
    }

    #[test]
    fn the_mark_knows_of_the_planned_wait() {
        let (progress, token) =
            (Progress { at: Point::first(0), guarded: false, unprotected: false }, Token { run: 1, body: 0 });
        let next = Next::Retry { delay_ms: 7, spent_ms: 9, report: None };
        let out = Stage::Publishing(Follow::Next { at: progress.at, deaths: 0, next, mark: Some(token) });
        let marking = Stage::Marking { at: progress.at, token, wait_ms: 7 };
        assert_eq!(next_effect(&progress, token, out, Answer::Confirmed), marking);
    }

    #[test]
    fn paths() {
        let won = || Answer::Store(claim::Answer::Won { deaths: 0, taken_over: false });
        let ok = || Answer::Store(claim::Answer::Ok);
        let not_yours = || Answer::Store(claim::Answer::NotYours);
        let failed = || Answer::Ran(Settlement::Next(Next::Retry { delay_ms: 1, spent_ms: 1, report: None }));
        let done = || Answer::Ran(Settlement::Done);
        check(0, false, vec![won(), done(), ok(), Answer::Acked], "claim run record ack end");
        check(1, false, vec![won(), done(), ok(), Answer::Confirmed], "claim run record resolve ack");
        check(
            0,
            false,
            vec![won(), failed(), Answer::Unanswered, ok(), Answer::Unconfirmed, Answer::Confirmed, ok()],
            "claim run record record publish publish mark ack",
        );
        check(0, false, vec![won(), failed(), not_yours()], "claim run record claim");
        check(0, true, vec![won(), failed(), not_yours()], "claim run record end");
        check(0, true, vec![won(), failed(), ok(), Answer::Confirmed, ok()], "claim run record publish mark end");
        check(0, false, vec![won(), Answer::LeaseLost], "claim run claim");
        check(0, false, vec![won(), Answer::Interrupted, ok()], "claim run release again");
        check(0, true, vec![won(), Answer::Interrupted, ok()], "claim run release end");
        check(0, false, vec![Answer::Store(claim::Answer::Superseded)], "claim ack");
        let cancelled = || Answer::Store(claim::Answer::Cancelled { before: claim::Before::Cancelled });
        check(0, false, vec![cancelled(), Answer::Acked], "claim ack end");
        check(1, false, vec![cancelled(), Answer::Confirmed, Answer::Acked], "claim close ack end");
        check(0, false, vec![Answer::Store(claim::Answer::Busy { lease_left_ms: 1 })], "claim behind");
        check(0, false, vec![Answer::Unanswered, Answer::HeldTooLong], "claim claim again");
    }
}
