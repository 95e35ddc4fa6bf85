//! The series of a process, and the text in which Prometheus reads them.
//!
//! A series can end: whatever it was of is gone, and nobody counts there any more. That is what the exporter of the crate
//! `metrics` cannot do for single series, whose handles are kept and counted with; what counts is the same.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::time::Instant;

use super::Metric;

/// All series.
#[derive(Default)]
pub struct Registry {
    series: Mutex<HashMap<Key, Series>>,
    help: Mutex<HashMap<String, SharedString>>,
}

/// One of them. Handles share its value.
struct Series {
    value: Value,
    /// What it came to when somebody last looked, and since when.
    quiet: Option<(u64, Instant)>,
}

#[derive(Clone)]
enum Value {
    Counter(Arc<AtomicU64>),
    /// The bits of a float.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

/// Values by size, and their sum.
struct Buckets {
    bounds: &'static [f64],
    /// Of those up to each bound and above the one before it; the last is of those above all.
    counts: Vec<AtomicU64>,
    /// The bits of a float.
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0.0_f64.to_bits()) }
    }

    fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let place = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        let added = |sum: u64| Some((f64::from_bits(sum) + value).to_bits());
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added); // it never says no
    }
}

impl Value {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    /// Differs if anything has happened.
    fn state(&self) -> u64 {
        match self {
            Self::Counter(value) | Self::Gauge(value) => value.load(Ordering::Relaxed),
            Self::Histogram(buckets) => buckets.count(),
        }
    }

    /// Whether it says something about now.
    fn is_raised(&self) -> bool {
        matches!(self, Self::Gauge(value) if f64::from_bits(value.load(Ordering::Relaxed)) != 0.0)
    }

    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let braced = |labels: &str| if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        match self {
            Self::Counter(value) => {
                let _ = writeln!(text, "{name}{} {}", braced(labels), value.load(Ordering::Relaxed));
            }
            Self::Gauge(value) => {
                let value = f64::from_bits(value.load(Ordering::Relaxed));
                let _ = writeln!(text, "{name}{} {value}", braced(labels));
            }
            Self::Histogram(buckets) => {
                let (comma, mut count) = (if labels.is_empty() { "" } else { "," }, 0);
                let bounds = buckets.bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
                for (bound, more) in bounds.zip(&buckets.counts) {
                    count += more.load(Ordering::Relaxed);
                    let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
                }
                let sum = f64::from_bits(buckets.sum.load(Ordering::Relaxed));
                let _ = writeln!(text, "{name}_sum{} {sum}", braced(labels));
                let _ = writeln!(text, "{name}_count{} {count}", braced(labels));
            }
        }
    }
}

impl Registry {
    fn series(&self) -> MutexGuard<'_, HashMap<Key, Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn value(&self, key: &Key, new: impl FnOnce() -> Value) -> Value {
        let mut series = self.series();
        if let Some(known) = series.get(key) {
            return known.value.clone();
        }
        let value = new();
        series.insert(key.clone(), Series { value: value.clone(), quiet: None });
        value
    }

    /// All of them in Prometheus' text format, in order.
    #[must_use]
    pub fn render(&self) -> String {
        let mut families: BTreeMap<String, Vec<(String, Value)>> = BTreeMap::new();
        for (key, series) in &*self.series() {
            families.entry(key.name().to_owned()).or_default().push((labels(key), series.value.clone()));
        }
        let help = self.help.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, mut of_name) in families {
            of_name.sort_by(|(one, _), (other, _)| one.cmp(other));
            let Some((_, first)) = of_name.first() else { continue };
            if let Some(help) = help.get(&name) {
                let _ = writeln!(text, "# HELP {name} {}", help.replace('\\', "\\\\").replace('\n', "\\n"));
            }
            let _ = writeln!(text, "# TYPE {name} {}", first.kind());
            for (labels, value) in of_name {
                value.write(&mut text, &name, &labels);
            }
            text.push('\n');
        }
        text
    }

    /// Ends the series that nothing has happened to for this long and that have a label which is not in use. A gauge that is
    /// not 0 says something about now, and stays. To be called now and then.
    pub fn end_quiet(&self, after: Duration, is_in_use: impl Fn(&str, &str) -> bool) {
        let now = Instant::now();
        self.series().retain(|key, series| {
            let is_kept = key.labels().all(|label| is_in_use(label.key(), label.value()));
            if is_kept || series.value.is_raised() {
                series.quiet = None;
                return true;
            }
            let state = series.value.state();
            match series.quiet {
                Some((before, since)) if before == state => now - since < after,
                _ => {
                    series.quiet = Some((state, now));
                    true
                }
            }
        });
    }
}

