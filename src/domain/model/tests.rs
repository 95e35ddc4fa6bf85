//! What is explored, and what is asked of it.

use std::collections::HashSet;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

use super::Fleet;
use super::action::{Action, Fault};
use super::graph::Graph;
use super::order::digest;
use super::property::{FORCED_SIGHTS, REPLAY_SIGHTS, SIGHTS};
use super::state::State;
use crate::domain::mutation::Mutation;

/// What any fleet must live with.
const ALL: &[Fault] = &[
    Fault::Crash,
    Fault::Stall,
    Fault::AnswerLost,
    Fault::CallLost,
    Fault::ConfirmLost,
    Fault::MessageLost,
    Fault::Disconnect,
    Fault::Guard,
    Fault::Interrupt,
    Fault::HeldTooLong,
    Fault::Forget,
];

/// One hook, no replay, two faults of any kind: what the tests vary.
const FLEET: Fleet = Fleet {
    mutation: Mutation::None,
    hooks: 1,
    replays: &[],
    faults: ALL,
    budget: 2,
    prefetch: 2,
    every_order: false,
    sights: &[],
};

/// Every rule holds in every state, and everything that should be seen is.
#[allow(clippy::print_stdout, reason = "how much was explored is worth a look")]
fn holds(name: &str, fleet: Fleet) {
    let checker = fleet.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!("{name}: {} states, {} steps deep", checker.unique_state_count(), checker.max_depth());
    let found = checker.discoveries();
    for rule in fleet.rules() {
        match (rule.expectation, found.get(rule.name)) {
            (Expectation::Sometimes, None) => panic!("{name}: never seen: {}", rule.name),
            (Expectation::Always, Some(path)) => panic!("{name}: broken: {}\n{}", rule.name, story(path)),
            _ => {}
        }
    }
}

/// The mutation breaks this rule.
#[allow(clippy::print_stdout, reason = "how soon a mutation is found is worth a look")]
fn catches(mutation: Mutation, rule: &str) {
    let fleet = Fleet { mutation, ..FLEET };
    let checker = fleet.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let Some(path) = found.get(rule) else { panic!("{mutation:?} breaks {:?}, expected: {rule}", found.keys()) };
    let steps = path.clone().into_actions().len();
    println!("{mutation:?}: {} states, {steps} steps to break: {rule}", checker.unique_state_count());
}

/// What happened, one line a step, and what it came to.
fn story(path: &Path<State, Action>) -> String {
    let line = |(state, action): (State, Option<Action>)| match action {
        Some(action) => match action.place().and_then(|place| state.job(place)) {
            Some(job) => format!("{action:?} {:?} {:?}\n", job.of, job.stage),
            None => format!("{action:?}\n"),
        },
        None => format!("{state:?}"),
    };
    path.clone().into_vec().into_iter().map(line).collect()
}

#[test]
fn two_faults() {
    holds("two faults", Fleet { sights: SIGHTS, ..FLEET });
}

#[test]
fn two_faults_and_a_replay() {
    holds("two faults and a replay", Fleet { replays: &[false], ..FLEET });
}

#[test]
fn two_hooks_and_a_replay() {
    holds("two hooks and a replay", Fleet { hooks: 2, replays: &[false], budget: 1, ..FLEET });
}

/// All but what multiplies messages, which [`two_hooks_and_a_replay`] has once.
#[test]
fn two_hooks_and_two_faults() {
    const FAULTS: &[Fault] = &[
        Fault::Crash,
        Fault::Stall,
        Fault::AnswerLost,
        Fault::CallLost,
        Fault::Guard,
        Fault::Interrupt,
        Fault::HeldTooLong,
        Fault::Forget,
    ];
    holds("two hooks and two faults", Fleet { hooks: 2, faults: FAULTS, ..FLEET });
}

#[test]
fn three_deliveries_in_hand() {
    holds("three deliveries in hand", Fleet { prefetch: 3, ..FLEET });
}

