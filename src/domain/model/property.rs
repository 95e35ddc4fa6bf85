//! What must hold in every state, and what a configuration must come across, or it shows less than it seems to.

use stateright::Property;

use super::Fleet;
use super::action::Fault;
use super::state::{Breach, Job, Key, LIMITS, NEW_TOKEN, State};
use crate::domain::claim::{Answer, Claim, Next, Request, Settlement};
use crate::domain::fold;
use crate::domain::settle::{Follow, Stage};

/// What must be true of a state.
pub(super) type Condition = fn(&Fleet, &State) -> bool;

const ALWAYS: [(&str, Condition); 7] = [
    ("nothing is lost", |_, state| !state.is_quiescent() || state.keys.iter().all(is_accounted_for)),
    ("no letter stays open for a finished generation", |_, state| {
        !state.is_quiescent() || state.keys.iter().all(is_closed)
    }),
    ("nothing is won after it was done", |_, state| state.keeps(Breach::WonAfterDone)),
    ("nothing is won after it was cancelled", |_, state| state.keeps(Breach::WonAfterCancel)),
    ("no attempt is recorded again", |_, state| state.keeps(Breach::RecordedAgain)),
    ("no attempt runs again without a cause", |_, state| state.keeps(Breach::RanAgain)),
    ("deaths are bounded, and none is counted without a fault", |fleet, state| {
        let faults = u32::from(fleet.budget - state.faults_left);
        state.keys.iter().all(|key| deaths(key) <= LIMITS.poisoned.min(faults))
    }),
];

/// What is seen without replays, given two faults.
pub(super) const SIGHTS: &[(&str, Condition)] = &[
    ("a takeover", |_, state| state.keys.iter().any(|key| deaths(key) > 0)),
    ("busy", |fleet, state| answered(fleet, state, |_, _, answer| matches!(answer, Answer::Busy { .. }))),
    ("superseded", |fleet, state| answered(fleet, state, |_, _, answer| *answer == Answer::Superseded)),
    ("resume", |fleet, state| answered(fleet, state, |_, _, answer| matches!(answer, Answer::Resume { .. }))),
    ("suspect", |fleet, state| answered(fleet, state, |_, _, answer| matches!(answer, Answer::Suspect { .. }))),
    ("poisoned", |_, state| {
        let poisoned = |claim| matches!(claim, &Some(Claim::Settled { ref next, .. }) if *next == Next::poisoned());
        state.keys.iter().any(|key| poisoned(&key.claim))
    }),
    ("buried", |_, state| state.keys.iter().any(|key| matches!(key.claim, Some(Claim::Buried { .. })))),
    ("done, delivered again", |fleet, state| {
        answered(fleet, state, |_, _, answer| matches!(answer, Answer::Done { .. }))
    }),
    ("a guard dropped", |fleet, state| {
        answered(fleet, state, |_, asked, answer| {
            let guarded = |job: &Job| job.guarded && job.of == asked.of;
            matches!(answer, Answer::Done { .. }) && state.jobs().any(guarded)
        })
    }),
    ("a stalled owner reached its target too", |_, state| {
        state.jobs().any(|job| reached_in_vain(job, &state.keys[job.of.hook]))
    }),
];

/// What is seen with replays.
pub(super) const REPLAY_SIGHTS: &[(&str, Condition)] = &[
    ("a letter is out again", |_, state| {
        state.keys.iter().any(|key| matches!(key.fold, Some((_, fold::State::Replaying))))
    }),
    ("a letter is resolved", |_, state| {
        state.keys.iter().any(|key| matches!(key.fold, Some((_, fold::State::Resolved))))
    }),
    ("a guard of a replay dropped", |fleet, state| {
        answered(fleet, state, |_, asked, answer| {
            let guarded = |job: &Job| job.guarded && job.stage == Stage::Publishing(Follow::Resolved);
            matches!(answer, Answer::Done { .. }) && state.jobs().any(|job| guarded(job) && job.of == asked.of)
        })
    }),
];

/// What is seen with a replay by force after one that finished.
pub(super) const FORCED_SIGHTS: &[(&str, Condition)] = &[("won by force after done", |fleet, state| {
    answered(fleet, state, |key, _, answer| {
        matches!(key.claim, Some(Claim::Done { .. })) && matches!(answer, Answer::Won { .. })
    })
})];

/// Without these, no attempt may run twice.
const CAUSES: [Fault; 4] = [Fault::Crash, Fault::Stall, Fault::Interrupt, Fault::Forget];

impl State {
    fn keeps(&self, rule: Breach) -> bool {
        self.keys.iter().all(|key| key.breach != Some(rule))
    }
}

impl Fleet {
    pub(super) fn runs_once(&self) -> bool {
        !CAUSES.iter().any(|cause| self.faults.contains(cause))
    }

    pub(super) fn rules(&self) -> Vec<Property<Self>> {
        let always = ALWAYS.iter().map(|(name, condition)| Property::always(name, *condition));
        let sights = self.sights.iter();
        always.chain(sights.map(|(name, condition)| Property::sometimes(name, *condition))).collect()
    }
}

/// Done, or buried or cancelled at the highest generation that was asked for. By force it is owed although done.
fn is_accounted_for(key: &Key) -> bool {
    let (generation, forced) = key.asked_for;
    key.letter.map(|(letter, _)| letter).max(key.cancelled) >= Some(generation) || key.done >= Some(forced)
}

/// A store that forgot may have run generation 0 again after its letter was written.
fn is_closed(key: &Key) -> bool {
    let Some(Claim::Done { generation, .. }) = key.claim else { return true };
    let (Some((top, state)), Some(_)) = (key.fold, key.letter) else { return true };
    let excused = generation == 0 && key.forgotten;
    excused || top > generation || state == fold::State::Resolved
}

fn deaths(key: &Key) -> u32 {
    match key.claim {
        Some(Claim::Held { deaths, .. } | Claim::Settled { deaths, .. } | Claim::Out { deaths, .. }) => deaths,
        Some(Claim::Done { .. } | Claim::Buried { .. } | Claim::Decided { .. }) | None => 0,
    }
}

/// Whether a claim that a job is about to make will be answered so.
fn answered(fleet: &Fleet, state: &State, so: impl Fn(&Key, &Job, &Answer) -> bool) -> bool {
    state.jobs().filter(|job| matches!(job.stage, Stage::Claiming { .. })).any(|job| {
        let Some(Request::Claim(mut asked)) = job.request() else { return false };
        if job.stage == (Stage::Claiming { repeat: false }) {
            asked.token = NEW_TOKEN;
        }
        let key = &state.keys[job.of.hook];
        so(key, job, &key.step(fleet.mutation, &Request::Claim(asked)).answer)
    })
}

/// A run succeeded whose claim is another's by now.
fn reached_in_vain(job: &Job, key: &Key) -> bool {
    let succeeded = matches!(job.stage, Stage::Recording { settlement: Settlement::Done, .. });
    let own = match key.claim {
        Some(Claim::Held { token, .. } | Claim::Settled { token, .. } | Claim::Done { token, .. }) => {
            token == job.token
        }
        Some(Claim::Out { .. } | Claim::Buried { .. } | Claim::Decided { .. }) | None => false,
    };
    succeeded && !own
}
