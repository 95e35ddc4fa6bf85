//! Lives of fleets: thousands by dice, and some with a plot.

use super::*;

#[path = "../../tests/it/tiers/sizes.rs"]
#[allow(dead_code, reason = "the integration tests use the rest")]
mod sizes;

#[test]
fn a_seed_is_the_same_every_time() {
    let story = |seed| {
        let Lived { runs, .. } = run(seed);
        let began = runs.first().map(|run| run.began);
        let tell = |run: &Run| format!("{} {:?} {:?}", run.key, run.at, Some(run.began) > began);
        runs.iter().map(tell).collect::<Vec<_>>()
    };
    for seed in 0..50 {
        let (once, again) = (story(seed), story(seed));
        assert_eq!(once.len(), again.len(), "seed {seed}");
        for (number, (once, again)) in once.iter().zip(&again).enumerate() {
            assert_eq!(once, again, "run {number} of seed {seed}");
        }
    }
}

/// Of one event's hooks the quick one gives its permit back while the slow one runs on.
#[tokio::test(start_paused = true)]
async fn a_quick_hook_does_not_wait_for_a_slow_one() {
    fastrand::seed(0);
    let world = World::new(0, Weather::default(), Mutation::None);
    world.target.slow_down("patient");
    let process = world.start();
    for event in 0..3 {
        world.publish(event).await;
        sleep(Duration::from_secs(1)).await;
    }
    let runs = world.target.runs();
    let quick = runs.iter().filter(|run| run.key.hook.as_str() == "narrow" && run.ended.is_some()).count();
    assert_eq!(quick, 3, "{runs:#?}");
    process.die();
}

/// Workers that die every seven seconds, on their own account, bury nobody who was only in their hands.
#[tokio::test(start_paused = true)]
async fn who_is_only_held_by_the_dying_is_not_buried() {
    fastrand::seed(0);
    let world = World::new(0, Weather::default(), Mutation::None);
    world.target.heal();
    world.shelf.leave(Duration::from_mins(5));
    let mut process = world.start();
    world.publish(0).await;
    for _ in 0..40 {
        sleep(Duration::from_secs(7)).await;
        std::mem::replace(&mut process, world.start()).die();
    }
    until_quiet(&world, &[process]).await;
    assert!(world.hub.records().is_empty(), "letters: {:#?}", world.hub.records());
    let done = world.target.runs().iter().filter(|run| run.ended.is_some_and(|(_, done)| done)).count();
    assert_eq!(done, 3, "once for each hook");
    assert!(
        world.hub.most_deliveries() < 8,
        "{} deliveries: the broker would have buried it",
        world.hub.most_deliveries()
    );
}

/// What would be wrong is noticed (its panics are printed). A release that forgets takes more coincidences than the dice
/// have: that one is the model's.
#[test]
fn a_mutation_is_noticed() {
    const SEEDS: u64 = 20_000;
    for mutation in [
        Mutation::AckBeforePublish,
        Mutation::PublishBeforeRecord,
        Mutation::TokenNotCompared,
        Mutation::LowerAttemptRuns,
        Mutation::RevisionNotCompared,
        Mutation::RemovedIsDropped,
    ] {
        let noticed = (0..SEEDS).find(|&seed| std::panic::catch_unwind(|| run_with(seed, mutation)).is_err());
        println!("simulation: {mutation:?} is noticed, as it should be: {noticed:?}");
        assert!(noticed.is_some(), "{mutation:?} goes unnoticed");
    }
}

/// Every second seed of this run from the first one or the one behind it: the two halves run on two threads.
fn half(offset: u8) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("HOOKFLEET_TEST_SEED") {
        Some(seed) if offset == 0 => run_all(std::iter::once(seed)),
        Some(_) => {}
        None => {
            let first = number("HOOKFLEET_TEST_FIRST_SEED").unwrap_or(0);
            let seeds = first..first + sizes::SIMULATED_SEEDS.get();
            println!(
                "simulation: every second seed of {} to {}, from {}",
                seeds.start,
                seeds.end - 1,
                first + u64::from(offset)
            );
            run_all(seeds.skip(usize::from(offset)).step_by(2));
        }
    }
}

#[test]
fn nothing_is_lost_in_one_half_of_the_seeds() {
    half(0);
}

#[test]
fn nothing_is_lost_in_the_other_half_of_the_seeds() {
    half(1);
}
