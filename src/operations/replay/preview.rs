//! What a replay would send: each letter is read and made ready, and nothing is sent.

use std::collections::HashMap;

use super::{Manner, made};
use crate::domain::browse::Group;
use crate::domain::dead_letter::{Offset, Record};
use crate::domain::id::LetterId;
use crate::domain::selection::{Picked, Plan};
use crate::operations::progress::{NAMED_MAX, Unsent};
use crate::operations::{OperationError, Operations};

/// Letters that are read at a time where only the oldest are wanted: most of them can be sent.
const READ_MIN: usize = 256;

/// A plan of which every letter was looked at.
#[derive(Debug, Default)]
pub struct Sorted {
    /// What can be sent: with a limit the oldest of it.
    pub plan: Plan,
    /// Letters that were picked before that.
    pub matching: usize,
    /// Letters that cannot be sent as they are, as far as they were come to; the first thousand by name.
    pub refused: usize,
    pub refusals: Vec<Unsent>,
}

impl Operations {
    /// Sorts out what of a plan cannot be sent, and takes so many of the oldest of the others.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn sort(&self, plan: Plan, manner: &Manner, limit: Option<usize>) -> Result<Sorted, OperationError> {
        let mut sorted = Sorted { matching: plan.picked.len(), ..Sorted::default() };
        let mut oldest = plan.picked;
        oldest.sort_by(|a, b| (a.age_ms, &a.id).cmp(&(b.age_ms, &b.id)));
        let mut rest = oldest.into_iter();
        let mut picked = Vec::new();
        while limit.is_none_or(|limit| picked.len() < limit) {
            let wanted = limit.map_or(usize::MAX, |limit| (limit - picked.len()).max(READ_MIN));
            let some: Vec<Picked> = rest.by_ref().take(wanted).collect();
            if some.is_empty() {
                break;
            }
            let mut found = self.look(&some, manner).await?;
            for candidate in some {
                if limit == Some(picked.len()) {
                    break;
                }
                match found.remove(&candidate.at) {
                    Some(Ok(())) => picked.push(candidate),
                    Some(Err(error)) => sorted.refuse(candidate.id, error),
                    None => {} // it has aged out meanwhile
                }
            }
        }
        picked.sort_by_key(|picked| picked.at);
        sorted.plan = Plan { picked, ..plan };
        Ok(sorted)
    }

    /// The letters of a plan by cause.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn groups_of(&self, plan: &Plan) -> Result<Vec<Group>, OperationError> {
        Ok(self.letters.lately().await?.groups_of(&plan.picked))
    }

    /// Whether each of these can be sent, by where it stands.
    async fn look(
        &self,
        picked: &[Picked],
        manner: &Manner,
    ) -> Result<HashMap<Offset, Result<(), String>>, OperationError> {
        let wanted: HashMap<Offset, &Picked> = picked.iter().map(|picked| (picked.at, picked)).collect();
        let mut found = HashMap::new();
        let Some(from) = picked.iter().map(|picked| picked.from).min() else { return Ok(found) };
        let mut reading = self.letters.log.open(from).await?;
        while found.len() < wanted.len()
            && let Some(items) = reading.next().await?
        {
            for item in items {
                let Record::Letter(letter) = item.record else { continue };
                if let Some(picked) = wanted.get(&item.at).filter(|picked| picked.id == letter.id) {
                    found.insert(item.at, made(&letter, picked, manner, self.reading).map(drop));
                }
            }
        }
        Ok(found)
    }
}

impl Sorted {
    fn refuse(&mut self, id: LetterId, error: String) {
        self.refused += 1;
        if self.refusals.len() < NAMED_MAX {
            self.refusals.push(Unsent { id, error });
        }
    }
}
