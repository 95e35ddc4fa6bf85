//! Looking for letters: filters, pages, groups. Pure, over the [`Fold`].

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use memchr::memchr2_iter;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::dialect::Dialect;
use super::escape::quoted;
use super::failure::Class;
use super::fold::{Entry, Fold, Folded, Place, State, Summary};
use super::id::LetterId;
use super::pattern::Glob;

/// Which states are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum States {
    #[default]
    All,
    /// Open and replaying.
    Unresolved,
    Open,
    Replaying,
    Resolved,
}

impl States {
    /// By its name.
    ///
    /// # Errors
    /// One sentence: there is none of this name.
    pub fn named(name: &str) -> Result<Self, String> {
        let named = [
            ("all", Self::All),
            ("unresolved", Self::Unresolved),
            ("open", Self::Open),
            ("replaying", Self::Replaying),
            ("resolved", Self::Resolved),
        ];
        let found = named.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, states)| states).ok_or_else(|| {
            format!("state: expected all, unresolved, open, replaying or resolved, found {}", quoted(name))
        })
    }

    const fn take(self, state: State) -> bool {
        match self {
            Self::All => true,
            Self::Unresolved => !matches!(state, State::Resolved),
            Self::Open => matches!(state, State::Open),
            Self::Replaying => matches!(state, State::Replaying),
            Self::Resolved => matches!(state, State::Resolved),
        }
    }
}

/// What letters are looked for: those that every given condition holds for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// `*` is any run of characters, `?` any one, here and below.
    pub hook: Option<Glob>,
    /// Type of the event.
    pub kind: Option<Glob>,
    /// Id of the event, or of the one that it was edited from.
    pub event: Option<String>,
    pub class: Option<Class>,
    /// Of the hook. That of a letter without a hook is ours.
    pub dialect: Option<Dialect>,
    pub states: States,
    /// Written at this time or later, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Written before this time.
    pub until_ms: Option<u64>,
    /// Somewhere in error, target, the hook's name in its own system, or the event's id, source or subject; in any case.
    pub text: Option<String>,
    pub session: Option<String>,
    pub run: Option<String>,
    /// A group: letters of one cause.
    pub fingerprint: Option<String>,
}

impl Filter {
    fn takes(&self, letter: &Summary, state: State) -> bool {
        let event = letter.event.as_ref();
        let glob = |glob: &Option<Glob>, text: Option<&Arc<str>>| match glob {
            None => true,
            Some(glob) => text.is_some_and(|text| glob.matches(text)),
        };
        let equal =
            |wanted: &Option<String>, text: Option<&str>| wanted.as_deref().is_none_or(|wanted| text == Some(wanted));
        self.states.take(state)
            && self.class.is_none_or(|class| class == letter.class)
            && self
                .dialect
                .is_none_or(|dialect| dialect == letter.foreign.as_ref().map_or_else(Dialect::default, |it| it.dialect))
            && self.since_ms.is_none_or(|since| letter.at_ms >= since)
            && self.until_ms.is_none_or(|until| letter.at_ms < until)
            && equal(&self.fingerprint, Some(&letter.fingerprint))
            && equal(&self.session, letter.session.as_deref())
            && equal(&self.run, letter.run.as_deref())
            && glob(&self.hook, letter.hook.as_ref())
            && glob(&self.kind, event.map(|event| &event.kind))
            && self.event.as_deref().is_none_or(|id| is_of(letter, id))
            && self.text.as_deref().is_none_or(|text| says(letter, text))
    }

    fn takes_folded(&self, folded: &Folded) -> bool {
        let (Some(letter), Some(state)) = (&folded.letter, folded.state()) else { return false };
        self.takes(letter, state)
    }
}

fn is_of(letter: &Summary, id: &str) -> bool {
    let from = letter.edited_from.as_ref().and_then(|from| from.id.as_deref());
    letter.event.as_ref().is_some_and(|event| &*event.id == id) || from == Some(id)
}

fn says(letter: &Summary, text: &str) -> bool {
    let event = letter.event.as_ref();
    let texts = [
        Some(&*letter.error),
        letter.target.as_deref(),
        letter.foreign.as_ref().map(|hook| &*hook.name),
        event.map(|event| &*event.id),
        event.map(|event| &*event.source),
        event.and_then(|event| event.subject.as_deref()),
        Some(letter.id.as_str()),
    ];
    texts.into_iter().flatten().any(|own| contains(own, text))
}

/// In any case, as far as ASCII goes; without making a text of it.
fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    let Some(first) = part.first() else { return true };
    let Some(last) = text.len().checked_sub(part.len()) else { return false };
    let mut begins = memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), &text[..=last]);
    begins.any(|at| text[at..at + part.len()].eq_ignore_ascii_case(part))
}

