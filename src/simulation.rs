//! The pipeline in a simulated world: real workers on paused time, broker, store, log and targets in memory, and faults
//! by seeded dice. A seed is a whole fleet's life, in milliseconds.
//!
//! `HOOKFLEET_TEST_SEED=7` runs seed 7 alone, with the log of the workers.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a failing seed has to be named")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::broker::hasty::Hasty;
use crate::broker::{Broker, Wanted};
use crate::config::WhenAway;
use crate::dead_letters::DeadLetters;
use crate::domain::browse::{Filter, States};
use crate::domain::event::Reading;
use crate::domain::flow::BreakerPolicy;
use crate::domain::hook::HookLane;
use crate::domain::message::{Destination, Message, Outgoing, Queue};
use crate::domain::mutation::Mutation;
use crate::fleet::{Fleet, Halts};
use crate::flow::local::LocalFlow;
use crate::operations::Operations;
use crate::operations::replay::Manner;
use crate::worker::admission::{Admission, Limits};
use crate::worker::store::Store;
use crate::worker::{InFlight, Rules, Worker, no_listener};
use chance::{Chance, Weather};
use checks::{check, check_change, check_replayed};
use claims::{Claims, Shelf};
use hub::{Hub, Port};
use mutants::{Forgetful, protocol};
use process::Life;
use revisions::{LEARNT_AFTER, Revision, Revisions};
use target::{Caller, Run, Target};

mod chance;
mod checks;
mod claims;
mod hub;
mod mutants;
mod process;
mod revisions;
mod target;
mod tests;

const WORKERS: usize = 3;
const EVENTS: usize = 8;
/// Events and faults come within this time.
const STORM: Duration = Duration::from_secs(40);
/// Longer than any worker stands still.
const FREEZE_MAX: Duration = Duration::from_secs(90);
/// The fleet is quiet again by then.
const PATIENCE: Duration = Duration::from_hours(6);

/// What all processes reach.
struct World {
    chance: Arc<Chance>,
    hub: Arc<Hub>,
    shelf: Arc<Shelf>,
    target: Arc<Target>,
    revisions: Revisions,
    /// When each event was published first.
    published: Mutex<BTreeMap<usize, Instant>>,
    mutation: Mutation,
}

/// A worker process.
struct Process {
    life: Life,
    port: Arc<Port>,
    stop: oneshot::Sender<()>,
    work: JoinHandle<Vec<String>>,
}

