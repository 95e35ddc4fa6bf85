//! Which letters an operator means, and what is to be done with them. Pure, over the [`Fold`].

use super::browse::{Filter, Group, grouped};
use super::dead_letter::{Mark, Offset};
use super::fold::{Entry, Fold, State};
use super::id::LetterId;

/// The letters that an operator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These, whatever their state.
    Ids(Vec<LetterId>),
    /// Those that it takes and that are open.
    Filter(Box<Filter>),
}

/// What letters are picked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be sent again, to their own hooks.
    Again,
    /// To be run although they may have finished, under keys of their own.
    Force,
    /// To be run by another hook: not while a replay of them is out, else both would run.
    Elsewhere,
}

/// A letter to be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked {
    pub at: Offset,
    /// Where a reader begins that gets it whole.
    pub from: Offset,
    pub id: LetterId,
    /// When it was written, or last sent or closed, in milliseconds since 1970: what a limit takes the oldest of.
    pub age_ms: u64,
    /// See [`Entry::newest_ms`].
    pub newest_ms: u64,
    /// The highest generation that is known, if it is to run although it may have finished.
    pub force: Option<u32>,
    /// How it stood then.
    pub stood: Option<(u32, State)>,
}

/// What a replay would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the log.
    pub picked: Vec<Picked>,
    /// What a filter means but for their state: replays of them are out already.
    pub out: usize,
    /// Asked for, and finished or closed.
    pub resolved: Vec<LetterId>,
    /// Asked for with force, and about whole messages.
    pub unforced: Vec<LetterId>,
    /// Asked for, and not there.
    pub unknown: Vec<LetterId>,
}

impl Fold {
    /// What a replay of the selection would do.
    #[must_use]
    pub fn plan(&self, selection: &Selection, purpose: Purpose) -> Plan {
        let force = purpose == Purpose::Force;
        let mut plan = Plan::default();
        let mut entries = self.selected(selection, &mut plan.unknown);
        let by_name = matches!(selection, Selection::Ids(_));
        entries.retain(|entry| {
            let (id, state) = (&entry.letter.id, entry.state);
            match state {
                State::Open if !force => return true,
                State::Replaying if !by_name || purpose == Purpose::Elsewhere => plan.out += 1,
                State::Resolved if !force && by_name => plan.resolved.push(id.clone()),
                State::Resolved if !force => {}
                State::Open | State::Replaying | State::Resolved if force && entry.letter.hook.is_none() => {
                    plan.unforced.push(id.clone());
                }
                State::Open | State::Replaying | State::Resolved => return true,
            }
            false
        });
        plan.picked = entries.iter().map(|entry| self.pick(entry, force)).collect();
        plan
    }

    /// Letters that were picked, by cause.
    #[must_use]
    pub fn groups_of(&self, picked: &[Picked]) -> Vec<Group> {
        let mut entries: Vec<Entry> = picked.iter().filter_map(|picked| self.find(&picked.id)).collect();
        entries.sort_by(|a, b| (a.letter.at_ms, &a.letter.id).cmp(&(b.letter.at_ms, &b.letter.id)));
        grouped(entries.iter().map(|entry| (&entry.letter, entry.state)))
    }

    /// Each letter once, in the order of the log.
    fn selected(&self, selection: &Selection, unknown: &mut Vec<LetterId>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = match selection {
            Selection::Filter(filter) => self.taken(filter).collect(),
            Selection::Ids(ids) => {
                let find = |id: &LetterId| {
                    let found = self.find(id);
                    if found.is_none() {
                        unknown.push(id.clone());
                    }
                    found
                };
                ids.iter().filter_map(find).collect()
            }
        };
        entries.sort_by_key(|entry| entry.letter.at);
        entries.dedup_by_key(|entry| entry.letter.at);
        entries
    }

    fn pick(&self, entry: &Entry, force: bool) -> Picked {
        let letter = &entry.letter;
        let force = force.then(|| self.highest_generation(&letter.id).unwrap_or(letter.generation));
        let (id, stood) = (letter.id.clone(), self.stands(&letter.id));
        let age_ms = entry.mark.as_ref().map_or(0, |mark| mark.at_ms).max(letter.at_ms);
        Picked { at: letter.at, from: letter.from, id, age_ms, newest_ms: entry.newest_ms, force, stood }
    }

    /// Whether a letter that was picked stands as it stood then: nobody has finished it, closed it or sent it out
    /// meanwhile, nor has that failed by now.
    #[must_use]
    pub fn is_unchanged(&self, picked: &Picked) -> bool {
        self.stands(&picked.id).is_none_or(|stands| Some(stands) == picked.stood)
    }