/// Where a page ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(Place);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at_ms, letter, subject) = self.0;
        write!(f, "{at_ms}-{}{}", hex::encode(letter), hex::encode(subject))
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (at_ms, id) = text.split_once('-')?;
            let (mut letter, mut subject) = ([0; 12], [0; 16]);
            let (first, second) = id.split_at_checked(24)?;
            hex::decode_to_slice(first, &mut letter).ok()?;
            hex::decode_to_slice(second, &mut subject).ok()?;
            Some(Self((at_ms.parse().ok()?, letter, subject)))
        };
        read().ok_or_else(|| format!("expected the cursor that the page before gave as `next`, found {}", quoted(text)))
    }
}

/// Some letters, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub items: Vec<Entry>,
    /// Where the next page begins; none: these were the last.
    pub next: Option<Cursor>,
}

/// Letters of one cause: of one class and hook, with errors that differ only in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    #[schema(value_type = String)]
    pub fingerprint: Arc<str>,
    pub class: Class,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub hook: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub target: Option<Arc<str>>,
    /// Of the newest letter.
    #[schema(value_type = String)]
    pub error: Arc<str>,
    pub open: u64,
    pub replaying: u64,
    pub resolved: u64,
    /// When its oldest and its newest letter were written, in milliseconds since 1970.
    pub first_ms: u64,
    pub last_ms: u64,
    /// The newest letter.
    pub newest: LetterId,
}

/// A group while its letters are counted.
struct Counted<'a> {
    first: &'a Summary,
    newest: &'a Summary,
    open: u64,
    replaying: u64,
    resolved: u64,
}

impl<'a> Counted<'a> {
    const fn new(first: &'a Summary) -> Self {
        Self { first, newest: first, open: 0, replaying: 0, resolved: 0 }
    }

    const fn add(&mut self, letter: &'a Summary, state: State) {
        match state {
            State::Open => self.open += 1,
            State::Replaying => self.replaying += 1,
            State::Resolved => self.resolved += 1,
        }
        self.newest = letter; // they come oldest first
    }

    fn group(self) -> Group {
        let Self { first, newest, open, replaying, resolved } = self;
        Group {
            fingerprint: Arc::clone(&first.fingerprint),
            class: first.class,
            hook: first.hook.clone(),
            target: first.target.clone(),
            error: Arc::clone(&newest.error),
            open,
            replaying,
            resolved,
            first_ms: first.at_ms,
            last_ms: newest.at_ms,
            newest: newest.id.clone(),
        }
    }
}

/// Letters that come oldest first, by cause.
pub(super) fn grouped<'a>(letters: impl Iterator<Item = (&'a Summary, State)>) -> Vec<Group> {
    let mut groups: HashMap<&str, Counted<'_>> = HashMap::new();
    for (letter, state) in letters {
        groups.entry(&letter.fingerprint).or_insert_with(|| Counted::new(letter)).add(letter, state);
    }
    let mut groups: Vec<Group> = groups.into_values().map(Counted::group).collect();
    groups.sort_by(|a, b| (b.open, b.last_ms, &b.fingerprint).cmp(&(a.open, a.last_ms, &a.fingerprint)));
    groups
}

impl Fold {
    /// The newest letters before the cursor.
    #[must_use]
    pub fn page(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Page {
        let from = after.map_or((u64::MAX, [u8::MAX; 12], [u8::MAX; 16]), |cursor| cursor.0);
        let mut found = self.folded_before(from).filter(|(_, folded)| filter.takes_folded(folded));
        let mut items = Vec::new();
        let mut last = None;
        for (place, folded) in found.by_ref().take(limit) {
            items.extend(folded.entry());
            last = Some(Cursor(place));
        }
        let next = last.filter(|_| found.next().is_some());
        Page { items, next }
    }

    /// The letters by cause: those with most open ones first.
    #[must_use]
    pub fn groups(&self, filter: &Filter) -> Vec<Group> {
        let taken = self.folded().filter_map(|(_, folded)| Some((folded.letter.as_ref()?, folded.state()?)));
        grouped(taken.filter(|(letter, state)| filter.takes(letter, *state)))
    }

    /// The letters that are such, oldest first.
    #[must_use]
    pub fn entries_of(&self, takes: impl Fn(&Summary) -> bool) -> Vec<Entry> {
        let found = self.folded().filter(|(_, folded)| folded.letter.as_ref().is_some_and(&takes));
        found.filter_map(|(_, folded)| folded.entry()).collect()
    }

    /// The letters that a filter takes, oldest first.
    pub fn taken<'a>(&'a self, filter: &'a Filter) -> impl DoubleEndedIterator<Item = Entry> + 'a {
        self.folded().map(|(_, folded)| folded).filter(|folded| filter.takes_folded(folded)).filter_map(Folded::entry)
    }
}

#[cfg(test)]
mod tests;
