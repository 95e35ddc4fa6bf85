//! Metric names, all of them, the set-up of logs, and the time as both show it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
pub use registry::Registry;
pub use told::Told;
use totals::Summing;
pub use totals::Totals;

pub mod logs;
mod registry;
mod told;
mod totals;

/// Every metric, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Deliveries taken in hand, by queue.
    Deliveries,
    /// Those of them that the broker had delivered before, by queue: to somebody who died, or lost the connection.
    Redelivered,
    /// Events that no hook wanted.
    EventsUnmatched,
    /// Conditions and keys that could not be evaluated for an event, by hook.
    ConditionErrors,
    /// Events that ran no hook because another one like them has done so for them, by hook.
    OncePerSkipped,
    /// Invocations that were dropped because an operator had cancelled them, by hook.
    Cancelled,
    /// Events whose identity was taken by another body.
    EventsConflicting,
    /// Events whose data was not what their type declares, by declared type and what was done: warned, buried, refused.
    EventsMisfit,
    /// Answers of the store to claims, by answer.
    Claims,
    /// Attempts by hook and outcome.
    Attempts,
    /// Seconds an attempt took, by hook.
    AttemptSeconds,
    /// HTTP requests without an answer, by hook and reason.
    HttpUnanswered,
    /// HTTP requests that went out again at once, since their connection had been closed before, by hook.
    HttpResent,
    /// Requests for tokens (OAuth 2), by outcome: granted, refused, failed.
    TokenFetches,
    /// Retries, published or made within one run, by hook.
    Retries,
    /// Letters appended, by class and hook.
    Letters,
    /// Letters that are not resolved, by class and hook: from the keeper of the log.
    LettersOpen,
    /// Seconds since the oldest of them was written.
    LettersOldest,
    /// How much of the time that the log keeps records has passed for the oldest one that is needed.
    LettersAged,
    /// Appends of letters that were not confirmed and repeated.
    LettersUnconfirmed,
    /// Messages that the broker could hand to nobody, and keeps in a queue of their own: from the keeper of the log.
    UnreadableByBroker,
    /// Seconds for which nothing has come back from the delay ladder that should have: from the keeper of the log.
    RetriesStill,
    /// Guards published.
    Guards,
    /// Invocations that were over the capacity of their hook and moved to overflow, by hook.
    Overflowed,
    /// Invocations that waited in overflow for longer than a delivery is held there, and went once round, by hook.
    OverflowTrips,
    /// Invocations parked before a broken target or for a pause, by hook.
    Parked,
    /// Invocations handed over to another lane, by lane.
    HandedOver,
    /// 1 while a target's breaker is open, by target.
    BreakerOpen,
    /// Messages handed back at shutdown.
    HandedBack,
    /// Publishes that were not confirmed and repeated.
    PublishRepeated,
    /// Calls that the store of claims did not answer.
    StoreUnanswered,
    /// Runs under way.
    InFlight,
    /// 1 while no new work is taken: the store is away, there is no catalog to work with, or the fleet is paused.
    Holding,
    /// 1 for the revision of the catalog that is in force, by revision.
    CatalogRevision,
    /// Catalogs that were refused.
    CatalogsRefused,
    /// Seconds it took to read a catalog that came into force.
    CatalogLoadSeconds,
    /// Decisions given, by verdict.
    GateDecisions,
    /// Seconds from a request to its decision.
    GateSeconds,
    /// Requests that nobody decided in time, by why: expired in the queue, or late.
    GatesUndecided,
    /// Policies of the broker that cost work, as far as this process may look.
    PoliciesHarmful,
    /// Lines of the log that were not written, since nobody read them fast enough, or at all.
    LogLinesDropped,
}

