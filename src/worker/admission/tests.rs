use super::*;
use crate::domain::failure::Class;
use crate::domain::flow::Rate;
use crate::domain::hook::fixture::hook;
use crate::domain::hook::{Action, HttpAction, OnFailure};
use crate::domain::outcome::{Again, Failure};
use crate::domain::template::{Form, Piece, Text};
use crate::flow::local::LocalFlow;

fn admission(lane: usize, waiting: usize) -> Admission {
    let breaker = BreakerPolicy { failures: 3, share: 1.0, window: Duration::from_secs(30) };
    Admission::new(&Limits { lane, waiting, unproven: lane, gates: 1, breaker }, Arc::new(LocalFlow::default()))
}

fn narrow(id: &str, concurrency: usize) -> Hook {
    Hook { concurrency, ..hook(id) }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

#[tokio::test(start_paused = true)]
async fn a_saturated_hook_waits_and_others_go_on() {
    let admission = admission(10, 1);
    let (slow, quick) = (admission.gate(&narrow("slow", 1)), admission.gate(&narrow("quick", 1)));
    let first = admission.admit(&slow, false, soon()).await.unwrap();
    let (waiting, turned_away, other) = tokio::join!(
        async {
            let began = Instant::now();
            (admission.admit(&slow, false, soon()).await.err(), began.elapsed())
        },
        admission.admit(&slow, false, soon()),
        admission.admit(&quick, false, soon()),
    );
    assert_eq!(waiting, (Some(Elsewhere::Overflow), Duration::from_secs(5))); // held as long as one may
    assert_eq!(turned_away.err(), Some(Elsewhere::Overflow)); // no place to wait
    assert!(other.is_ok());
    drop(first);
    assert!(admission.admit(&slow, false, soon()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lane_has_a_bound_of_its_own() {
    let admission = admission(1, 1);
    let slow_lane = Hook { lane: HookLane::Slow, ..hook("c") };
    let [a, b, c] = [hook("a"), hook("b"), slow_lane].map(|hook| admission.gate(&hook));
    let first = admission.admit(&a, false, soon()).await;
    assert!(first.is_ok());
    assert!(admission.admit(&b, false, Instant::now()).await.is_err());
    assert!(admission.admit(&c, false, Instant::now()).await.is_ok());
}

/// Half of a lane may be filled by runs that go on for long; then their hooks get no more.
#[tokio::test(start_paused = true)]
async fn long_runs_leave_room_for_others() {
    let admission = admission(4, 4);
    let (hanging, quick) = (admission.gate(&hook("hanging")), admission.gate(&hook("quick")));
    let mut runs = Vec::new();
    for _ in 0..2 {
        runs.push(admission.admit(&hanging, false, soon()).await.unwrap());
    }
    runs.iter().for_each(Permit::is_long);
    assert_eq!(admission.admit(&hanging, false, soon()).await.err(), Some(Elsewhere::Overflow));
    assert!(admission.admit(&quick, false, soon()).await.is_ok());
    runs.pop();
    assert!(admission.admit(&hanging, false, soon()).await.is_ok());
}

/// Targets that have not done well share a part of their lane, however many they are.
#[tokio::test(start_paused = true)]
async fn dead_targets_leave_room_for_others() {
    let breaker = BreakerPolicy { failures: 100, share: 1.0, window: Duration::from_secs(30) };
    let admission =
        Admission::new(&Limits { lane: 8, waiting: 4, unproven: 4, gates: 1, breaker }, Arc::new(LocalFlow::default()));
    let at = |id: &str| admission.gate(&Hook { identity: id.to_owned(), ..hook(id) });
    let (well, dead, more) = (at("well"), at("dead"), at("more"));
    let run = async |gate, outcome| {
        let permit = admission.admit(gate, false, soon()).await.unwrap();
        admission.ended(&permit, &outcome);
    };
    let at_a_time = async |gates: &[&Arc<Gate>]| {
        let mut runs = Vec::new();
        for gate in gates.iter().cycle().take(8) {
            runs.extend(admission.admit(gate, false, soon()).await);
        }
        runs
    };
    run(&well, Outcome::Done).await;
    let mut dead_runs = at_a_time(&[&dead, &more]).await;
    assert_eq!(dead_runs.len(), 4);
    assert_eq!(admission.admit(&dead, false, soon()).await.err(), Some(Elsewhere::Overflow));
    let well_runs = at_a_time(&[&well]).await.len();
    assert_eq!(well_runs, 4);
    // Who has waited in overflow waits on.
    let freed = async {
        sleep(Duration::from_millis(1)).await;
        dead_runs.clear();
    };
    let (waited, ()) = tokio::join!(admission.admit(&dead, true, soon()), freed);
    assert!(waited.is_ok());
    drop(waited);
    // One success proves a target, three failures in a row take that back.
    run(&dead, Outcome::Done).await;
    for (failures, expected) in [(0, 8), (2, 8), (1, 4)] {
        for _ in 0..failures {
            run(&dead, Outcome::later("503")).await;
        }
        assert_eq!(at_a_time(&[&dead]).await.len(), expected, "after {failures} failures more");
    }
    // A run that no longer holds its delivery no longer counts.
    let runs = at_a_time(&[&dead]).await;
    runs.iter().take(2).for_each(Permit::is_long);
    assert_eq!(at_a_time(&[&more]).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rate_spreads_runs_evenly() {
    let admission = admission(100, 100);
    let gate = admission.gate(&Hook { rate: Rate::new(50, Duration::from_secs(1)), ..hook("h") });
    let began = Instant::now();
    let runs =
        (0..100).map(|_| async { admission.admit(&gate, false, soon()).await.map(|_| began.elapsed().as_millis()) });
    let mut at: Vec<u128> = futures_util::future::join_all(runs).await.into_iter().map(Result::unwrap).collect();
    at.sort_unstable();
    assert!((1900..2100).contains(&at[99]), "{at:?}");
    assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 15), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_fleet_is_kept() {
    let admission = admission(100, 100);
    let gate = admission.gate(&Hook { concurrency_fleet: Some(2), ..hook("h") });
    let first = admission.admit(&gate, false, soon()).await.unwrap();
    let _second = admission.admit(&gate, false, soon()).await.unwrap();
    assert_eq!(admission.admit(&gate, false, soon()).await.err(), Some(Elsewhere::Overflow));
    drop(first);
    assert!(admission.admit(&gate, false, soon()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_broken_target_is_probed_by_one() {
    let admission = admission(100, 100);
    let gate = admission.gate(&hook("h"));
    for _ in 0..3 {
        let permit = admission.admit(&gate, false, soon()).await.unwrap();
        admission.ended(&permit, &Outcome::later("503"));
    }
    let parked = admission.admit(&gate, false, soon()).await.err();
    assert_eq!(parked, Some(Elsewhere::Parked(Duration::from_secs(2))));
    assert_eq!(admission.broken().len(), 1);
    sleep(Duration::from_secs(2)).await;
    let probe = admission.admit(&gate, false, soon()).await.unwrap();
    assert!(matches!(admission.admit(&gate, false, soon()).await, Err(Elsewhere::Parked(_))));
    admission.ended(&probe, &Outcome::Done);
    assert!(admission.admit(&gate, false, soon()).await.is_ok());
    assert!(admission.broken().is_empty());
}

/// Passing a gate over is a decision, so that its own attempts have to have failed.
#[tokio::test(start_paused = true)]
async fn a_gate_is_asked_until_its_own_attempts_fail() {
    let admission = admission(100, 100);
    let at = |id: &str, mode| admission.gate(&Hook { mode, identity: "one".to_owned(), ..hook(id) });
    let (observer, gate) = (at("observer", Mode::Observe), at("gate", Mode::Gate(OnFailure::Open)));
    let run = async |gate: &Arc<Gate>, outcome: &Outcome| {
        let permit = admission.admit(gate, true, soon()).await?;
        admission.ended(&permit, outcome);
        Ok::<_, Elsewhere>(())
    };
    let (failed, parked) = (Outcome::later("reset"), Err(Elsewhere::Parked(Duration::from_secs(2))));
    for _ in 0..3 {
        run(&observer, &failed).await.unwrap();
    }
    assert_eq!(run(&observer, &failed).await, parked);
    for outcome in [&failed, &failed, &Outcome::Done, &failed, &failed, &Outcome::Interrupted, &failed] {
        assert_eq!(run(&gate, outcome).await, Ok(()), "two failures in a row are no reason");
        assert_eq!(run(&observer, &failed).await, parked, "what the gate hears says nothing of others");
    }
    assert!(gate.status().parked);
    assert_eq!(run(&gate, &Outcome::Done).await, parked, "three are");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(run(&gate, &Outcome::Done).await, Ok(()), "it probes");
    assert!(admission.broken().is_empty());
}

/// A probe that ends without an outcome leaves the target to another.
#[tokio::test(start_paused = true)]
async fn an_interrupted_probe_is_none() {
    let admission = admission(100, 100);
    let gate = admission.gate(&hook("h"));
    for _ in 0..3 {
        let permit = admission.admit(&gate, false, soon()).await.unwrap();
        admission.ended(&permit, &Outcome::later("503"));
    }
    sleep(Duration::from_secs(2)).await;
    let probe = admission.admit(&gate, false, soon()).await.unwrap();
    admission.ended(&probe, &Outcome::Interrupted);
    drop(probe);
    let parked = admission.admit(&gate, false, soon()).await.err();
    assert_eq!(parked, Some(Elsewhere::Parked(Duration::from_secs(2))));
}

fn answered(status: i32, again: Again) -> Outcome {
    Outcome::Failed(Failure::new(again, Some(status), ""))
}

/// Half as many of all hooks that call it, and all again when it has said nothing for a while.
#[tokio::test(start_paused = true)]
async fn an_overloaded_target_gets_fewer_runs() {
    let admission = Arc::new(admission(100, 1));
    let at = |id: &str, concurrency| admission.gate(&Hook { identity: "one".to_owned(), ..narrow(id, concurrency) });
    let (wide, other) = (at("wide", 8), at("other", 2));
    let keeping = tokio::spawn({
        let admission = Arc::clone(&admission);
        async move { admission.keep(Card::default).await }
    });
    let at_a_time = async |gate: &Arc<Gate>| {
        let mut runs = Vec::new();
        while let Ok(permit) = admission.admit(gate, false, Instant::now()).await {
            runs.push(permit);
        }
        runs
    };
    let runs = at_a_time(&wide).await;
    assert_eq!(runs.len(), 8);
    for run in &runs {
        admission.ended(run, &answered(429, Again::Later(None)));
        admission.ended(run, &Outcome::Done); // the breaker stays closed
    }
    let narrowed = |gate: &Gate| gate.status().narrowed_to;
    assert_eq!((narrowed(&wide), narrowed(&other)), (Some(4), Some(1)), "one cut, since all of them began before it");
    drop(runs);
    let (wide_now, other_now) = (at_a_time(&wide).await.len(), at_a_time(&other).await.len());
    assert_eq!((wide_now, other_now), (4, 1));
    assert_eq!(at("new", 6).status().narrowed_to, Some(3));
    sleep(Duration::from_secs(12)).await;
    assert_eq!((narrowed(&wide), at_a_time(&wide).await.len()), (None, 8));
    keeping.abort();
}

/// Its hook is parked; where the URL depends on the event, that says nothing of others.
#[tokio::test(start_paused = true)]
async fn a_target_that_is_gone_parks_its_hook() {
    let admission = admission(100, 100);
    let to = |id: &str, url: &str| {
        let mut action = HttpAction::plain("http://a.example/".parse().unwrap(), &[]);
        action.text = Text::new(vec![Piece::Literal(url.to_owned())], Form::Url).unwrap();
        Hook { action: Action::Http(action), identity: id.to_owned(), ..hook(id) }
    };
    for (id, url, parked) in [
        ("one", "http://a.example/", Some(Elsewhere::Parked(Duration::from_secs(256)))),
        ("many", "http://a.example/{{ event.data.path }}", None),
    ] {
        let gate = admission.gate(&to(id, url));
        let permit = admission.admit(&gate, false, soon()).await.unwrap();
        admission.ended(&permit, &answered(410, Again::Never(Class::Rejected)));
        assert_eq!(admission.admit(&gate, false, soon()).await.err(), parked, "{id}");
    }
}

/// Case D6: hooks that the catalog has no more, and their targets, are kept while anything is under way and for a while.
#[tokio::test(start_paused = true)]
async fn d6_what_is_gone_is_forgotten() {
    const AFTER: Duration = Duration::from_mins(10);
    let admission = admission(10, 1);
    let at = |id: &str| admission.gate(&Hook { identity: format!("at {id}"), ..hook(id) });
    let catalog = HookSet::new("r1", vec![hook("kept")]);
    let known = |expected: &[&str]| {
        admission.forget(&catalog, AFTER);
        let hooks: Vec<String> = admission.hooks().into_iter().map(|status| status.hook).collect();
        assert_eq!(hooks, expected);
        for id in ["kept", "gone", "running", "broken"] {
            assert_eq!(admission.knows("hook", id), expected.contains(&id), "{id}");
            let is_open = id == "broken";
            assert_eq!(admission.knows("target", &format!("at {id}")), expected.contains(&id) || is_open, "{id}");
        }
    };
    drop((at("kept"), at("gone")));
    let running = admission.admit(&at("running"), false, soon()).await.unwrap();
    let broken = at("broken");
    for _ in 0..3 {
        let permit = admission.admit(&broken, false, soon()).await.unwrap();
        admission.ended(&permit, &Outcome::later("503"));
    }
    drop(broken);
    known(&["broken", "gone", "kept", "running"]);
    tokio::time::advance(AFTER / 2).await;
    drop(at("gone"));
    tokio::time::advance(AFTER / 2).await;
    known(&["gone", "kept", "running"]);
    drop(running);
    tokio::time::advance(AFTER).await;
    known(&["kept"]);
}
