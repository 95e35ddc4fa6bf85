//! Sizes of tests in the two tiers. The simulation, which is a test of the library, takes this file by its path.

/// How much of something a test does.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) what: &'static str,
    pub(crate) in_ci: u64,
    pub(crate) in_all: u64,
}

impl Size {
    /// As much as the tier of this run says.
    pub(crate) fn get(&self) -> u64 {
        if is_all() { self.in_all } else { self.in_ci }
    }

    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.get()).unwrap()
    }
}

/// Whether HOOKFLEET_TEST_TIER is `all`; it is `ci` by default.
pub(crate) fn is_all() -> bool {
    match std::env::var("HOOKFLEET_TEST_TIER").as_deref() {
        Ok("all") => true,
        Err(_) | Ok("" | "ci") => false,
        Ok(other) => panic!("HOOKFLEET_TEST_TIER: expected ci or all, found {other}"),
    }
}

macro_rules! sizes {
    ($($name:ident: $in_ci:literal, $in_all:literal, $what:literal;)*) => {
        $(pub(crate) const $name: Size = Size { what: $what, in_ci: $in_ci, in_all: $in_all };)*

        pub(crate) const SIZES: &[Size] = &[$($name),*];
    };
}

sizes! {
    // name: in CI, in all, what it is
    SIMULATED_SEEDS: 2_000, 10_000, "seeds of the simulation";
    FAULT_SECONDS: 10, 15, "seconds of load around a fault";
    STORM_SECONDS: 24, 90, "seconds of a storm on servers, each with a kill";
    STORM_SECONDS_FILE: 15, 45, "seconds of a storm in a file, with a kill every three";
    FLOOD: 30_000, 500_000, "events that come at once to two workers";
    GATE_DEATHS: 25, 100, "deaths of workers that decide";
    MEMORY_EVENTS: 60_000, 300_000, "events that leave a worker's memory as it is";
    LONG_RUN_SECONDS: 24, 60, "seconds of a run that outlives its lease";
    LONG_RUN_KILL_SECONDS: 9, 30, "seconds of such a run before its worker is killed";
    OVER_CAPACITY_SECONDS: 6, 180, "seconds of a flood at ten times the capacity of a hook";
    BROKER_AWAY_SECONDS: 3, 300, "seconds for which a broker is away";
    LADDER_KILLS: 1, 4, "kills of a broker that passes on what has waited";
    EQUAL_EVENTS: 1_000, 10_000, "events of equal content, each answered";
    REPLAYED: 1_500, 5_000, "letters of a replay that is killed";
    REPLAYED_FILE: 800, 2_000, "letters of a replay in a file that is killed";
}
