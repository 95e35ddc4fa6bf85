//! What has to be true of a fleet's life.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::chance::Weather;
use super::revisions::{COMING, LASTING, LEARNT_AFTER, LEAVING, STORMY, WINDOW};
use super::target::Run;
use super::{EVENTS, World, message};
use crate::domain::claim::Claim;
use crate::domain::dead_letter::{Item, Offset, Record, Subject};
use crate::domain::event::{Event, Reading};
use crate::domain::failure::Class;
use crate::domain::fold::{Fold, State};
use crate::domain::id::{EventDigest, HookId, InvocationKey};

fn fold(world: &World) -> Fold {
    let mut fold = Fold::default();
    (0..).zip(world.hub.records()).for_each(|(at, record)| fold.apply(Item::new(Offset(at), record)));
    fold
}

/// The subjects of open letters.
fn open(world: &World) -> BTreeSet<Subject> {
    let fold = fold(world);
    let unresolved = fold.entries().filter(|entry| entry.state != State::Resolved);
    unresolved.map(|entry| entry.letter.subject()).collect()
}

/// An event and a hook.
fn key(event: usize, hook: &str) -> InvocationKey {
    static DIGESTS: LazyLock<Vec<EventDigest>> = LazyLock::new(|| {
        (0..EVENTS).map(|event| Event::decode(&message(event), &Reading::default()).unwrap().digest).collect()
    });
    InvocationKey { event: DIGESTS[event], hook: HookId::new(hook).unwrap() }
}

/// Hooks that every revision has want every event.
fn keys() -> impl Iterator<Item = InvocationKey> {
    (0..EVENTS).flat_map(|event| LASTING.map(|hook| key(event, hook)))
}

/// What the fleet owes: that, and of hooks that not every revision has, what there was a message of, and the new one of
/// late events. Where no event is matched twice it owes whatever was begun.
fn owed(world: &World, weather: &Weather) -> BTreeSet<InvocationKey> {
    let mut owed: BTreeSet<_> = keys().chain(world.hub.asked()).collect();
    owed.extend(late(world, weather).map(|event| key(event, COMING)));
    if !weather.may_rematch() {
        owed.extend(world.target.runs().into_iter().map(|run| run.key));
    }
    owed
}

/// Events that came when every worker had the second revision.
fn late(world: &World, weather: &Weather) -> impl Iterator<Item = usize> {
    let since = world.revisions.changed_at().filter(|_| weather.freezes == 0).map(|at| at + LEARNT_AFTER);
    let published = world.published.lock().unwrap().clone();
    published.into_iter().filter(move |(_, at)| since.is_some_and(|since| *at > since)).map(|(event, _)| event)
}

/// Who is removed leaves letters and no silence, and who is added is not taken for removed. Answers how many there are.
pub(super) fn check_change(world: &World, weather: &Weather) -> usize {
    let records = world.hub.records();
    let removed = records.iter().filter_map(|record| match record {
        Record::Letter(letter) if letter.class == Class::HookRemoved => letter.hook.as_deref(),
        _ => None,
    });
    let removed: Vec<&str> = removed.collect();
    assert!(removed.iter().all(|hook| *hook == LEAVING), "these are not removed: {removed:?}");
    let late: BTreeSet<_> = late(world, weather).map(|event| key(event, LEAVING)).collect();
    let run = world.target.runs().into_iter().find(|run| late.contains(&run.key));
    assert!(run.is_none(), "run by a hook that was removed long before: {run:#?}");
    removed.len()
}

