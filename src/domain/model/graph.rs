//! A second way through the states, for what the checker's properties cannot say.
//!
//! The checker's `eventually` misses cycles. So the whole graph is built here, and walked backwards from the states in
//! which nothing is left to do. A fleet that is fair to every action that stays possible gets from each of the states
//! that this reaches to one of those.

use std::collections::HashMap;

use stateright::Model as _;

use super::Fleet;
use super::order::digest;
use super::state::State;

/// The states of a fleet, and who follows whom.
pub(super) struct Graph {
    states: Vec<State>,
    /// From and to, by what costs no fault.
    free: Vec<(usize, usize)>,
}

impl Graph {
    pub(super) fn of(fleet: &Fleet) -> Self {
        let mut graph = Self { states: fleet.init_states(), free: Vec::new() };
        let mut known: HashMap<u64, usize> = graph.states.iter().map(digest).zip(0..).collect();
        let mut from = 0;
        while from < graph.states.len() {
            let state = graph.states[from].clone();
            for action in fleet.possible(&state) {
                let free = action.fault().is_none();
                let Some(next) = fleet.next_state(&state, action) else { continue };
                let to = *known.entry(digest(&next)).or_insert_with(|| {
                    graph.states.push(next);
                    graph.states.len() - 1
                });
                if free {
                    graph.free.push((from, to));
                }
            }
            from += 1;
        }
        graph
    }

    /// The states in which nothing is left to do.
    pub(super) fn ends(&self) -> impl Iterator<Item = &State> {
        self.states.iter().filter(|state| state.is_quiescent())
    }

    /// The states from which no way leads to an end unless something more goes wrong.
    pub(super) fn stuck(&self) -> Vec<&State> {
        let mut before = vec![Vec::new(); self.states.len()];
        for (from, to) in &self.free {
            before[*to].push(*from);
        }
        let mut comes_to_an_end = vec![false; self.states.len()];
        let mut todo: Vec<usize> = (0..self.states.len()).filter(|index| self.states[*index].is_quiescent()).collect();
        while let Some(index) = todo.pop() {
            if !std::mem::replace(&mut comes_to_an_end[index], true) {
                todo.extend(&before[index]);
            }
        }
        self.states.iter().zip(comes_to_an_end).filter(|(_, ends)| !ends).map(|(state, _)| state).collect()
    }
}