#[test]
fn two_operators_replay() {
    let sights = REPLAY_SIGHTS;
    holds("two operators", Fleet { replays: &[false, false], budget: 1, sights, ..FLEET });
}

#[test]
fn an_operator_replays_by_force() {
    let sights = FORCED_SIGHTS;
    holds("force after a replay", Fleet { replays: &[false, true], budget: 1, sights, ..FLEET });
    holds("a replay of what was forced", Fleet { replays: &[true, false], budget: 1, ..FLEET });
    let faults = &[Fault::Forget, Fault::Disconnect];
    holds("force where the store forgot", Fleet { replays: &[true], faults, sights, ..FLEET });
}

#[test]
fn an_operator_cancels() {
    let faults = &[Fault::Cancel, Fault::Crash, Fault::Stall, Fault::Guard, Fault::AnswerLost, Fault::Forget];
    holds("a cancel and a replay", Fleet { replays: &[false], faults, ..FLEET });
}

#[test]
fn the_store_forgets() {
    let faults = &[Fault::Forget, Fault::Stall, Fault::Crash, Fault::AnswerLost];
    holds("a store that forgets", Fleet { replays: &[false], faults, budget: 3, ..FLEET });
}

#[test]
fn calls_are_late() {
    let faults = &[Fault::CallLate, Fault::Stall, Fault::Crash, Fault::Interrupt, Fault::Forget];
    holds("late calls", Fleet { faults, budget: 3, ..FLEET });
    holds("late calls and a replay", Fleet { replays: &[false], faults, ..FLEET });
}

/// Lost answers, lost confirms, redelivery and guards alone never run an action twice.
#[test]
fn trouble_with_messages_runs_nothing_twice() {
    const FAULTS: &[Fault] = &[
        Fault::AnswerLost,
        Fault::CallLost,
        Fault::CallLate,
        Fault::ConfirmLost,
        Fault::MessageLost,
        Fault::Guard,
        Fault::HeldTooLong,
        Fault::Disconnect,
    ];
    let fleet = Fleet { faults: FAULTS, ..FLEET };
    assert!(fleet.runs_once());
    holds("trouble with messages", fleet);
    holds("trouble with messages and a replay", Fleet { replays: &[false], budget: 1, ..fleet });
    holds("more trouble with messages", Fleet { faults: &FAULTS[..FAULTS.len() - 1], budget: 3, ..fleet });
}

#[test]
fn none_is_stuck() {
    let two_operators = Fleet { replays: &[false, true], budget: 1, ..FLEET };
    for fleet in [FLEET, two_operators, Fleet { hooks: 2, budget: 1, ..FLEET }] {
        let graph = Graph::of(&fleet);
        assert!(graph.ends().count() > 0);
        assert_eq!(graph.stuck(), Vec::<&State>::new(), "{fleet:?}");
    }
}

/// What the model leaves out, the orders of what may happen in any order, leads to the same ends.
#[test]
fn one_order_stands_for_all() {
    let replay = Fleet { replays: &[false], budget: 1, ..FLEET };
    for fleet in [FLEET, replay, Fleet { hooks: 2, budget: 1, ..FLEET }] {
        let ends = |fleet| Graph::of(&fleet).ends().map(digest).collect::<HashSet<u64>>();
        assert_eq!(ends(fleet), ends(Fleet { every_order: true, ..fleet }), "{fleet:?}");
    }
}

#[test]
fn a_token_that_is_not_compared_is_caught() {
    catches(Mutation::TokenNotCompared, "no attempt is recorded again");
}

#[test]
fn a_lower_attempt_that_runs_is_caught() {
    catches(Mutation::LowerAttemptRuns, "no attempt is recorded again");
}

#[test]
fn a_release_that_forgets_is_caught() {
    catches(Mutation::ReleaseForgets, "no attempt is recorded again");
}

#[test]
fn a_publish_before_the_record_is_caught() {
    catches(Mutation::PublishBeforeRecord, "no letter stays open for a finished generation");
}

#[test]
fn an_ack_before_the_publish_is_caught() {
    catches(Mutation::AckBeforePublish, "nothing is lost");
}
