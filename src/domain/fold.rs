//! The fold of the dead-letter log: which letters are open.
//!
//! The state of a subject is the highest `(generation, state)` that any record gives it, a maximum over a total order:
//! the order of records and doubles do not matter. Equal messages without a hook are one subject, and generations say
//! nothing of their coming again: there a letter that is newer than those that the marks were made for is open.
//!
//! Of a letter it keeps a [`Summary`], without body and attempts, and where the whole of it stands in the log; texts that
//! many letters share are kept once.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use serde::{Deserialize, Serialize};
use slab::Slab;
use utoipa::ToSchema;

use self::words::Words;
use super::dead_letter::{Item, Letter, Mark, Offset, Record, Subject};
use super::id::LetterId;

pub use self::outcome::Outcome;
pub use self::standing::{Last, Standing};
pub use self::summary::{Entry, EventSummary, Named, Summary};

mod outcome;
mod standing;
mod summary;
mod words;

/// Where a subject stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A replay is out.
    Replaying,
    Open,
    Resolved,
}

/// Names a subject by a digest, and a letter by its id.
pub(super) type SubjectKey = [u8; 16];
type LetterKey = [u8; 12];

/// Letters in their order: by time, then by id, then by subject, since a forged record may give two of them one id.
pub(super) type Place = (u64, LetterKey, SubjectKey);

/// What is known of one subject.
#[derive(Debug, Clone, Default)]
pub(super) struct Folded {
    top: Option<(u32, State)>,
    pub(super) letter: Option<Summary>,
    /// Those of all its letters.
    ids: Vec<LetterKey>,
    count: u64,
    pub(super) mark: Option<Box<Mark>>,
    /// Where the last record that gives it its state stands.
    pub(super) marked_at: Offset,
    /// When the newest letter was written, and the newest one that a mark was made for.
    pub(super) newest_ms: u64,
    pub(super) until_ms: u64,
}

/// The fold of the log.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    /// Nearly in the order of the log, which is nearly that of time: who looks at all of them reads memory from end to end.
    subjects: Slab<Folded>,
    /// Places that were freed since they were last packed.
    holes: usize,
    by_key: HashMap<SubjectKey, usize>,
    by_id: HashMap<LetterKey, SubjectKey>,
    by_time: BTreeMap<Place, usize>,
    words: Words,
}

impl Fold {
    /// Takes one record in. Order and doubles do not matter, but for the count of equal messages.
    pub fn apply(&mut self, item: Item) {
        match item.record {
            Record::Letter(letter) => self.letter(&letter, item.at, item.from),
            Record::Replayed(mark) => self.mark(mark, State::Replaying, item.at),
            Record::Resolved(mark) => self.mark(mark, State::Resolved, item.at),
            Record::Barrier { .. } => {}
        }
    }

    fn letter(&mut self, letter: &Letter, at: Offset, from: Offset) {
        let key = letter.subject().key();
        let slot = self.slot(key);
        let Some(folded) = self.subjects.get_mut(slot) else { return };
        folded.raise(letter.generation, State::Open);
        let (count, newest_ms) = letter.carried.map_or((0, 0), |carried| (carried.count, carried.newest_ms));
        folded.count = if letter.carried.is_some() { folded.count.max(count) } else { folded.count + 1 };
        folded.newest_ms = folded.newest_ms.max(newest_ms).max(letter.written_ms());
        let id = letter.id.bytes();
        if !folded.ids.contains(&id) {
            folded.ids.push(id);
            let known = self.by_id.entry(id).or_insert(key);
            *known = key.min(*known);
        }
        // The highest generation is shown, of those of a generation the newest copy, else the earliest letter.
        let rank = |generation, carried_ms, at_ms, at| (generation, carried_ms, std::cmp::Reverse(at_ms), at);
        let carried_ms = letter.carried.map(|carried| carried.at_ms);
        let new = rank(letter.generation, carried_ms, letter.at_ms, at);
        let of_old = |old: &Summary| rank(old.generation, old.carried_ms, old.at_ms, old.at);
        let old = folded.letter.as_ref().map(|old| (of_old(old), old.place(key)));
        if old.is_some_and(|(old, _)| old >= new) {
            return;
        }
        let summary = Summary::of(letter, (at, from), &mut self.words);
        if let Some((_, place)) = old {
            self.by_time.remove(&place);
        }
        self.by_time.insert(summary.place(key), slot);
        folded.letter = Some(summary);
    }

    /// The place of a subject, which is made if there is none.
    fn slot(&mut self, key: SubjectKey) -> usize {
        *self.by_key.entry(key).or_insert_with(|| self.subjects.insert(Folded::default()))
    }

    fn mark(&mut self, mark: Mark, state: State, at: Offset) {
        let slot = self.slot(mark.subject.key());
        let Some(folded) = self.subjects.get_mut(slot) else { return };
        folded.until_ms = folded.until_ms.max(mark.until_ms);
        let raised = folded.raise(mark.generation, state);
        if folded.top != Some((mark.generation, state)) {
            return;
        }
        folded.marked_at = folded.marked_at.max(at);
        // Of equal marks the first stays: the one with the lower time.
        if raised || folded.mark.as_ref().is_none_or(|stored| is_first(&mark, stored)) {
            folded.mark = Some(Box::new(mark));
        }
    }

