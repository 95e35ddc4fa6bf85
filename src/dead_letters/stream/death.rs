//! What the broker says of how a message died.
//!
//! RabbitMQ puts its newest entry first in the header `x-death`. Before version 4 it keeps what a client wrote there behind
//! that entry, and leaves a client's `x-first-death-*` alone, so only the newest entry is the broker's word. Streams drop
//! the header, because it is an array; `x-first-death-*` is all that logs of older versions have.

use lapin::types::{AMQPValue, FieldTable};

const DEATHS: &str = "x-death";
/// When, in an entry of [`DEATHS`].
const TIME: &str = "time";
const FIRST_QUEUE: &str = "x-first-death-queue";
const FIRST_REASON: &str = "x-first-death-reason";

/// One dead-lettering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Death {
    /// The queue that the message died in, by its whole name.
    pub(super) queue: String,
    /// `expired`, `delivery_limit`, `maxlen` or `rejected`.
    pub(super) reason: String,
    /// When, in milliseconds since 1970, to the second; as far as it is said.
    pub(super) at_ms: Option<u64>,
}

/// Whether a message says that it has died, rightly or not.
pub(super) fn has_died(headers: &FieldTable) -> bool {
    [DEATHS, FIRST_QUEUE, FIRST_REASON].iter().any(|name| headers.contains_key(name))
}

/// The newest dead-lettering, beside those from queues that a dead-lettered message is only on its way in.
pub(super) fn death(headers: &FieldTable, is_on_the_way: impl Fn(&str) -> bool) -> Option<Death> {
    let Some(deaths) = headers.inner().get(DEATHS) else { return read(headers, FIRST_QUEUE, FIRST_REASON) };
    let AMQPValue::FieldArray(deaths) = deaths else { return None };
    let read = |entry: &AMQPValue| match entry {
        AMQPValue::FieldTable(entry) => read(entry, "queue", "reason"),
        _ => None,
    };
    let newest =
        deaths.as_slice().iter().map(read).find(|death| !death.as_ref().is_some_and(|it| is_on_the_way(&it.queue)));
    newest.flatten()
}

fn read(table: &FieldTable, queue: &str, reason: &str) -> Option<Death> {
    let text = |name: &str| match table.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        Some(AMQPValue::ShortString(text)) => Some(text.to_string()),
        _ => None,
    };
    let at_ms = match table.inner().get(TIME) {
        Some(AMQPValue::Timestamp(seconds)) => seconds.checked_mul(1000),
        _ => None,
    };
    Some(Death { queue: text(queue)?, reason: text(reason)?, at_ms })
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldArray;

    use super::*;

    fn table(pairs: &[(&str, &str)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in pairs {
            table.insert((*name).into(), AMQPValue::LongString((*value).into()));
        }
        table
    }

    fn died(queue: &str, reason: &str) -> AMQPValue {
        AMQPValue::FieldTable(table(&[("queue", queue), ("reason", reason)]))
    }

    fn check(deaths: Option<AMQPValue>, others: &[(&str, &str)], expected: &str) {
        let mut headers = table(others);
        if let Some(deaths) = deaths {
            headers.insert(DEATHS.into(), deaths);
        }
        let found = death(&headers, |queue| queue == "t.buried");
        let found = found.map_or_else(|| "none".to_owned(), |Death { queue, reason, .. }| format!("{queue} {reason}"));
        assert_eq!(found, expected, "{headers:?}");
    }

    #[test]
    fn the_newest_entry_is_believed() {
        let list = |entries: Vec<AMQPValue>| Some(AMQPValue::FieldArray(FieldArray::from(entries)));
        let first = [(FIRST_QUEUE, "t.lane.default"), (FIRST_REASON, "delivery_limit")];
        let (broker, forged) = (died("t.events", "expired"), died("t.lane.default", "delivery_limit"));
        check(list(vec![broker.clone()]), &[], "t.events expired");
        check(list(vec![broker.clone(), forged.clone()]), &first, "t.events expired");
        let by_the_way = died("t.buried", "delivery_limit");
        check(list(vec![by_the_way.clone(), broker, forged.clone()]), &first, "t.events expired");
        check(list(vec![by_the_way]), &first, "none");
        check(list(Vec::new()), &first, "none");
        check(list(vec![AMQPValue::Boolean(true), forged]), &first, "none");
        check(Some(AMQPValue::LongString("t.lane.default".into())), &first, "none");
        check(None, &first, "t.lane.default delivery_limit"); // as streams of older versions have it
        check(None, &first[..1], "none");
    }

    #[test]
    fn a_message_with_deaths_is_no_record() {
        let check = |name: &str, expected: bool| assert_eq!(has_died(&table(&[(name, "")])), expected, "{name}");
        check(DEATHS, true);
        check(FIRST_QUEUE, true);
        check(FIRST_REASON, true);
        check("hookfleet-record", false);
    }

    /// The time of the newest entry, as the broker has it.
    #[test]
    fn the_time_of_a_death() {
        let check = |time: Option<AMQPValue>, expected: Option<u64>| {
            let mut entry = table(&[("queue", "t.events"), ("reason", "expired")]);
            if let Some(time) = time {
                entry.insert(TIME.into(), time);
            }
            let mut headers = FieldTable::default();
            let deaths = vec![AMQPValue::FieldTable(entry), died("t.lane.slow", "rejected")];
            headers.insert(DEATHS.into(), AMQPValue::FieldArray(FieldArray::from(deaths)));
            headers.insert(TIME.into(), AMQPValue::Timestamp(1)); // a client's
            assert_eq!(death(&headers, |_| false).unwrap().at_ms, expected);
        };
        check(Some(AMQPValue::Timestamp(1_700_000_000)), Some(1_700_000_000_000));
        check(Some(AMQPValue::Timestamp(u64::MAX)), None);
        check(Some(AMQPValue::LongString("now".into())), None);
        check(None, None);
    }
}
