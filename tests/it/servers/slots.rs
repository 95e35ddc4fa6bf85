//! How many tests run at a time, and in which order.
//!
//! The machine has [`UNITS_A_CORE`] units for each of its cores. When a test first starts something (a server, a sink, a
//! worker, a program), it waits until as many units are free as [`PLAN`] says. It keeps them until its thread ends.
//! [`take`] stands in everything that starts something, so that no test can forget it.
//!
//! `tests/run` gives the test program more threads than there are tests. All tests then wait here at once, and begin in
//! this order: first those that need most, and those of one need in the order of the plan. No test overtakes another.
//! This leaves nothing idle, because all needs are powers of two: what is free is a multiple of what the next one needs.
//!
//! A test that waits for another test must not hold units meanwhile: [`alone`] is such a wait, and comes first.
//!
//! A test that runs for longer than [`LONGEST`] hangs. It ends the test program, with its name, so that the others are not
//! waited for in vain and the gate's own limit is not what says it.
//!
//! `HOOKFLEET_TEST_UNITS` sets the number of units; with one, tests run one after the other. `HOOKFLEET_TEST_TIMES` names
//! a file that gets a line for each test that took units: seconds that it ran, seconds that it waited, units, name.

use std::cell::{OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::{Condvar, LazyLock, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use super::sweep;

const UNITS_A_CORE: usize = 4;
/// The need of tests that measure time, and of those that take all there is.
const ALL: usize = usize::MAX;
/// The need of tests that the plan does not name.
const OTHERS: usize = 1;

/// Needs by how names begin; the first line that fits counts. Rule: 1 for a quarter of a core, which is what a worker and
/// its share of the servers take; 2 for a broker of its own; 4 for a load, a cluster, or much work in little time; [`ALL`]
/// for what takes all there is. Long tests stand first among those of one need, so that none of them is left over at the
/// end; tests that compare times stand together, since they do little and disturb each other least.
pub(crate) const PLAN: &[(&str, usize)] = &[
    ("storm::nothing_is_lost_while_everything_is_killed", ALL),
    ("programs::nothing_is_left_of_programs_that_mean_harm", ALL),
    ("programs::limits_are_kept", ALL),
    //
    ("chaos::broker::", 4),
    ("chaos::overload::", 4),
    ("chaos::workers::", 4),
    ("kheish_daemon::", 4),
    ("gates::kills::the_node_that_has_the_requests_is_killed", 4),
    ("brokers::a_leader_that_is_killed_loses_nothing", 4),
    ("faults::memory_does_not_grow_with_events", 4),
    ("gates::kills::many_kills_and_never_two_decisions", 4),
    ("catalog::load::", 4),
    ("brokers::the_ladder_outlives_its_broker", 4),
    ("conforming::redis_conforms", 4),
    ("hostile::harm_costs_its_deadline_and_little_memory", 4),
    ("embedded::idempotency_conforms", 4),
    ("commands::ten_thousand_events_from_python", 4),
    ("pipeline::five_attempts_then_done", 4),
    ("onward::circles_end", 4),
    ("onward::refusals_cost_others_nothing", 4),
    ("receivers::real_receivers_at_their_idle_times", 4),
    ("conforming::the_stream_conforms", 4),
    ("replays::a_replay_is_killed_and_gone_on_with", 4),
    //
    ("replays::a_replay_outlives_its_broker", 2),
    ("saturation::", 2),
    ("pipeline::a_hanging_target_does_not_slow_another_hook", 2),
    ("onward::another_broker_may_die_in_the_middle", 2),
    ("ways::publishers_outlive_their_broker", 2),
    ("chaos::", 2),
    ("storm::nothing_is_lost_while_the_owner_of_the_file_is_killed", 2),
    ("brokers::", 2),
    ("faults::a_poisonous_event_is_buried_alone_on_servers", 2),
    ("faults::what_kills_its_readers_is_buried_on_servers", 2),
    ("stores::a_primary_that_becomes_a_replica_is_left", 2),
    ("conforming::rabbitmq_conforms", 2),
    ("tls::", 2),
    ("bench::", 2),
    ("conforming::redis_behind_tls_and_users_conforms", 2),
    ("doctor::", 2),
    ("onward::trouble_of_the_fleets_own_broker_spends_no_attempt", 2),
    ("input::what_is_as_large_as_it_may_be_is_a_letter_too", 2),
    //
    ("commands::mistakes_are_answered_clearly", 1),
    ("gates::kills::a_request_that_comes_too_late_is_not_asked", 1),
    ("verify::", 1),
    ("faults::", 1),
    ("catalog::redises::", 1),
    ("conforming::", 1),
    ("embedded::broker_conforms", 1),
    ("catalog::workers_follow_the_catalog", 1),
    ("stores::", 1),
    ("crash::", 1),
    ("gates::kills::", 1),
];

/// The first test that arrives may not be the first to begin: the others get this time to arrive.
const GATHERING: Duration = Duration::from_millis(500);

/// No test takes half of this, in either tier.
const LONGEST: Duration = Duration::from_secs(720);

/// The order in which waiting tests begin: need, line of the plan, arrival.
type Turn = (Reverse<usize>, usize, usize);

struct Machine {
    units: usize,
    free: usize,
    waiting: BTreeSet<Turn>,
    arrivals: usize,
    opens_at: Instant,
    running: BTreeMap<String, Instant>,
}

/// Made by the first test that arrives.
static MACHINE: LazyLock<Mutex<Machine>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let named = std::env::var("HOOKFLEET_TEST_UNITS").ok();
    let units = named.map_or(cores * UNITS_A_CORE, |units| units.parse().expect("HOOKFLEET_TEST_UNITS is a number"));
    let opens_at = Instant::now() + GATHERING;
    std::thread::spawn(end_what_hangs);
    Mutex::new(Machine {
        units,
        free: units,
        waiting: BTreeSet::new(),
        arrivals: 0,
        opens_at,
        running: BTreeMap::new(),
    })
});
static CHANGED: Condvar = Condvar::new();

