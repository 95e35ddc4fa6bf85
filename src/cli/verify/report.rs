//! The rows of `verify` and its verdict on them. Pure.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::book::Tally;
use super::faults::Fault;
use crate::cli::trial;

/// What came of a phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) fault: Fault,
    /// How often the fault was made.
    pub(super) times: u32,
    pub(super) events: u32,
    /// Neither done nor a letter.
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) same_key: bool,
    pub(super) letters: u64,
    /// Events that took more than one attempt.
    pub(super) retried: u64,
    pub(super) longest_pause_ms: u64,
}

/// Everything that is printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) broker: &'static str,
    pub(super) workers: u32,
    pub(super) rate: u32,
    pub(super) phases: Vec<Row>,
    pub(super) passed: bool,
    pub(super) verdict: String,
}

/// The dead letters of a trial: the events that they are about.
#[derive(Debug, Default)]
pub(super) struct Buried {
    events: HashSet<usize>,
    /// All of them, by event; those that name none come last.
    numbers: Vec<Option<usize>>,
}

impl Buried {
    /// From the entries that `dead-letters list` shows.
    pub(super) fn of(entries: &[Value]) -> Self {
        let event = |entry: &Value| trial::number(entry.pointer("/letter/event/id")?.as_str()?.as_bytes());
        let numbers: Vec<Option<usize>> = entries.iter().map(event).collect();
        Self { events: numbers.iter().copied().flatten().collect(), numbers }
    }

    /// Whether all of these events became letters.
    pub(super) fn has_all(&self, events: &[usize]) -> bool {
        events.iter().all(|event| self.events.contains(event))
    }

    /// The letters of a phase; what names no event of any counts for the last one.
    fn count(&self, phase: usize, phases: usize, events: u32) -> u64 {
        let of = |number: Option<usize>| number.map_or(phases, |number| number / events as usize).min(phases - 1);
        self.numbers.iter().filter(|&&number| of(number) == phase).count() as u64
    }
}