    /// Drops what stands before the log's first record by now: it has aged out.
    pub fn forget_before(&mut self, first: Offset) {
        let (subjects, by_id, by_time) = (&mut self.subjects, &mut self.by_id, &mut self.by_time);
        let before = subjects.len();
        self.by_key.retain(|key, slot| {
            let Some(folded) = subjects.get(*slot) else { return false };
            let gone = match &folded.letter {
                Some(letter) => letter.at < first,
                None => folded.marked_at < first,
            };
            if gone {
                for id in &folded.ids {
                    if by_id.get(id) == Some(key) {
                        by_id.remove(id);
                    }
                }
                if let Some(letter) = &folded.letter {
                    by_time.remove(&letter.place(*key));
                }
                subjects.remove(*slot);
            }
            !gone
        });
        self.words.tidy();
        self.holes += before - self.subjects.len();
        if self.holes > self.subjects.len() / 4 {
            self.pack();
        }
    }

    /// Brings what is left together, in the order of time.
    fn pack(&mut self) {
        let mut left = mem::take(&mut self.subjects);
        let mut packed = Slab::with_capacity(left.len());
        let old = mem::take(&mut self.by_key);
        for ((_, _, key), slot) in &mut self.by_time {
            if let Some(folded) = left.try_remove(*slot) {
                *slot = packed.insert(folded);
                self.by_key.insert(*key, *slot);
            }
        }
        for (key, slot) in old {
            if let Some(folded) = left.try_remove(slot) {
                self.by_key.insert(key, packed.insert(folded)); // marks without a letter
            }
        }
        (self.subjects, self.holes) = (packed, 0);
    }

    /// Every letter with its state, oldest first. Marks without a letter are ignored: their letter has aged out.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = Entry> {
        self.folded().filter_map(|(_, folded)| folded.entry())
    }

    /// What is known of subjects with a letter, oldest first.
    pub(super) fn folded(&self) -> impl DoubleEndedIterator<Item = (Place, &Folded)> {
        self.by_time.iter().filter_map(|(place, slot)| Some((*place, self.subjects.get(*slot)?)))
    }

    /// The same before this place, newest first.
    pub(super) fn folded_before(&self, place: Place) -> impl Iterator<Item = (Place, &Folded)> {
        self.by_time.range(..place).rev().filter_map(|(place, slot)| Some((*place, self.subjects.get(*slot)?)))
    }

    /// The entry with this letter id, of whatever generation.
    #[must_use]
    pub fn find(&self, id: &LetterId) -> Option<Entry> {
        self.of_id(id)?.entry()
    }

    /// The highest generation that any record names for the subject of this letter.
    #[must_use]
    pub fn highest_generation(&self, letter: &LetterId) -> Option<u32> {
        let (generation, _) = self.of_id(letter)?.top?;
        Some(generation)
    }

    /// The highest generation of the subject of this letter, and its state.
    #[must_use]
    pub fn stands(&self, letter: &LetterId) -> Option<(u32, State)> {
        let folded = self.of_id(letter)?;
        Some((folded.top?.0, folded.state()?))
    }

    fn of_id(&self, id: &LetterId) -> Option<&Folded> {
        self.subjects.get(*self.by_key.get(self.by_id.get(&id.bytes())?)?)
    }

    /// Letters that are kept in mind.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_time.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }
}

/// Whether the first of two marks comes before the other: by time, and at equal times by what they say.
fn is_first(one: &Mark, other: &Mark) -> bool {
    let said = |it: &Mark| serde_json::to_vec(it).unwrap_or_default();
    one.at_ms < other.at_ms || one.at_ms == other.at_ms && said(one) < said(other)
}

impl Folded {
    /// The join of the lattice; true if it moved.
    fn raise(&mut self, generation: u32, state: State) -> bool {
        let raised = self.top < Some((generation, state));
        if raised {
            self.top = Some((generation, state));
            self.mark = None;
            self.marked_at = Offset::default();
        }
        raised
    }

    /// Its state, if it has a letter.
    pub(super) fn state(&self) -> Option<State> {
        let (letter, (_, state)) = (self.letter.as_ref()?, self.top?);
        let came_again = letter.hook.is_none() && self.newest_ms > self.until_ms;
        Some(if came_again { State::Open } else { state })
    }

    pub(super) const fn top(&self) -> Option<(u32, State)> {
        self.top
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn entry(&self) -> Option<Entry> {
        let letter = self.letter.clone()?;
        let mark = self.mark.as_deref().cloned();
        Some(Entry { letter, state: self.state()?, count: self.count, newest_ms: self.newest_ms, mark })
    }
}

impl Subject {
    /// A digest of it.
    fn key(&self) -> SubjectKey {
        use sha2::{Digest as _, Sha256};
        let mut hash = Sha256::new();
        let (kind, parts): (u8, [&str; 2]) = match self {
            Self::Invocation { event, hook } => (0, [event, hook]),
            Self::Message(id) => (1, [id.as_str(), ""]),
        };
        hash.update([kind]);
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        key
    }
}

#[cfg(test)]
mod tests;