impl Metric {
    /// Every metric: for descriptions and tests.
    pub const ALL: [Self; 41] = [
        Self::Deliveries,
        Self::Redelivered,
        Self::EventsUnmatched,
        Self::ConditionErrors,
        Self::OncePerSkipped,
        Self::Cancelled,
        Self::EventsConflicting,
        Self::EventsMisfit,
        Self::Claims,
        Self::Attempts,
        Self::AttemptSeconds,
        Self::HttpUnanswered,
        Self::HttpResent,
        Self::TokenFetches,
        Self::Retries,
        Self::Letters,
        Self::LettersOpen,
        Self::LettersOldest,
        Self::LettersAged,
        Self::LettersUnconfirmed,
        Self::UnreadableByBroker,
        Self::RetriesStill,
        Self::Guards,
        Self::Overflowed,
        Self::OverflowTrips,
        Self::Parked,
        Self::HandedOver,
        Self::BreakerOpen,
        Self::HandedBack,
        Self::PublishRepeated,
        Self::StoreUnanswered,
        Self::InFlight,
        Self::Holding,
        Self::CatalogRevision,
        Self::CatalogsRefused,
        Self::CatalogLoadSeconds,
        Self::GateDecisions,
        Self::GateSeconds,
        Self::GatesUndecided,
        Self::PoliciesHarmful,
        Self::LogLinesDropped,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        self.parts().0
    }