impl Row {
    /// Of the phase at this place among `phases`.
    pub(super) fn new(
        (fault, times): (Fault, u32),
        events: u32,
        tally: &Tally,
        buried: &Buried,
        (phase, phases): (usize, usize),
    ) -> Self {
        Self {
            fault,
            times,
            events,
            lost: tally.missing.iter().filter(|event| !buried.events.contains(event)).count() as u64,
            duplicated: tally.duplicated,
            same_key: tally.same_key,
            letters: buried.count(phase, phases, events),
            retried: tally.retried,
            longest_pause_ms: u64::try_from(tally.longest_pause.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// What is not as it has to be.
    fn failures(&self) -> Vec<String> {
        let wrong = [
            (self.lost > 0, format!("{} of {} events lost", self.lost, self.events)),
            (!self.same_key, "events under more than one Idempotency-Key".to_owned()),
            (self.duplicated > 0 && !self.fault.may_repeat(), format!("{} duplicates, none may be", self.duplicated)),
            (self.letters > 0, format!("{} dead letters", self.letters)),
        ];
        wrong.into_iter().filter(|(wrong, _)| *wrong).map(|(_, what)| what).collect()
    }
}

impl Report {
    /// With the verdict on these rows.
    pub(super) fn new(broker: &'static str, workers: u32, rate: u32, phases: Vec<Row>) -> Self {
        let failed: Vec<String> = phases
            .iter()
            .filter(|row| !row.failures().is_empty())
            .map(|row| format!("{} ({})", row.failures().join(", "), row.fault.shown()))
            .collect();
        let passed = failed.is_empty();
        let verdict = if passed {
            let events: u64 = phases.iter().map(|row| u64::from(row.events)).sum();
            let duplicated: u64 = phases.iter().map(|row| row.duplicated).sum();
            format!("passed: {events} events, none lost; {duplicated} duplicates, each under the key of its event")
        } else {
            format!("failed: {}", failed.join("; "))
        };
        Self { broker, workers, rate, phases, passed, verdict }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        let mut text = format!(
            "{:<32} {:>5} {:>7} {:>5} {:>10}  {:<8} {:>7} {:>13}\n",
            "FAULT", "TIMES", "EVENTS", "LOST", "DUPLICATED", "SAME KEY", "LETTERS", "LONGEST PAUSE"
        );
        for row in &self.phases {
            let pause = format!("{}.{:03} s", row.longest_pause_ms / 1000, row.longest_pause_ms % 1000);
            let _ = writeln!(
                text,
                "{:<32} {:>5} {:>7} {:>5} {:>10}  {:<8} {:>7} {pause:>13}",
                row.fault.shown(),
                row.times,
                row.events,
                row.lost,
                row.duplicated,
                if row.same_key { "yes" } else { "no" },
                row.letters
            );
        }
        text + &self.verdict
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn row(fault: Fault) -> Row {
        let tally =
            Tally { missing: Vec::new(), duplicated: 0, same_key: true, retried: 3, longest_pause: Duration::ZERO };
        Row::new((fault, 1), 10, &tally, &Buried::default(), (0, 4))
    }

    fn check(row: Row, expected: &str) {
        let report = Report::new("file", 1, 200, vec![row]);
        assert_eq!(report.verdict, expected);
        assert_eq!(report.passed, expected.starts_with("passed"), "{expected}");
    }

    #[test]
    fn verdicts() {
        for fault in Fault::ALL {
            check(row(fault), "passed: 10 events, none lost; 0 duplicates, each under the key of its event");
            let shown = fault.shown();
            check(Row { lost: 1, ..row(fault) }, &format!("failed: 1 of 10 events lost ({shown})"));
            check(Row { letters: 2, ..row(fault) }, &format!("failed: 2 dead letters ({shown})"));
            let keys = format!("failed: events under more than one Idempotency-Key ({shown})");
            check(Row { same_key: false, duplicated: u64::from(fault.may_repeat()), ..row(fault) }, &keys);
        }
        for fault in [Fault::Kill, Fault::Stop] {
            let twice = Row { duplicated: 2, ..row(fault) };
            check(twice, "passed: 10 events, none lost; 2 duplicates, each under the key of its event");
        }
        let twice = |fault| Row { duplicated: 2, ..row(fault) };
        check(twice(Fault::Quiet), "failed: 2 duplicates, none may be (quiet)");
        check(twice(Fault::Restart), "failed: 2 duplicates, none may be (SIGTERM, rolling restart)");
        let both = Row { lost: 1, letters: 1, ..row(Fault::Kill) };
        check(both, "failed: 1 of 10 events lost, 1 dead letters (kill -9 every second)");
    }

    #[test]
    fn letters_are_no_losses() {
        let letter = |id: Value| json!({ "letter": { "event": { "id": id } } });
        let buried = Buried::of(&[letter(json!("trial-event-11")), letter(json!("x")), json!({})]);
        assert!(buried.has_all(&[11]) && !buried.has_all(&[11, 12]));
        let tally = |missing: &[usize]| Tally {
            missing: missing.to_vec(),
            duplicated: 0,
            same_key: true,
            retried: 0,
            longest_pause: Duration::from_millis(1250),
        };
        let found = |phase, missing: &[usize]| {
            let row = Row::new((Fault::Kill, 1), 10, &tally(missing), &buried, (phase, 3));
            (row.lost, row.letters)
        };
        assert_eq!(found(0, &[3]), (1, 0));
        assert_eq!(found(1, &[11, 12]), (1, 1));
        assert_eq!(found(2, &[]), (0, 2), "letters that name no event of ours");
    }

    #[test]
    fn tables_are_aligned() {
        let shown = Report::new("file", 1, 200, Fault::ALL.map(row).to_vec()).shown();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 6, "{shown}");
        assert!(lines[..5].iter().all(|line| line.len() == lines[0].len()), "{shown}");
    }
}