fn labels(key: &Key) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels = key.labels().map(|label| format!("{}=\"{}\"", label.key(), escaped(label.value())));
    labels.collect::<Vec<_>>().join(",")
}

impl Recorder for Registry {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        self.help.lock().unwrap_or_else(PoisonError::into_inner).insert(name.as_str().to_owned(), text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe_counter(name, unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe_counter(name, unit, text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.value(key, || Value::Counter(Arc::default())) {
            Value::Counter(value) => Counter::from_arc(value),
            Value::Gauge(_) | Value::Histogram(_) => Counter::noop(), // no metric is of two kinds
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.value(key, || Value::Gauge(Arc::default())) {
            Value::Gauge(value) => Gauge::from_arc(value),
            Value::Counter(_) | Value::Histogram(_) => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.value(key, || Value::Histogram(Arc::new(Buckets::new(Metric::buckets(key.name()))))) {
            Value::Histogram(buckets) => Histogram::from_arc(buckets),
            Value::Counter(_) | Value::Gauge(_) => Histogram::noop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics::with_local_recorder;
    use tokio::time::advance;

    use super::*;

    const AFTER: Duration = Duration::from_mins(10);

    fn label(name: &'static str, value: &str) -> [(&'static str, String); 1] {
        [(name, value.to_owned())]
    }

    #[test]
    fn prometheus_reads_it() {
        let registry = Registry::default();
        with_local_recorder(&registry, || {
            metrics::describe_counter!("hookfleet_retries_total", "Retries \\ so\nfar");
            Metric::Retries.counter(&label("hook", "b")).increment(2);
            Metric::Retries.count(&label("hook", "a \"quoted\" \\ one\n"));
            Metric::InFlight.set(0.5);
            for value in [0.001, 0.0015, 31.0] {
                Metric::GateSeconds.record(value);
            }
        });
        let text = registry.render();
        let (gates, rest) = text.split_once("\n\n").unwrap();
        assert!(
            gates.starts_with(
                "# TYPE hookfleet_gate_seconds histogram\nhookfleet_gate_seconds_bucket{le=\"0.001\"} 1\n"
            )
        );
        assert!(gates.contains("_bucket{le=\"0.002\"} 2\n") && gates.contains("_bucket{le=\"30\"} 2\n"), "{gates}");
        assert!(
            gates.ends_with(
                "_bucket{le=\"+Inf\"} 3\nhookfleet_gate_seconds_sum 31.0025\nhookfleet_gate_seconds_count 3"
            )
        );
        assert_eq!(
            rest,
            "# TYPE hookfleet_in_flight gauge\nhookfleet_in_flight 0.5\n\n\
             # HELP hookfleet_retries_total Retries \\\\ so\\nfar\n# TYPE hookfleet_retries_total counter\n\
             hookfleet_retries_total{hook=\"a \\\"quoted\\\" \\\\ one\\n\"} 1\nhookfleet_retries_total{hook=\"b\"} 2\n\n"
        );
    }

    /// Case D6: what is not in use ends once it is quiet; what goes on, and what says something of now, stays.
    #[tokio::test(start_paused = true)]
    async fn d6_series_end() {
        let registry = Registry::default();
        let count = |hook: &str| with_local_recorder(&registry, || Metric::Retries.count(&label("hook", hook)));
        let gauge = |target: &str, value: f64| {
            with_local_recorder(&registry, || Metric::BreakerOpen.gauge(&label("target", target)).set(value));
        };
        let seconds = || {
            with_local_recorder(&registry, || Metric::AttemptSeconds.histogram(&label("hook", "gone")).record(1.0));
        };
        let look = |expected: usize| {
            registry.end_quiet(AFTER, |label, value| label != "hook" && label != "target" || value == "used");
            assert_eq!(registry.series().len(), expected, "{}", registry.render());
        };
        for hook in ["used", "gone", "busy"] {
            count(hook);
        }
        seconds();
        gauge("gone", 0.0);
        gauge("broken", 1.0);
        with_local_recorder(&registry, || Metric::Guards.count(&[]));
        look(7);
        advance(AFTER / 2).await;
        count("busy");
        look(7);
        advance(AFTER / 2).await;
        look(4); // used, busy, broken, and what has no labels
        gauge("broken", 0.0);
        look(4);
        advance(AFTER).await;
        look(2);
        assert!(!registry.render().contains("hookfleet_attempt_seconds"), "{}", registry.render());
        count("gone");
        assert!(registry.render().contains("hookfleet_retries_total{hook=\"gone\"} 1"), "it begins anew");
    }
}
