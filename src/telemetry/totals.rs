//! Sums over the series of some counters, for the status. What is counted is counted once: the recorder behind the metrics
//! adds it up on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::{Metric, Registry};

/// What has happened since this process began.
#[derive(Debug, Default)]
pub struct Totals {
    /// Attempts that ended, however.
    pub attempts: Arc<AtomicU64>,
    /// Those of them that failed.
    pub failed: Arc<AtomicU64>,
    pub retries: Arc<AtomicU64>,
    pub letters: Arc<AtomicU64>,
    pub letters_unconfirmed: Arc<AtomicU64>,
}

impl Totals {
    /// Those that a series counts towards.
    fn of(&self, key: &Key) -> Vec<Arc<AtomicU64>> {
        let is = |metric: Metric| key.name() == metric.name();
        let failed = || key.labels().any(|label| (label.key(), label.value()) == ("outcome", "failed"));
        let of = [
            (is(Metric::Attempts), &self.attempts),
            (is(Metric::Attempts) && failed(), &self.failed),
            (is(Metric::Retries), &self.retries),
            (is(Metric::Letters), &self.letters),
            (is(Metric::LettersUnconfirmed), &self.letters_unconfirmed),
        ];
        of.into_iter().filter(|(is, _)| *is).map(|(_, total)| Arc::clone(total)).collect()
    }
}

/// The recorder of a process.
pub(super) struct Summing {
    pub(super) recorder: Arc<Registry>,
    pub(super) totals: Arc<Totals>,
}

/// A series, and the totals that it counts towards.
struct Summed {
    series: Counter,
    totals: Vec<Arc<AtomicU64>>,
}

impl CounterFn for Summed {
    fn increment(&self, value: u64) {
        self.series.increment(value);
        for total in &self.totals {
            total.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// No counter that is summed is set.
    fn absolute(&self, value: u64) {
        self.series.absolute(value);
    }
}

impl Recorder for Summing {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let series = self.recorder.register_counter(key, metadata);
        let totals = self.totals.of(key);
        if totals.is_empty() { series } else { Counter::from_arc(Arc::new(Summed { series, totals })) }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.recorder.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.recorder.register_histogram(key, metadata)
    }
}

#[cfg(test)]
mod tests {
    use metrics::with_local_recorder;

    use super::*;

    #[test]
    fn what_is_counted_is_summed() {
        let totals = Arc::new(Totals::default());
        let recorder = Arc::new(Registry::default());
        with_local_recorder(&Summing { recorder: Arc::clone(&recorder), totals: Arc::clone(&totals) }, || {
            let label = |name: &'static str, value: &str| (name, value.to_owned());
            for (hook, outcome) in [("a", "done"), ("a", "failed"), ("b", "failed")] {
                Metric::Attempts.counter(&[label("hook", hook), label("outcome", outcome)]).increment(1);
            }
            Metric::Retries.count(&[label("hook", "a")]);
            Metric::Letters.count(&[label("class", "rejected")]);
            Metric::Letters.count(&[label("class", "exhausted")]);
            Metric::Guards.count(&[]);
        });
        let Totals { attempts, failed, retries, letters, letters_unconfirmed } = &*totals;
        let found =
            [attempts, failed, retries, letters, letters_unconfirmed].map(|total| total.load(Ordering::Relaxed));
        assert_eq!(found, [3, 2, 1, 2, 0]);
        assert!(recorder.render().contains(r#"hookfleet_attempts_total{hook="b",outcome="failed"} 1"#));
    }
}