thread_local! {
    static SLOT: OnceCell<Option<Slot>> = const { OnceCell::new() };
}

/// Waits for this test's units, if this is the thread of a test and does not have them yet.
pub(crate) fn take() {
    let _ = SLOT.try_with(|slot| {
        slot.get_or_init(Slot::of_this_thread);
    });
}

/// Takes this test's units, and has the namespace swept when it has ended. Other threads sweep nothing.
pub(crate) fn sweep_at_end(namespace: &str) {
    take();
    SLOT.with(|slot| {
        if let Some(Some(slot)) = slot.get() {
            slot.namespaces.borrow_mut().push(namespace.to_owned());
        }
    });
}

/// Waits for other tests that cannot run beside this one.
pub(crate) async fn alone(others: &'static AsyncMutex<()>) -> MutexGuard<'static, ()> {
    let has_units = SLOT.with(|slot| slot.get().is_some());
    assert!(!has_units, "this test waits for others and holds units that they may need: it has to wait first");
    others.lock().await
}

/// The units of a running test.
struct Slot {
    name: String,
    units: usize,
    waited: Duration,
    began: Instant,
    namespaces: RefCell<Vec<String>>,
}

impl Slot {
    /// The test program names the threads of tests after them. Any other thread needs nothing.
    fn of_this_thread() -> Option<Self> {
        let thread = std::thread::current();
        let name = thread.name().filter(|name| name.contains("::"))?;
        let arrived = Instant::now();
        let line = PLAN.iter().position(|(begin, _)| name.starts_with(begin));
        let need = line.map_or(OTHERS, |line| PLAN[line].1);
        let units = Machine::wait(need, line.unwrap_or(PLAN.len()));
        let (name, waited, began) = (name.to_owned(), arrived.elapsed(), Instant::now());
        MACHINE.lock().unwrap().running.insert(name.clone(), began);
        Some(Self { name, units, waited, began, namespaces: RefCell::default() })
    }
}

#[allow(clippy::print_stderr, reason = "the benchmark takes this file too")]
fn end_what_hangs() {
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let machine = MACHINE.lock().unwrap();
        let hung = machine.running.iter().find(|(_, began)| began.elapsed() > LONGEST);
        if let Some((name, began)) = hung {
            eprintln!("\ntest {name} ... FAILED: it hangs, after {} s", began.elapsed().as_secs());
            std::process::exit(101); // what it has started ends with this process
        }
    }
}

impl Machine {
    fn wait(need: usize, line: usize) -> usize {
        let mut machine = MACHINE.lock().unwrap();
        let need = need.min(machine.units);
        let turn = (Reverse(need), line, machine.arrivals);
        machine.arrivals += 1;
        machine.waiting.insert(turn);
        loop {
            let closed = machine.opens_at.saturating_duration_since(Instant::now());
            if closed.is_zero() && machine.waiting.first() == Some(&turn) && machine.free >= need {
                machine.waiting.remove(&turn);
                machine.free -= need;
                CHANGED.notify_all(); // there may be room for the next one too
                return need;
            }
            machine = if closed.is_zero() {
                CHANGED.wait(machine).unwrap()
            } else {
                CHANGED.wait_timeout(machine, closed).unwrap().0
            };
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let ran = self.began.elapsed();
        sweep::later(self.namespaces.take());
        {
            let mut machine = MACHINE.lock().unwrap();
            machine.free += self.units;
            machine.running.remove(&self.name);
        }
        CHANGED.notify_all();
        let Some(path) = std::env::var_os("HOOKFLEET_TEST_TIMES") else { return };
        let line =
            format!("{:.1}\t{:.1}\t{}\t{}\n", ran.as_secs_f64(), self.waited.as_secs_f64(), self.units, self.name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the file of HOOKFLEET_TEST_TIMES takes a line");
    }
}
