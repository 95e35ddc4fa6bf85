//! What every [`Idempotency`] does: exactly what [`step`] says, one request at a time, and in time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use hookfleet::domain::claim::{
    Answer, ClaimRequest, DeathLimits, Found, Next, Point, Request, Settlement, Token, Write, step,
};
use hookfleet::domain::dedup_window::{Taken, Window};
use hookfleet::domain::failure::{AttemptReport, Class};
use hookfleet::domain::id::{EventDigest, HookId, InvocationKey};
use hookfleet::idempotency::{Idempotency, value};
use tokio::time::sleep;

/// How many random sequences, and how many of them are under way at a time, so that requests share commits and round trips.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sequences {
    count: u64,
    at_a_time: usize,
}

/// For a store that is an implementation of its own.
pub(crate) const MANY: Sequences = Sequences { count: 100_000, at_a_time: 512 };
/// For one that is the same as another, reached in another way, with several servers that share the machine.
pub(crate) const SOME: Sequences = Sequences { count: 10_000, at_a_time: 64 };
const HOUR_MS: u64 = 3_600_000;
/// What a run of the random sequences takes at most, as far as times to live are concerned.
const RUN_MS_MAX: u64 = 600_000;
/// Stores count in whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);
const DEADLINE: Duration = Duration::from_secs(20);

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The claim, as [`value`] writes it.
    pub(crate) value: String,
    pub(crate) ttl_ms: u64,
}

/// Looks at a key; what has expired is not there.
pub(crate) trait Peek: AsyncFn(&InvocationKey) -> Option<Stored> {}

impl<F: AsyncFn(&InvocationKey) -> Option<Stored>> Peek for F {}

/// Every check. The store may hold other keys.
pub(crate) async fn suite(store: &dyn Idempotency, peek: impl Peek, sequences: Sequences) {
    store.ping().await.expect("ping");
    one_of_many_wins(store).await;
    a_lease_ends(store).await;
    a_renewed_lease_lasts(store, &peek).await;
    a_claim_is_forgotten_after_its_floor(store, &peek).await;
    a_finished_invocation_is_forgotten_after_its_window(store).await;
    a_window_is_one_events(store).await;
    one_decision_is_kept(store).await;
    random_sequences(store, &peek, sequences).await;
}

