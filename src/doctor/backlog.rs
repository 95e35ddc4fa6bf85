//! What is to be said about work that waits.

use std::time::Duration;

use super::Finding;
use super::facts::Backlog;

/// A queue that is shorter is that of a moment.
const GROWING_MIN: u64 = 100;
/// What is due and has waited for longer shows that nobody takes it, or too few do.
const OLDEST_MAX: Duration = Duration::from_mins(5);

const SUBJECT: &str = "backlog";

pub(super) fn examine(backlogs: &[Backlog]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = backlogs.iter().filter_map(judge).collect();
    if findings.is_empty() {
        let waiting: u64 = backlogs.iter().filter_map(|backlog| backlog.counts.last()).sum();
        findings.push(Finding::fine(SUBJECT, format!("{waiting} messages wait for a worker, and none for long")));
    }
    findings
}

/// What is wrong with one queue, if anything.
fn judge(backlog: &Backlog) -> Option<Finding> {
    let Backlog { queue, counts, oldest } = backlog;
    let count = *counts.last()?;
    if let Some(oldest) = oldest.filter(|oldest| *oldest > OLDEST_MAX) {
        let found = format!("{count} messages wait in {queue}, the oldest for {} s", oldest.as_secs());
        return Some(
            Finding::warning(SUBJECT, found).advice("is a worker up that takes this queue, and is it not paused?"),
        );
    }
    let grows = counts.len() > 2 && counts.is_sorted_by(|before, after| before < after);
    if !grows || count < GROWING_MIN {
        return None;
    }
    let found = format!("{count} messages wait in {queue}, and at each of {} looks there were more", counts.len());
    Some(Finding::warning(SUBJECT, found).advice(
        "more comes than is done: start workers for it (worker.lanes), or see in /v1/status which hook or target is slow",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(counts: &[u64], oldest_s: Option<u64>, expected: &str) {
        let oldest = oldest_s.map(Duration::from_secs);
        let backlog = Backlog { queue: "h.lane.slow".to_owned(), counts: counts.to_vec(), oldest };
        let findings = examine(&[backlog]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].found.starts_with(expected), "{} {counts:?} {oldest_s:?}", findings[0]);
    }

    #[test]
    fn queues_that_only_grow_are_told() {
        check(&[100, 120, 150, 160], None, "160 messages wait in h.lane.slow, and at each of 4 looks");
        check(&[100, 120, 120, 160], None, "160 messages wait for a worker, and none for long");
        check(&[10, 20, 30, 40], None, "40 messages wait for a worker, and none for long");
        check(&[5_000, 4_000], None, "4000 messages wait for a worker, and none for long");
        check(&[7], Some(301), "7 messages wait in h.lane.slow, the oldest for 301 s");
        check(&[7], Some(3), "7 messages wait for a worker, and none for long");
        assert_eq!(examine(&[])[0].found, "0 messages wait for a worker, and none for long");
    }
}
