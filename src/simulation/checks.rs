//! What has to be true of a fleet's life.

use std::collections::{BTreeMap, BTreeSet};

use super::chance::Weather;
use super::target::Run;
use super::{EVENTS, STORMY, WINDOW, World, hooks, message};
use crate::domain::claim::Claim;
use crate::domain::dead_letter::{Item, Offset, Subject};
use crate::domain::event::{Event, Reading};
use crate::domain::fold::{Fold, State};
use crate::domain::invocation::InvocationKey;

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

fn keys() -> impl Iterator<Item = InvocationKey> {
    (0..EVENTS).flat_map(|event| {
        let event = Event::decode(&message(event), &Reading::default()).unwrap();
        let hooks = hooks();
        let ids: Vec<_> = hooks.hooks().iter().map(|hook| hook.id.clone()).collect();
        ids.into_iter().map(move |hook| InvocationKey { event: event.digest, hook })
    })
}

/// Nothing is lost, nothing runs twice at a time, nothing runs again without a reason, and every claim has ended.
pub(super) fn check(world: &World, weather: &Weather) {
    let (runs, open) = (world.target.runs(), open(world));
    let mut by_key: BTreeMap<&InvocationKey, Vec<&Run>> = BTreeMap::new();
    for run in &runs {
        by_key.entry(&run.key).or_default().push(run);
    }
    check_storm(&runs, &open, weather);
    for key in keys() {
        let runs = by_key.get(&key).map(Vec::as_slice).unwrap_or_default();
        if another_may_have_run(&key, runs, weather) {
            continue;
        }
        let done = runs.iter().filter(|run| run.ended.is_some_and(|(_, done)| done)).count();
        assert!(done > 0 || open.contains(&Subject::of(&key)), "{key} is lost: {runs:#?}");
        let names: BTreeSet<&String> = runs.iter().map(|run| &run.name).collect();
        assert_eq!(names.len(), 1, "one Idempotency-Key: {names:?}");
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
    let own: BTreeSet<_> = keys().collect(); // a reading on lane `suspect` is over when it is forgotten
    for (key, claim) in world.shelf.claims().into_iter().filter(|(key, _)| own.contains(key)) {
        match claim {
            Claim::Done { .. } => assert!(weather.losses > 0 || !open.contains(&Subject::of(&key)), "{key} is done"),
            Claim::Buried { .. } => assert!(open.contains(&Subject::of(&key)), "{key} has no letter"),
            // Its letter is out; only the mark that says so is not.
            Claim::Settled { next, .. } if next.is_bury() => assert!(open.contains(&Subject::of(&key)), "{key}"),
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
    for key in keys() {
        let of_key: Vec<&Run> = runs.iter().filter(|run| run.key == key).collect();
        if another_may_have_run(&key, &of_key, weather) {
            continue;
        }
        assert!(of_key.iter().any(|run| run.ended.is_some_and(|(_, done)| done)), "{key} was never done");
        let replays = of_key.iter().filter(|run| run.at.generation > 0).count();
        assert!(replays <= 1 || weather.losses > 0, "{key} was replayed {replays} times: {of_key:#?}");
    }
}