/// Of many events at once one takes a window; it keeps it however often it asks, and nobody else has it until it is over.
async fn a_window_is_one_events(store: &dyn Idempotency) {
    let seed = fastrand::u64(..).to_string();
    let event = |number: usize| EventDigest::of("/storm", &number.to_string());
    let window = |key: &str, length_ms| Window { digest: EventDigest::of(&seed, key), length_ms };
    let taking = (0..20).map(|number| {
        let window = window("long", HOUR_MS);
        async move { store.take(&window, event(number), HOUR_MS).await.expect("an answer") }
    });
    let taken: Vec<Taken> = stream::iter(taking).buffered(20).collect().await;
    let owners: Vec<usize> = (0..20).filter(|&number| taken[number] == Taken::Ours).collect();
    let [owner] = owners.as_slice() else { panic!("one of them takes it: {owners:?}") };
    for _ in 0..2 {
        assert_eq!(store.take(&window("long", HOUR_MS), event(*owner), HOUR_MS).await, Ok(Taken::Ours));
        assert_eq!(store.take(&window("long", HOUR_MS), event(owner + 1), HOUR_MS).await, Ok(Taken::Anothers));
    }
    let another = store.take(&window("another", HOUR_MS), event(owner + 1), HOUR_MS).await;
    assert_eq!(another, Ok(Taken::Ours), "of another key");

    // Asking again makes it no longer.
    let short = window("short", 500);
    assert_eq!(store.take(&short, event(0), HOUR_MS).await, Ok(Taken::Ours));
    let (began, longer) = (Instant::now(), window("short", HOUR_MS));
    while store.take(&longer, event(1), HOUR_MS).await == Ok(Taken::Anothers) {
        assert!(began.elapsed() < DEADLINE, "a window that is over is another's");
        let _ = store.take(&short, event(0), HOUR_MS).await.expect("an answer");
        sleep(Duration::from_millis(20)).await;
    }
    // It was another's in between, and this one's run had begun.
    assert_eq!(store.take(&short, event(0), HOUR_MS).await, Ok(Taken::Ours), "remembered");
    assert_eq!(store.take(&short, event(2), HOUR_MS).await, Ok(Taken::Anothers), "the window is still event 1's");

    // What is remembered is forgotten after its time.
    let (brief, began) = (window("brief", 1), Instant::now());
    assert_eq!(store.take(&brief, event(0), 1).await, Ok(Taken::Ours));
    let long = Window { length_ms: HOUR_MS, ..brief };
    while store.take(&long, event(1), 1).await == Ok(Taken::Anothers) {
        assert!(began.elapsed() < DEADLINE, "a window that is over is another's");
        sleep(Duration::from_millis(20)).await;
    }
    while store.take(&long, event(0), 1).await == Ok(Taken::Ours) {
        assert!(began.elapsed() < DEADLINE, "it is not remembered for ever");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Of many decisions under one key one is kept, for as long as it was to be, and everybody is told that one.
async fn one_decision_is_kept(store: &dyn Idempotency) {
    let recall = async |key: &InvocationKey| store.ask(key, &Request::Recall).await.expect("an answer");
    let decide = async |key: &InvocationKey, run: u64, keep_ms| {
        let decision = format!("{{\"run\": {run},\n \"reason\": \"ü ' \\\" %d\"}}");
        store.ask(key, &Request::Decide { token: token(run), decision, keep_ms }).await.expect("an answer")
    };
    let (on, another, short) = (fresh("decided"), fresh("another"), fresh("short"));
    assert_eq!(recall(&on).await, Answer::NotYours);
    won(store, &on, &claim(7, HOUR_MS, HOUR_MS), false).await;
    assert_eq!(recall(&on).await, Answer::NotYours, "held, not decided");
    let told: Vec<Answer> =
        stream::iter(0..50).map(|run| decide(&on, run, HOUR_MS)).buffer_unordered(50).collect().await;
    assert!(told.iter().all(|answer| *answer == told[0]), "{told:?}");
    assert!(matches!(told[0], Answer::Decided { .. }), "{told:?}");
    assert_eq!(recall(&on).await, told[0]);
    assert_eq!(store.ask(&on, &claim(8, HOUR_MS, HOUR_MS)).await, Ok(told[0].clone()), "whoever claims it is told");
    assert_eq!(recall(&another).await, Answer::NotYours);

    decide(&short, 1, 100).await;
    let began = Instant::now();
    while recall(&short).await != Answer::NotYours {
        assert!(began.elapsed() < DEADLINE, "it is kept for ever");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(decide(&short, 2, HOUR_MS).await, Answer::Decided { token: by, .. } if by == token(2)));
}

/// `HOOKFLEET_SEED` repeats a failed sequence as the first one.
async fn random_sequences(store: &dyn Idempotency, peek: &impl Peek, size: Sequences) {
    let base = match std::env::var("HOOKFLEET_SEED") {
        Ok(seed) => seed.parse().expect("HOOKFLEET_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    let sequences = (0..size.count).map(|n| sequence(store, peek, base.wrapping_add(n)));
    let seen: BTreeSet<&str> =
        stream::iter(sequences).buffer_unordered(size.at_a_time).flat_map(stream::iter).collect().await;
    let all = [
        "busy",
        "cancelled",
        "decided",
        "done",
        "not yours",
        "ok",
        "resume",
        "superseded",
        "suspect",
        "taken over",
        "won",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all, "answers that were given, base seed {base}");
}

/// What the model knows of one key.
#[derive(Default)]
struct Model {
    found: Option<Found>,
    ttl_ms: u64,
}

/// Some requests on two keys of its own, each compared with the model. Returns the kinds of answers.
async fn sequence(store: &dyn Idempotency, peek: &impl Peek, seed: u64) -> Vec<&'static str> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let keys = [key(seed, "first"), key(seed, "second")];
    let mut models = [Model::default(), Model::default()];
    let mut kinds = Vec::new();
    for number in 0..rng.usize(3..12) {
        let at = rng.usize(0..keys.len());
        let (key, model) = (&keys[at], &mut models[at]);
        let request = request(&mut rng);
        let expected = step(model.found.as_ref(), &request);
        let answer = store.ask(key, &request).await.expect("an answer");
        let told = || format!("HOOKFLEET_SEED={seed}, request {number}: {request:?} on {:?}", model.found);
        assert!(agree(&answer, &expected.answer), "{}\n expected {:?}\n found {answer:?}", told(), expected.answer);
        kinds.push(kind(&answer));
        if let Some(write) = expected.write {
            model.apply(&request, write);
        }
        let stored = peek(key).await;
        assert!(model.agrees(stored.as_ref()), "HOOKFLEET_SEED={seed}, after request {number}: found {stored:?}");
    }
    kinds
}

impl Model {
    /// Leases here are nothing or an hour, so that none ends on the way.
    fn apply(&mut self, request: &Request, Write { claim, ttl_ms }: Write) {
        let lease_left_ms = match request {
            Request::Claim(ClaimRequest { lease_ms, .. }) | Request::Renew { lease_ms, .. } => *lease_ms,
            Request::Settle { .. }
            | Request::Advance { .. }
            | Request::Release { .. }
            | Request::Cancel { .. }
            | Request::Decide { .. }
            | Request::Recall => 0,
        };
        *self = Self { found: Some(Found { claim, lease_left_ms }), ttl_ms };
    }

    fn agrees(&self, stored: Option<&Stored>) -> bool {
        match (&self.found, stored) {
            (None, None) => true,
            (Some(found), Some(stored)) => {
                stored.value == value::encode(&found.claim) && stored.ttl_ms.abs_diff(self.ttl_ms) <= RUN_MS_MAX
            }
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// Equal, but for the time that has passed.
fn agree(found: &Answer, expected: &Answer) -> bool {
    match (found, expected) {
        (Answer::Busy { lease_left_ms: found }, Answer::Busy { lease_left_ms: expected }) => {
            found <= expected && found + RUN_MS_MAX >= *expected
        }
        _ => found == expected,
    }
}

fn kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Won { taken_over: false, .. } => "won",
        Answer::Won { taken_over: true, .. } => "taken over",
        Answer::Done { .. } => "done",
        Answer::Superseded => "superseded",
        Answer::Busy { .. } => "busy",
        Answer::Resume { .. } => "resume",
        Answer::Suspect { .. } => "suspect",
        Answer::Ok => "ok",
        Answer::NotYours => "not yours",
        Answer::Cancelled { .. } => "cancelled",
        Answer::Decided { .. } => "decided",
    }
}

fn request(rng: &mut fastrand::Rng) -> Request {
    let at = Point { generation: [0, 0, 0, 1, 1, 2][rng.usize(0..6)], attempt: rng.u32(1..=3) };
    let token = Token { run: rng.u64(1..=3), body: rng.u32(0..2) };
    let keep_ms = HOUR_MS * rng.u64(1..=3);
    let lease_ms = if rng.bool() { HOUR_MS } else { 0 }; // over at once
    let deaths = [0, 0, 0, 1, 2, 4][rng.usize(0..6)];
    match rng.u8(0..22) {
        0..=9 => Request::Claim(ClaimRequest {
            at,
            token,
            deaths,
            forced: [0, 0, 0, 1, 2][rng.usize(0..5)],
            in_suspect: rng.u8(0..3) == 0,
            limits: if rng.bool() { DeathLimits::default() } else { DeathLimits { suspect: 1, poisoned: 3 } },
            lease_ms,
            floor_ms: keep_ms,
        }),
        10..=13 => Request::Settle { at, token, deaths, settlement: settlement(rng), keep_ms },
        14..=15 => Request::Advance { at, token, keep_ms },
        16..=17 => Request::Renew { token, lease_ms },
        18 => Request::Release { token, keep_ms },
        19 => Request::Decide { token, decision: ["", "{}", "a  b\n%"][rng.usize(0..3)].to_owned(), keep_ms },
        20 => Request::Recall,
        _ => Request::Cancel { generation: at.generation, keep_ms },
    }
}

fn settlement(rng: &mut fastrand::Rng) -> Settlement {
    let report = rng.bool().then(|| AttemptReport {
        generation: 0,
        attempt: 1,
        at_ms: 1_700_000_000_000,
        took_ms: 20,
        status: rng.bool().then_some(500),
        tries: rng.u32(1..4),
        error: ["", "500 from the \"target\"", "ünïcödé\n{}\\"][rng.usize(0..3)].to_owned(),
    });
    match rng.u8(0..3) {
        0 => Settlement::Done,
        1 => Settlement::Next(Next::Retry { delay_ms: rng.u64(0..HOUR_MS), spent_ms: rng.u64(0..HOUR_MS), report }),
        _ => Settlement::Next(Next::Bury { class: Class::Exhausted, report }),
    }
}

async fn one_of_many_wins(store: &dyn Idempotency) {
    let key = fresh("many");
    let requests: Vec<Request> = (0..64).map(|run| claim(run, HOUR_MS, HOUR_MS)).collect();
    let answers = requests.iter().map(|request| store.ask(&key, request));
    let answers = futures_util::future::join_all(answers).await;
    let won = answers.iter().filter(|answer| matches!(answer, Ok(Answer::Won { .. }))).count();
    let busy = answers.iter().filter(|answer| matches!(answer, Ok(Answer::Busy { .. }))).count();
    assert_eq!((won, busy), (1, 63));
}

async fn a_lease_ends(store: &dyn Idempotency) {
    let (key, lease) = (fresh("lease"), Duration::from_millis(300));
    let start = Instant::now();
    won(store, &key, &claim(1, 300, HOUR_MS), false).await;
    let answer = store.ask(&key, &claim(2, 300, HOUR_MS)).await.unwrap();
    assert!(matches!(answer, Answer::Busy { lease_left_ms: 1..=300 }), "{answer:?}");
    let answer = until_not_busy(store, &key, &claim(2, 300, HOUR_MS)).await;
    assert_eq!(answer, Answer::Won { deaths: 1, taken_over: true });
    assert!(start.elapsed() + ROUNDING >= lease, "{:?}", start.elapsed());
    // The first owner learns of it.
    let renewed = store.ask(&key, &Request::Renew { token: token(1), lease_ms: 300 }).await.unwrap();
    assert_eq!(renewed, Answer::NotYours);
}

async fn a_renewed_lease_lasts(store: &dyn Idempotency, peek: &impl Peek) {
    let (key, lease) = (fresh("renewed"), Duration::from_millis(900));
    won(store, &key, &claim(1, 200, HOUR_MS), false).await;
    let start = Instant::now();
    let renew = Request::Renew { token: token(1), lease_ms: 900 };
    assert_eq!(store.ask(&key, &renew).await.unwrap(), Answer::Ok);
    let ttl_ms = peek(&key).await.expect("held").ttl_ms;
    assert!((HOUR_MS..=HOUR_MS + 900).contains(&ttl_ms), "the floor is kept: {ttl_ms}");
    let answer = until_not_busy(store, &key, &claim(2, 200, HOUR_MS)).await;
    assert_eq!(answer, Answer::Won { deaths: 1, taken_over: true });
    assert!(start.elapsed() + ROUNDING >= lease, "{:?}", start.elapsed());
}

async fn a_claim_is_forgotten_after_its_floor(store: &dyn Idempotency, peek: &impl Peek) {
    let (key, start) = (fresh("floor"), Instant::now());
    won(store, &key, &claim(1, 100, 400), false).await;
    while peek(&key).await.is_some() {
        assert!(start.elapsed() < DEADLINE);
        sleep(Duration::from_millis(10)).await;
    }
    assert!(start.elapsed() + ROUNDING >= Duration::from_millis(500), "{:?}", start.elapsed());
    sleep(Duration::from_millis(20)).await; // those who look may have a clock of their own
    won(store, &key, &claim(2, 100, 400), false).await; // as if it had never been
}

async fn a_finished_invocation_is_forgotten_after_its_window(store: &dyn Idempotency) {
    let (key, at) = (fresh("window"), Point::first(0));
    won(store, &key, &claim(1, HOUR_MS, HOUR_MS), false).await;
    let start = Instant::now();
    let settle = Request::Settle { at, token: token(1), deaths: 0, settlement: Settlement::Done, keep_ms: 300 };
    assert_eq!(store.ask(&key, &settle).await.unwrap(), Answer::Ok);
    loop {
        let answer = store.ask(&key, &claim(2, HOUR_MS, HOUR_MS)).await.unwrap();
        if answer == (Answer::Won { deaths: 0, taken_over: false }) {
            break;
        }
        assert_eq!(answer, Answer::Done { token: token(1) });
        assert!(start.elapsed() < DEADLINE);
        sleep(Duration::from_millis(10)).await;
    }
    assert!(start.elapsed() + ROUNDING >= Duration::from_millis(300), "{:?}", start.elapsed());
}

async fn won(store: &dyn Idempotency, key: &InvocationKey, request: &Request, taken_over: bool) {
    let answer = store.ask(key, request).await.unwrap();
    assert_eq!(answer, Answer::Won { deaths: 0, taken_over });
}

async fn until_not_busy(store: &dyn Idempotency, key: &InvocationKey, request: &Request) -> Answer {
    let start = Instant::now();
    loop {
        let answer = store.ask(key, request).await.unwrap();
        if !matches!(answer, Answer::Busy { .. }) {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE);
        sleep(Duration::from_millis(10)).await;
    }
}

fn claim(run: u64, lease_ms: u64, floor_ms: u64) -> Request {
    Request::Claim(ClaimRequest {
        at: Point::first(0),
        token: token(run),
        deaths: 0,
        forced: 0,
        in_suspect: false,
        limits: DeathLimits::default(),
        lease_ms,
        floor_ms,
    })
}

fn token(run: u64) -> Token {
    Token { run, body: 0 }
}

fn key(seed: u64, hook: &str) -> InvocationKey {
    InvocationKey { event: EventDigest::of("/random", &seed.to_string()), hook: HookId::new(hook).unwrap() }
}

/// A key that no other run of these tests uses.
fn fresh(hook: &str) -> InvocationKey {
    key(fastrand::u64(..), hook)
}

/// A claim by a former owner is taken over at once: for stores that die with their owner.
pub(crate) async fn a_former_owners_lease_is_over(
    before: Arc<dyn Idempotency>,
    reopen: impl AsyncFn() -> Arc<dyn Idempotency>,
) {
    let (held, done) = (fresh("held"), fresh("done"));
    won(&*before, &held, &claim(1, HOUR_MS, HOUR_MS), false).await;
    let at = Point::first(0);
    let settle = Request::Settle { at, token: token(1), deaths: 0, settlement: Settlement::Done, keep_ms: HOUR_MS };
    assert_eq!(before.ask(&done, &settle).await.unwrap(), Answer::Ok);
    drop(before);
    let after = reopen().await;
    let answer = after.ask(&held, &claim(2, HOUR_MS, HOUR_MS)).await.unwrap();
    assert_eq!(answer, Answer::Won { deaths: 1, taken_over: true });
    let answer = after.ask(&held, &claim(3, HOUR_MS, HOUR_MS)).await.unwrap();
    assert!(matches!(answer, Answer::Busy { .. }), "{answer:?}");
    let answer = after.ask(&done, &claim(2, HOUR_MS, HOUR_MS)).await.unwrap();
    assert_eq!(answer, Answer::Done { token: token(1) });
}