/// Nothing is lost, nothing runs twice at a time, nothing runs again without a reason, and every claim has ended.
pub(super) fn check(world: &World, weather: &Weather) {
    let (runs, open) = (world.target.runs(), open(world));
    let mut by_key: BTreeMap<&InvocationKey, Vec<&Run>> = BTreeMap::new();
    for run in &runs {
        by_key.entry(&run.key).or_default().push(run);
    }
    check_storm(&runs, &open, weather);
    let owed = owed(world, weather);
    for key in &owed {
        let runs = by_key.get(key).map(Vec::as_slice).unwrap_or_default();
        if another_may_have_run(key, runs, weather) {
            continue;
        }
        let done = runs.iter().filter(|run| run.ended.is_some_and(|(_, done)| done)).count();
        assert!(done > 0 || open.contains(&Subject::of(key)), "{key} is lost: {runs:#?}");
        let names: BTreeSet<&String> = runs.iter().map(|run| &run.name).collect();
        let is_gone = runs.is_empty() && key.hook.as_str() == LEAVING;
        assert!(names.len() == 1 || is_gone, "one Idempotency-Key: {names:?}");
        if weather.losses == 0 && weather.freezes == 0 {
            for pair in runs.windows(2) {
                let end = pair[0].ended.map_or(pair[0].began, |(end, _)| end);
                assert!(end <= pair[1].began, "{key} runs twice at a time: {pair:#?}");
            }
        }
        if !weather.may_repeat() {
            assert!(done <= 1, "{key} was done {done} times: {runs:#?}");
            let points: BTreeSet<_> = runs.iter().map(|run| (run.at.generation, run.at.attempt)).collect();
            let ended = runs.iter().filter(|run| run.ended.is_some()).count();
            assert!(ended <= points.len(), "{key} ran an attempt twice: {runs:#?}");
        }
    }
    // A reading on lane `suspect` is over when it is forgotten.
    for (key, claim) in world.shelf.claims().into_iter().filter(|(key, _)| owed.contains(key)) {
        match claim {
            Claim::Decided { .. } => unreachable!("nobody asks gates here"),
            Claim::Done { .. } => assert!(weather.losses > 0 || !open.contains(&Subject::of(&key)), "{key} is done"),
            Claim::Buried { .. } => assert!(open.contains(&Subject::of(&key)), "{key} has no letter"),
            // Its letter is out; only the mark that says so is not.
            Claim::Settled { next, .. } if next.is_bury() => assert!(open.contains(&Subject::of(&key)), "{key}"),
            // Whose hook is gone is buried whatever its claim says; where the store does not answer that stays as it is.
            Claim::Held { .. } | Claim::Settled { .. }
                if key.hook.as_str() == LEAVING && open.contains(&Subject::of(&key)) => {}
            Claim::Held { .. } | Claim::Settled { .. } | Claim::Out { .. } => {
                assert!(weather.losses > 0, "{key} has not ended: {claim:?}");
            }
        }
    }
    if weather.deaths == 0 && weather.cuts == 0 && !weather.may_hang() {
        assert_eq!(world.hub.most_deliveries(), 0, "stopping in order counts as no death");
    }
}

/// Of events that are alike some run, and of those that do none soon after another.
fn check_storm(runs: &[Run], open: &BTreeSet<Subject>, weather: &Weather) {
    let of_storm = |key: &InvocationKey| key.hook.as_str() == STORMY;
    let no_letter = keys().filter(of_storm).all(|key| !open.contains(&Subject::of(&key)));
    let mut first: BTreeMap<&InvocationKey, &Run> = BTreeMap::new();
    for run in runs.iter().filter(|run| of_storm(&run.key)) {
        first.entry(&run.key).or_insert(run);
    }
    assert!(!first.is_empty() || !no_letter, "a whole storm is lost");
    // Who may have begun to run before a death is not asked again, and what was forgotten is nobody's.
    if !weather.may_repeat() {
        let mut begun: Vec<_> = first.values().map(|run| run.began).collect();
        begun.sort_unstable();
        let soon = begun.windows(2).find(|pair| pair[1] - pair[0] < WINDOW / 2);
        assert!(soon.is_none(), "two like events run within a window: {first:#?}");
    }
}

/// A second copy of an event is finished by another event's run where the store has forgotten what the first copy did, and
/// what waits of that one then ends with it.
fn another_may_have_run(key: &InvocationKey, runs: &[&Run], weather: &Weather) -> bool {
    key.hook.as_str() == STORMY && (runs.is_empty() || weather.losses > 0)
}

/// Everything was done, no letter is open, no replay was done twice.
pub(super) fn check_replayed(world: &World, weather: &Weather) {
    assert_eq!(open(world), BTreeSet::new(), "letters stay open");
    let runs = world.target.runs();
    for key in owed(world, weather) {
        let of_key: Vec<&Run> = runs.iter().filter(|run| run.key == key).collect();
        if another_may_have_run(&key, &of_key, weather) {
            continue;
        }
        assert!(of_key.iter().any(|run| run.ended.is_some_and(|(_, done)| done)), "{key} was never done");
        let replays = of_key.iter().filter(|run| run.at.generation > 0).count();
        assert!(replays <= 1 || weather.losses > 0, "{key} was replayed {replays} times: {of_key:#?}");
    }
}