    /// The marks that close the selected letters, as far as they are not closed; and the ids that nobody knows.
    #[must_use]
    pub fn closing(&self, selection: &Selection, by: &str, reason: &str, now_ms: u64) -> (Vec<Mark>, Vec<LetterId>) {
        let mut unknown = Vec::new();
        let entries = self.selected(selection, &mut unknown);
        let marks = entries.iter().filter(|entry| entry.state != State::Resolved).map(|entry| {
            let generation = self.highest_generation(&entry.letter.id).unwrap_or(entry.letter.generation);
            let (subject, by, reason) = (entry.letter.subject(), by.to_owned(), Some(reason.to_owned()));
            Mark { subject, generation, at_ms: now_ms, by, reason, until_ms: entry.newest_ms }
        });
        (marks.collect(), unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::Purpose::{Again, Elsewhere, Force};
    use super::*;
    use crate::domain::browse::States;
    use crate::domain::dead_letter::{EventName, Item, Letter, Record};
    use crate::domain::event::Malformed;
    use crate::domain::failure::Class;
    use crate::domain::invocation::Client;

    fn letter(number: u8) -> Letter {
        let malformed = Malformed { class: Class::Invalid, error: "x".into() };
        let mut letter = Letter::of_message(&malformed, Client::default(), &[number], "events", u64::from(number));
        if number < 9 {
            let (id, source, kind) = (number.to_string(), "/s".to_owned(), "a".to_owned());
            letter.event = Some(EventName { id, source, kind, subject: None });
            letter.hook = Some("h".into());
        }
        letter
    }

    fn mark(number: u8, generation: u32) -> Mark {
        let subject = letter(number).subject();
        Mark { subject, generation, at_ms: 9, by: "me".into(), reason: None, until_ms: 99 }
    }

    /// Letter 1 is open, a replay of 2 is out, 3 is resolved, 9 is about a whole message and open.
    fn fold() -> Fold {
        let letters = [1, 2, 3, 9].map(|number| Record::Letter(Box::new(letter(number))));
        let marks = [Record::Replayed(mark(2, 1)), Record::Resolved(mark(3, 4))];
        let mut fold = Fold::default();
        for (at, record) in (0..).zip(letters.into_iter().chain(marks)) {
            fold.apply(Item::new(Offset(at), record));
        }
        fold
    }

    fn ids(numbers: &[u8]) -> Vec<LetterId> {
        numbers.iter().map(|&number| letter(number).id).collect()
    }

    #[test]
    fn what_is_replayed() {
        let nobody = LetterId::from("nobody");
        let named = Selection::Ids([ids(&[9, 3, 2, 1, 1]), vec![nobody.clone()]].concat());
        let filter = Selection::Filter(Box::default());
        let check = |selection: &Selection, purpose, picked: &[u8], out, resolved: &[u8], unforced: &[u8]| {
            let plan = fold().plan(selection, purpose);
            let found: Vec<LetterId> = plan.picked.iter().map(|picked| picked.id.clone()).collect();
            assert_eq!(found, ids(picked), "{selection:?} {purpose:?}");
            assert_eq!((plan.out, plan.resolved, plan.unforced), (out, ids(resolved), ids(unforced)));
            let groups: u64 =
                fold().groups_of(&plan.picked).iter().map(|it| it.open + it.replaying + it.resolved).sum();
            assert_eq!(groups, picked.len() as u64);
        };
        check(&named, Again, &[1, 2, 9], 0, &[3], &[]);
        check(&named, Elsewhere, &[1, 9], 1, &[3], &[]);
        check(&named, Force, &[1, 2, 3], 0, &[], &[9]);
        check(&filter, Again, &[1, 9], 1, &[], &[]);
        check(&filter, Force, &[1, 3], 1, &[], &[9]);
        assert_eq!(fold().plan(&named, Again).unknown, [nobody]);
        let (mut moved, plan) = (fold(), fold().plan(&named, Again));
        assert!(plan.picked.iter().all(|picked| moved.is_unchanged(picked)));
        let again = Letter { generation: 1, ..letter(1) }; // it was sent and failed again
        moved.apply(Item::new(Offset(7), Record::Letter(Box::new(again))));
        moved.apply(Item::new(Offset(8), Record::Resolved(mark(2, 1))));
        let unchanged: Vec<_> = plan.picked.iter().map(|picked| moved.is_unchanged(picked)).collect();
        assert_eq!(unchanged, [false, false, true]);
        let forced: Vec<_> = fold().plan(&named, Force).picked.iter().map(|picked| picked.force).collect();
        assert_eq!(forced, [Some(0), Some(1), Some(4)]);
    }

    #[test]
    fn what_is_closed() {
        let (marks, unknown) = fold().closing(&Selection::Ids(ids(&[1, 2, 3])), "me", "known", 7);
        let found: Vec<_> = marks.iter().map(|mark| (mark.generation, mark.reason.as_deref(), mark.at_ms)).collect();
        assert_eq!((found, unknown), (vec![(0, Some("known"), 7), (1, Some("known"), 7)], vec![]));
        let open = Filter { states: States::Open, ..Filter::default() };
        assert_eq!(fold().closing(&Selection::Filter(Box::new(open)), "me", "known", 7).0.len(), 2);
    }
}
