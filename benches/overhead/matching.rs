//! What it takes to find the hooks that want an event, by how many there are: always three of them do.

use std::hint::black_box;
use std::time::{Duration, Instant};

use hookfleet::catalog::{self, Terms};
use hookfleet::domain::event::{Event, Reading};
use hookfleet::domain::matching::HookSet;
use hookfleet::domain::message::Message;

const ROUNDS: u32 = 7;
const EVENTS: u32 = 200_000;

/// Prints nanoseconds an event for sets of 10 to 100,000 hooks; answers how much slower 10,000 are than 10.
pub(crate) fn run() -> f64 {
    let event = {
        let body =
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"order.paid.card","subject":"o-1","data":{"sum":7}}"#;
        Event::decode(&Message { body: body.into(), ..Message::default() }, &Reading::default()).unwrap()
    };
    let sets: Vec<HookSet> = [10, 1_000, 10_000, 100_000].into_iter().map(|count| hooks(count, "")).collect();
    // In turns, since the machine is shared; the best of each, since others only ever slow it down.
    let mut best = vec![f64::INFINITY; sets.len()];
    for _ in 0..ROUNDS {
        for (set, best) in sets.iter().zip(&mut best) {
            let began = Instant::now();
            for _ in 0..EVENTS {
                assert_eq!(black_box(set).matching(black_box(&event)).hooks.len(), 3);
            }
            *best = best.min(began.elapsed().as_secs_f64() * 1e9 / f64::from(EVENTS));
        }
    }
    for (set, ns) in sets.iter().zip(&best) {
        let (count, ratio) = (set.hooks().len(), ns / best[0]);
        println!("{count:>7} hooks, 3 of which want the event: {ns:.0} ns an event, x{ratio:.2}");
    }
    for asked in [", source: \"/*\", subject: \"o-?\"", ", when: event.data.sum > 5"] {
        asking(&event, asked);
    }
    best[2] / best[0]
}

/// What it costs that each of the three hooks asks for more than a type.
fn asking(event: &Event, asked: &str) {
    const EVENTS: u32 = 20_000;
    let set = hooks(1_000, asked);
    let round = |_| {
        let began = Instant::now();
        for _ in 0..EVENTS {
            assert_eq!(black_box(&set).matching(black_box(event)).hooks.len(), 3);
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(EVENTS)
    };
    let best = (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min);
    println!("   1000 hooks{asked}: {best:.0} ns an event, 3 of which want it");
}

/// So many hooks: one names the event, two take it by a pattern, half of the rest are patterns too.
fn hooks(count: usize, asked: &str) -> HookSet {
    let on = |number: usize| match number {
        0 => "order.paid.card".to_owned(),
        1 => "order.*.card".to_owned(),
        2 => "order.paid.**".to_owned(),
        odd if odd % 2 == 1 => format!("other.kind{number}"),
        _ => format!("group{number}.*"),
    };
    let line = |number| {
        format!("  - {{ id: h{number}, on: \"{}\"{asked}, run: {{ command: {{ argv: [x] }} }} }}\n", on(number))
    };
    // A hooks file has a size; this is about sets that are larger than that.
    let numbers: Vec<usize> = (0..count).collect();
    let parts = numbers.chunks(10_000).map(|part| {
        let text = format!("version: 1\nhooks:\n{}", part.iter().copied().map(line).collect::<String>());
        catalog::parse(
            &text,
            "hooks.yaml",
            &Terms { hint_max: Duration::from_secs(3600), env: &|_| None, egress: &[], callbacks: None },
        )
        .unwrap()
        .hooks
    });
    let hooks = |set: HookSet| set.hooks().iter().map(|hook| (**hook).clone()).collect::<Vec<_>>();
    HookSet::new("bench", parts.flat_map(hooks).collect())
}
