//! A model of the claim protocol, checked state by state.
//!
//! It drives the functions that the workers and the embedded store run, [`super::claim::step`] and
//! [`super::settle::next_effect`], and stands in for what is around them: the broker, the store's memory, the log of
//! letters, operators, and what goes wrong with each. One event matches one or two hooks, two workers take it, an
//! attempt may succeed or fail, a generation has two attempts, and operators make up to two replays.
//!
//! | what | how it is modelled |
//! |---|---|
//! | queues and waits | one multiset of messages; any may be delivered at any time; lane `suspect` is a flag |
//! | a delivery | the event with a job a hook, or one invocation; acked when each job is over or has a guard |
//! | leases | end freely once their run is gone; by a fault while it is only stalled, which then goes on |
//! | faults | those of [`action::Fault`], so many in all |
//! | operators | publish a replay and then append the mark, or die in between |
//! | the log | the fold of a hook's letters and marks, whose join is a maximum |
//!
//! Not modelled: runs without a claim (`proceed`), the broker's count of deliveries, and gates.

use stateright::{Model, Property};

use self::action::{Action, Fault};
use self::property::Condition;
use self::state::{Key, Message, State};
use super::mutation::Mutation;

mod action;
mod graph;
mod order;
mod perform;
mod property;
mod state;
mod tests;

/// What is modelled, and how far.
#[derive(Debug, Clone, Copy)]
struct Fleet {
    mutation: Mutation,
    /// Hooks that the one event matches.
    hooks: usize,
    /// The replays that operators may make, in this order, and whether each is by force.
    replays: &'static [bool],
    faults: &'static [Fault],
    /// Faults in all.
    budget: u8,
    /// Deliveries in hand at a time, but for those that are acked or void.
    prefetch: usize,
    /// Tries also every order of what may happen in any order.
    every_order: bool,
    /// What must be seen.
    sights: &'static [(&'static str, Condition)],
}

impl Model for Fleet {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            keys: vec![Key::default(); self.hooks],
            queue: vec![Message::Event],
            workers: [Vec::new(), Vec::new()],
            replays_made: 0,
            faults_left: self.budget,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(self.possible(state));
    }

    /// A fault that changes nothing does not happen.
    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.perform(&mut next, &action);
        if next == *state {
            return None;
        }
        next.faults_left -= u8::from(action.fault().is_some());
        next.put_in_order(self.mutation);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.rules()
    }
}