/// The message of an event.
fn message(event: usize) -> Message {
    let body = format!(r#"{{"specversion":"1.0","id":"{event}","source":"/sim","type":"a.b"}}"#);
    Message { body: body.into(), ..Message::default() }
}

impl World {
    fn new(seed: u64, weather: Weather, mutation: Mutation) -> Self {
        let chance = Arc::new(Chance::new(seed, weather));
        let begin = if weather.changes > 0 { Revision::First } else { Revision::Only };
        Self {
            mutation,
            hub: Hub::new(Arc::clone(&chance)),
            shelf: Shelf::new(Arc::clone(&chance), mutation),
            target: Target::new(Arc::clone(&chance)),
            revisions: Revisions::new(begin, Arc::clone(&chance)),
            published: Mutex::default(),
            chance,
        }
    }

    fn start(&self) -> Process {
        let life = Life::default();
        let port = self.hub.connect(life.clone());
        let (catalog, halt) = self.revisions.follow(life.clone());
        let limits = Limits {
            gates: 1,
            lane: 8,
            waiting: 2,
            unproven: 4,
            breaker: BreakerPolicy { failures: 6, share: 1.0, window: Duration::from_secs(30) },
        };
        let worker = Worker {
            broker: self.broker(&port),
            store: Store::new(Arc::new(Claims { shelf: Arc::clone(&self.shelf), life: life.clone() })),
            letters: self.letters(&port),
            executors: Arc::new(Caller { target: Arc::clone(&self.target), life: life.clone() }),
            catalog,
            admission: Arc::new(Admission::new(&limits, Arc::new(LocalFlow::default()))),
            metrics: Arc::default(),
            rules: Rules {
                gate_deadline: Duration::from_secs(30),
                reading: Reading::default(),
                hold: Duration::from_secs(5),
                lanes: [true; HookLane::ALL.len()],
                lease: Duration::from_secs(30),
                window: Duration::from_hours(24),
                retention: Duration::from_hours(24),
                when_away: WhenAway::Hold,
                payloads: None,
                protocol: protocol(self.mutation),
            },
            interrupt: CancellationToken::new(),
            tasks: tokio_util::task::TaskTracker::new(),
            in_flight: InFlight::default(),
            listener: Arc::new(no_listener()),
        };
        let wanted = Queue::ALL.map(|queue| Wanted { queue, prefetch: 6, bytes: usize::MAX }).to_vec();
        let halts = Halts { catalog: halt, ..Halts::never() };
        let fleet =
            Fleet { worker: Arc::new(worker), wanted, waits_for_store: true, halts, grace: Duration::from_secs(20) };
        let (stop, stopped) = oneshot::channel::<()>();
        let work = tokio::spawn(fleet.run(async {
            let _ = stopped.await;
        }));
        Process { life, port, stop, work }
    }

    fn broker(&self, port: &Arc<Port>) -> Arc<dyn Broker> {
        let port = Arc::clone(port);
        if self.mutation == Mutation::AckBeforePublish { Arc::new(Hasty(port)) } else { port }
    }

    fn letters(&self, port: &Arc<Port>) -> Arc<dyn DeadLetters> {
        let port = Arc::clone(port);
        if self.mutation == Mutation::RemovedIsDropped { Arc::new(Forgetful(port)) } else { port }
    }

    /// A publisher that repeats until it is confirmed, and may be told so in vain.
    async fn publish(&self, event: usize) {
        self.published.lock().unwrap().entry(event).or_insert_with(Instant::now);
        let publisher = self.hub.connect(Life::default());
        let outgoing = Outgoing { to: Destination::Events, delay: Duration::ZERO, message: message(event) };
        while publisher.publish(outgoing.clone()).await.is_err() {}
    }
}

impl Process {
    fn die(self) {
        self.life.end();
        self.port.cut();
    }

    /// In order, as at SIGTERM; answers what was cut off.
    async fn end(self) -> Vec<String> {
        let _ = self.stop.send(());
        self.work.await.unwrap()
    }
}

/// What happens at some moment of the storm.
#[derive(Debug, Clone, Copy)]
enum Incident {
    Publish(usize),
    Cut,
    Death,
    Freeze,
    Restart,
    Absence,
    Alarm,
    Loss,
    Change,
}

fn script(rng: &mut fastrand::Rng, weather: &Weather) -> Vec<(Duration, Incident)> {
    let mut incidents: Vec<Incident> = (0..EVENTS).map(Incident::Publish).collect();
    incidents.extend((0..EVENTS / 4).map(|_| Incident::Publish(rng.usize(..EVENTS)))); // doubles
    for (times, incident) in [
        (weather.cuts, Incident::Cut),
        (weather.deaths, Incident::Death),
        (weather.freezes, Incident::Freeze),
        (weather.restarts, Incident::Restart),
        (weather.absences, Incident::Absence),
        (weather.alarms, Incident::Alarm),
        (weather.losses, Incident::Loss),
        (weather.changes, Incident::Change),
    ] {
        incidents.extend((0..times).map(|_| incident));
    }
    let span = u64::try_from(STORM.as_millis()).unwrap();
    let mut script: Vec<_> =
        incidents.into_iter().map(|incident| (Duration::from_millis(rng.u64(..span)), incident)).collect();
    script.sort_by_key(|(at, _)| *at);
    script
}

/// What came of a fleet's life.
struct Lived {
    runs: Vec<Run>,
    /// Letters that were replayed.
    replayed: usize,
    /// Letters of hooks that were removed.
    removed: usize,
}

async fn live(seed: u64, mutation: Mutation) -> Lived {
    fastrand::seed(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut weather = Weather::of(&mut rng);
    let world = Arc::new(World::new(rng.u64(..), weather, mutation));
    let mut fleet: Vec<Process> = (0..WORKERS).map(|_| world.start()).collect();
    let (began, mut publishing) = (Instant::now(), Vec::new());
    for (at, incident) in script(&mut rng, &weather) {
        tokio::time::sleep_until(began + at).await;
        let (one, seconds) = (rng.usize(..WORKERS), Duration::from_secs(rng.u64(1..45)));
        match incident {
            Incident::Publish(event) => {
                let world = Arc::clone(&world);
                publishing.push(tokio::spawn(async move { world.publish(event).await }));
            }
            Incident::Cut => fleet[one].port.cut(),
            Incident::Death => std::mem::replace(&mut fleet[one], world.start()).die(),
            Incident::Freeze => fleet[one].life.stop_for(seconds * 2),
            Incident::Restart => {
                let ended = std::mem::replace(&mut fleet[one], world.start()).end().await;
                assert!(ended.is_empty() || weather.may_hang(), "cut off: {ended:?}");
                weather.deaths += u32::from(!ended.is_empty()); // no better than one
            }
            Incident::Absence => world.shelf.leave(seconds),
            Incident::Alarm => world.hub.block(seconds),
            Incident::Loss => world.shelf.forget(),
            Incident::Change => world.revisions.apply(Revision::Second),
        }
    }
    for publishing in publishing {
        publishing.await.unwrap();
    }
    if std::env::var_os("HOOKFLEET_TEST_SEED").is_some() {
        println!("seed {seed}: {weather:?}");
    }
    world.chance.calm_down();
    world.hub.block(Duration::ZERO);
    world.shelf.leave(Duration::ZERO);
    sleep(FREEZE_MAX).await;
    until_quiet(&world, &fleet).await;
    check(&world, &weather);
    let removed = check_change(&world, &weather);
    let replayed = replay_all(&world, &fleet).await;
    check_replayed(&world, &weather);
    for process in fleet {
        assert_eq!(process.end().await, [""; 0], "nothing was under way");
    }
    Lived { runs: world.target.runs(), replayed, removed }
}

async fn until_quiet(world: &World, fleet: &[Process]) {
    let began = Instant::now();
    let mut quiet = 0;
    while quiet < 3 {
        assert!(began.elapsed() < PATIENCE, "{} messages go round for ever", world.hub.count());
        sleep(Duration::from_secs(1)).await;
        let is_quiet = world.hub.count() == 0 && fleet.iter().all(|process| process.port.is_idle());
        quiet = if is_quiet { quiet + 1 } else { 0 };
    }
}

/// Replays every open letter at targets that are well, some of them twice, two operators at once.
async fn replay_all(world: &World, fleet: &[Process]) -> usize {
    world.target.heal();
    if world.revisions.changed_at().is_some() {
        world.revisions.apply(Revision::Third);
        sleep(LEARNT_AFTER).await;
    }
    let port = world.hub.connect(Life::default());
    let operations = Operations::new(Arc::clone(&port) as Arc<dyn Broker>, port);
    let unresolved = Filter { states: States::Unresolved, ..Filter::default() };
    let mut entries = operations.page(&unresolved, None, usize::MAX).await.unwrap().items;
    entries.sort_by_key(|entry| entry.letter.subject()); // they come in the order of the real clock
    let [a, b] = ["a", "b"].map(|by| Manner { by: by.to_owned(), ..Manner::default() });
    for entry in &entries {
        let (a, b) = tokio::join!(
            operations.replay(&entry.letter.id, false, &a),
            operations.replay(&entry.letter.id, false, &b)
        );
        assert_eq!(a.unwrap(), b.unwrap(), "both sent the same");
    }
    until_quiet(world, fleet).await;
    entries.len()
}

/// Says which seed it was.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulation: seed {0} failed; HOOKFLEET_TEST_SEED={0} runs it alone", self.0);
        }
    }
}

fn run(seed: u64) -> Lived {
    let _named = Named(seed);
    run_with(seed, Mutation::None)
}

fn run_with(seed: u64, mutation: Mutation) -> Lived {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(live(seed, mutation))
}

fn run_all(seeds: impl Iterator<Item = u64>) {
    let (mut count, mut runs, mut orphaned, mut replayed, mut removed) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let lived = run(seed);
        count += 1;
        runs += lived.runs.len();
        orphaned += lived.runs.iter().filter(|run| run.orphaned).count();
        replayed += lived.replayed;
        removed += lived.removed;
    }
    println!(
        "simulation: {count} seeds, {runs} runs, {orphaned} of them outlived their worker, {replayed} letters replayed, \
         {removed} of them of hooks that were removed"
    );
    assert!(removed > 0 || count < 1_000, "no hook was removed with work to do");
}
