//! Mutations of the protocol: the sound functions, with answers bent from outside. The model and the simulation run with
//! each of them, to show that they would notice.

use super::claim::{self, Claim, Found, Point, Request, Settlement, Step, Write};
use super::settle::{self, Answer, Follow, Progress, Stage};

/// One mistake that a build could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mutation {
    /// The protocol as it is.
    #[default]
    None,
    /// A settlement is written over another run's claim.
    TokenNotCompared,
    /// A message for an attempt that is over is run again.
    LowerAttemptRuns,
    /// A release forgets which attempt was under way.
    ReleaseForgets,
    /// What follows is published before the settlement is recorded.
    PublishBeforeRecord,
    /// The delivery is acked before what follows is confirmed.
    AckBeforePublish,
    /// A hook that a worker does not know is taken to be removed, whichever catalog the message is from.
    RevisionNotCompared,
    /// What waits for a hook that was removed is dropped without a dead letter.
    RemovedIsDropped,
}

impl Mutation {
    /// [`claim::step`] with this mistake.
    #[must_use]
    pub fn step(self, found: Option<&Found>, request: &Request) -> Step {
        let bent = found.and_then(|found| self.found(found, request));
        let mut step = claim::step(bent.as_ref().or(found), request);
        if let (Self::ReleaseForgets, Request::Release { .. }) = (self, request)
            && let Some(Write { claim: Claim::Out { at, .. }, .. }) = &mut step.write
        {
            *at = Point::first(at.generation);
        }
        step
    }

    /// What a store with this mistake takes the claim to be.
    fn found(self, found: &Found, request: &Request) -> Option<Found> {
        let claim = match (self, &found.claim, request) {
            (Self::TokenNotCompared, Claim::Held { at, deaths, floor_ms, .. }, Request::Settle { token, .. }) => {
                Claim::Held { at: *at, token: *token, deaths: *deaths, floor_ms: *floor_ms }
            }
            (Self::LowerAttemptRuns, Claim::Held { at, token, deaths, floor_ms }, Request::Claim(asked))
                if asked.at < *at =>
            {
                Claim::Held { at: asked.at, token: *token, deaths: *deaths, floor_ms: *floor_ms }
            }
            (Self::LowerAttemptRuns, Claim::Out { at, deaths }, Request::Claim(asked)) if asked.at < *at => {
                Claim::Out { at: asked.at, deaths: *deaths }
            }
            _ => return None,
        };
        Some(Found { claim, lease_left_ms: found.lease_left_ms })
    }

    /// [`settle::next_effect`] with this mistake.
    #[must_use]
    pub fn next_effect(self, progress: &Progress, token: claim::Token, stage: Stage, answer: Answer) -> Stage {
        match (self, stage, answer) {
            (Self::AckBeforePublish, stage @ Stage::Publishing(_), Answer::Unconfirmed) => {
                settle::next_effect(progress, token, stage, Answer::Confirmed)
            }
            (Self::PublishBeforeRecord, stage, answer) => publish_first(progress, token, stage, answer),
            (_, stage, answer) => settle::next_effect(progress, token, stage, answer),
        }
    }
}

/// Publishes what follows from a run, then records it, then marks it.
fn publish_first(progress: &Progress, token: claim::Token, stage: Stage, answer: Answer) -> Stage {
    match (stage, answer) {
        (Stage::Running { deaths }, Answer::Ran(Settlement::Next(next))) if !progress.unprotected => {
            Stage::Publishing(Follow::Next { at: progress.at, deaths, next, mark: Some(token) })
        }
        (Stage::Publishing(Follow::Next { deaths, next, mark, .. }), Answer::Confirmed) if mark == Some(token) => {
            Stage::Recording { settlement: Settlement::Next(next), deaths }
        }
        (Stage::Recording { settlement: Settlement::Next(next), .. }, Answer::Store(claim::Answer::Ok)) => {
            Stage::Marking { at: progress.at, token, wait_ms: next.wait_ms() }
        }
        (stage, answer) => settle::next_effect(progress, token, stage, answer),
    }
}