    const fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Deliveries => ("hookfleet_deliveries_total", "Deliveries taken in hand, by queue"),
            Self::Redelivered => {
                ("hookfleet_redelivered_total", "Deliveries that came before, by queue, and few times (1, 2) or many")
            }
            Self::EventsUnmatched => ("hookfleet_events_unmatched_total", "Events that no hook wanted"),
            Self::ConditionErrors => ("hookfleet_condition_errors_total", "Conditions and keys that failed"),
            Self::OncePerSkipped => {
                ("hookfleet_once_per_skipped_total", "Events for which another one like them has run the hook")
            }
            Self::Cancelled => {
                ("hookfleet_cancelled_total", "Invocations dropped as an operator cancelled them, by hook")
            }
            Self::EventsConflicting => {
                ("hookfleet_events_conflicting_total", "Events whose identity was taken by another body; dropped")
            }
            Self::EventsMisfit => {
                ("hookfleet_events_misfit_total", "Events that are not what their type declares, by type and action")
            }
            Self::Claims => ("hookfleet_claims_total", "Answers of the store to claims"),
            Self::Attempts => ("hookfleet_attempts_total", "Attempts by hook and outcome"),
            Self::AttemptSeconds => ("hookfleet_attempt_seconds", "Seconds an attempt took"),
            Self::HttpUnanswered | Self::HttpResent | Self::TokenFetches => self.parts_of_http(),
            Self::Retries => ("hookfleet_retries_total", "Retries, published or made within one run"),
            Self::Letters => ("hookfleet_letters_total", "Letters appended, by class and hook"),
            Self::LettersUnconfirmed => {
                ("hookfleet_letters_unconfirmed_total", "Appends of letters that were not confirmed and repeated")
            }
            Self::LettersOpen
            | Self::LettersOldest
            | Self::LettersAged
            | Self::UnreadableByBroker
            | Self::RetriesStill => self.parts_of_keepers(),
            Self::Guards => ("hookfleet_guards_total", "Guards published for long runs"),
            Self::Overflowed => ("hookfleet_overflowed_total", "Invocations over a hook's capacity, moved once"),
            Self::OverflowTrips => ("hookfleet_overflow_trips_total", "Trips of invocations that wait in overflow"),
            Self::Parked => ("hookfleet_parked_total", "Invocations parked before a broken target or for a pause"),
            Self::HandedOver => ("hookfleet_handed_over_total", "Invocations handed over to another lane"),
            Self::BreakerOpen => ("hookfleet_breaker_open", "1 while a target is broken"),
            Self::HandedBack => ("hookfleet_handed_back_total", "Messages handed back at shutdown"),
            Self::PublishRepeated => ("hookfleet_publish_repeated_total", "Publishes repeated for want of a confirm"),
            Self::StoreUnanswered => ("hookfleet_store_unanswered_total", "Calls that the store did not answer"),
            Self::InFlight => ("hookfleet_in_flight", "Runs under way"),
            Self::Holding => ("hookfleet_holding", "1 while no new work is taken; readiness and status say why"),
            Self::CatalogRevision => ("hookfleet_catalog_revision", "1 for the catalog revision in force"),
            Self::CatalogsRefused => ("hookfleet_catalogs_refused_total", "Catalogs that were refused"),
            Self::CatalogLoadSeconds => ("hookfleet_catalog_load_seconds", "Seconds it took to read a new catalog"),
            Self::GateDecisions => ("hookfleet_gate_decisions_total", "Decisions of gates, by verdict"),
            Self::GateSeconds => ("hookfleet_gate_seconds", "Seconds from a request to its decision, in the worker"),
            Self::GatesUndecided => ("hookfleet_gates_undecided_total", "Requests that nobody decided in time, by why"),
            Self::PoliciesHarmful => ("hookfleet_policies_harmful", "Policies of the broker that cost work"),
            Self::LogLinesDropped => {
                ("hookfleet_log_lines_dropped_total", "Lines of the log that nobody read fast enough, or at all")
            }
        }
    }

    /// The same of those that HTTP requests have.
    const fn parts_of_http(self) -> (&'static str, &'static str) {
        match self {
            Self::HttpUnanswered => {
                ("hookfleet_http_unanswered_total", "HTTP requests without an answer, by hook and why")
            }
            Self::HttpResent => ("hookfleet_http_resent_total", "HTTP requests that went out again at once, by hook"),
            _ => ("hookfleet_token_fetches_total", "Requests for OAuth 2 tokens, by outcome"),
        }
    }

    /// The same of those that only the keeper of the dead letters has.
    const fn parts_of_keepers(self) -> (&'static str, &'static str) {
        match self {
            Self::LettersOpen => {
                ("hookfleet_letters_open", "Letters that are not resolved, by class and hook; of the keeper only")
            }
            Self::LettersOldest => {
                ("hookfleet_letters_oldest_open_seconds", "Age of the oldest open letter; of the keeper only")
            }
            Self::LettersAged => (
                "hookfleet_letters_retention_used_ratio",
                "Age of the oldest record that is needed, of the time records are kept; of the keeper only",
            ),
            Self::UnreadableByBroker => (
                "hookfleet_unreadable_by_broker",
                "Messages that the broker could hand to nobody and keeps apart; of the keeper only",
            ),
            _ => (
                "hookfleet_retries_still_seconds",
                "For how long retries have not come back, 0 while they do; of the keeper only",
            ),
        }
    }

    /// The bounds by which the values of a histogram are told apart.
    fn buckets(name: &str) -> &'static [f64] {
        if name == Self::GateSeconds.name() { &WAITS } else { &BUCKETS }
    }

    /// Adds one to a counter.
    pub fn count(self, labels: &[(&'static str, String)]) {
        counter!(self.name(), labels).increment(1);
    }

    /// Sets a gauge.
    pub fn set(self, value: f64) {
        gauge!(self.name()).set(value);
    }

    /// Adds a value to a histogram.
    pub fn record(self, value: f64) {
        histogram!(self.name()).record(value);
    }

    /// One series of a counter, looked up once: for what is counted at every event.
    pub fn counter(self, labels: &[(&'static str, String)]) -> Counter {
        counter!(self.name(), labels)
    }

    /// One series of a gauge, looked up once.
    pub fn gauge(self, labels: &[(&'static str, String)]) -> Gauge {
        gauge!(self.name(), labels)
    }

    /// One series of a histogram of seconds, looked up once.
    pub fn histogram(self, labels: &[(&'static str, String)]) -> Histogram {
        histogram!(self.name(), labels)
    }
}

/// Seconds of who waits for a decision.
const WAITS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Seconds; from a fast answer to a long run.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0];

/// What renders `/metrics`, and the totals for the status.
type Recorded = (Arc<Registry>, Arc<Totals>);

/// The recorder of this process, which several fleets in it share. Installed by the first call.
///
/// # Errors
/// The program has installed a recorder of its own.
pub fn metrics() -> anyhow::Result<Recorded> {
    static OURS: Mutex<Option<Recorded>> = Mutex::new(None);
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(recorded) = &*ours {
        return Ok(recorded.clone());
    }
    Ok(ours.insert(install()?).clone())
}

fn install() -> anyhow::Result<Recorded> {
    let (registry, totals) = (Arc::new(Registry::default()), Arc::new(Totals::default()));
    let recorder = Summing { recorder: Arc::clone(&registry), totals: Arc::clone(&totals) };
    metrics::set_global_recorder(recorder).map_err(|_| {
        anyhow::anyhow!("this program has installed a recorder of metrics already, and a fleet needs its own")
    })?;
    for (name, text) in Metric::ALL.map(Metric::parts) {
        metrics::describe_counter!(name, text); // the kind is that of its series
    }
    Ok((registry, totals))
}

/// Milliseconds since 1970, for people to read; nothing about invocations is decided by it.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(name.starts_with("hookfleet_"), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        }
    }
}
