//! Policies: limits and retention, which operators may change while the fleet runs. Pure.
//!
//! `hookfleet topology apply` sets them over the management API; without one, an operator runs the printed commands.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::topology::Names;
use crate::domain::message::{Lane, Queue};

pub mod harm;

/// How often a message may come back unacked before the broker buries it. A small limit buries the innocent beside the
/// poison: lost connections count too.
pub(super) const DELIVERIES_MAX: u32 = 200;
/// In lane `suspect` each is alone: whatever kills a worker before it can be claimed is buried here.
const SUSPECT_DELIVERIES_MAX: u32 = 20;
/// The copies beside the stream come back with every look that is broken off, and have nowhere to be buried.
const RECENT_DELIVERIES_MAX: u32 = 1_000_000;
/// Retention drops whole segments of the stream.
const SEGMENT_BYTES: u32 = 50_000_000;

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    /// Which queues it is for, as the broker reads it.
    pub pattern: String,
    /// The same queues by name.
    pub queues: Vec<String>,
    pub definition: Map<String, Value>,
}

/// A policy of a vhost, as the management API tells.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PolicyFound {
    pub name: String,
    pub pattern: String,
    pub definition: Map<String, Value>,
}

/// A queue or stream of a vhost, as the management API tells. Counts lag by some seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct QueueFound {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// The policy in force, if any.
    pub policy: Option<String>,
    /// The operator policy in force, if any: it bounds what the policy says.
    pub operator_policy: Option<String>,
    /// What both come to: an object, or an empty list.
    #[serde(rename = "effective_policy_definition")]
    pub effective: Value,
    /// Ready and unacked; none until the first statistics.
    pub messages: Option<u64>,
    pub consumers: Option<u64>,
}

/// An exchange of a vhost, as the management API tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ExchangeFound {
    pub name: String,
    /// The policy in force, if any.
    pub policy: Option<String>,
}

/// The policies of a namespace; the dead-letter stream keeps its records for `retention`.
#[must_use]
pub fn policies(namespace: &str, retention: Duration) -> Vec<Policy> {
    let names = Names::new(namespace);
    let work = Queue::ALL.into_iter().chain([Queue::Undecided]).filter(|queue| *queue != Queue::Lane(Lane::Suspect));
    let policy = |name: &str, queues: Vec<String>, definition: Value| Policy {
        name: format!("{namespace}-{name}"),
        pattern: pattern(&queues),
        queues,
        definition: definition.as_object().cloned().unwrap_or_default(),
    };
    vec![
        policy("work", work.map(|queue| names.queue(queue)).collect(), json!({ "delivery-limit": DELIVERIES_MAX })),
        policy(
            "suspect",
            vec![names.queue(Queue::Lane(Lane::Suspect))],
            json!({ "delivery-limit": SUSPECT_DELIVERIES_MAX }),
        ),
        policy("recent", vec![names.recent()], json!({ "delivery-limit": RECENT_DELIVERIES_MAX })),
        policy(
            "dead",
            vec![names.dead()],
            json!({ "max-age": max_age(retention), "stream-max-segment-size-bytes": SEGMENT_BYTES }),
        ),
    ]
}

/// Exactly these names, as a regular expression.
fn pattern(queues: &[String]) -> String {
    let escaped: Vec<String> = queues.iter().map(|queue| queue.replace('.', "\\.")).collect();
    match escaped.as_slice() {
        [one] => format!("^{one}$"),
        many => format!("^({})$", many.join("|")),
    }
}

/// An age as streams read it: a whole number of the largest unit that leaves no rest.
fn max_age(age: Duration) -> String {
    let seconds = age.as_secs().max(1);
    let units = [(24_u64 * 3600, 'D'), (3600, 'h'), (60, 'm'), (1, 's')];
    let (unit, letter) = units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit)).unwrap_or((1, 's'));
    format!("{}{letter}", seconds / unit)
}

impl Policy {
    /// The definition as JSON.
    #[must_use]
    pub fn definition(&self) -> String {
        Value::Object(self.definition.clone()).to_string()
    }

    /// The command that sets it on a node.
    #[must_use]
    pub fn command(&self, vhost: &str) -> String {
        let Self { name, pattern, .. } = self;
        let (vhost, definition) = (quoted(vhost), self.definition());
        format!("rabbitmqctl -p {vhost} set_policy --apply-to queues {name} '{pattern}' '{definition}'")
    }
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What is missing or different on the broker, one sentence each.
#[must_use]
pub fn compare(policies: &[Policy], found: &[PolicyFound], queues: &[QueueFound]) -> Vec<String> {
    let mut findings = Vec::new();
    for policy in policies {
        let Policy { name, pattern, definition, .. } = policy;
        let Some(there) = found.iter().find(|there| there.name == *name) else {
            findings.push(format!("policy {name} does not exist: `hookfleet topology apply` sets it"));
            continue;
        };
        if there.pattern != *pattern || there.definition != *definition {
            findings.push(format!(
                "policy {name} is {} for {}, expected {} for {pattern}: `hookfleet topology apply` sets it again, unless \
                 it was changed on purpose",
                Value::Object(there.definition.clone()),
                there.pattern,
                policy.definition(),
            ));
        }
        let others = queues.iter().filter(|queue| policy.queues.contains(&queue.name));
        findings.extend(others.filter_map(|queue| match queue.policy.as_deref() {
            Some(other) if !other.is_empty() && other != name => Some(format!(
                "queue {} is under policy {other}, which outranks {name}: one policy holds at a time",
                queue.name
            )),
            _ => None,
        }));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let policies = policies("t.x", Duration::from_hours(30 * 24));
        let commands: Vec<String> = policies.iter().map(|policy| policy.command("/")).collect();
        assert_eq!(
            commands,
            [
                r#"rabbitmqctl -p / set_policy --apply-to queues t.x-work '^(t\.x\.events|t\.x\.lane\.default|t\.x\.lane\.slow|t\.x\.lane\.replay|t\.x\.lane\.overflow\.0|t\.x\.lane\.overflow\.1|t\.x\.lane\.overflow\.2|t\.x\.lane\.overflow\.3|t\.x\.lane\.overflow\.4|t\.x\.lane\.overflow\.5|t\.x\.lane\.overflow\.6|t\.x\.lane\.overflow\.7|t\.x\.gates\.expired)$' '{"delivery-limit":200}'"#,
                r#"rabbitmqctl -p / set_policy --apply-to queues t.x-suspect '^t\.x\.lane\.suspect$' '{"delivery-limit":20}'"#,
                r#"rabbitmqctl -p / set_policy --apply-to queues t.x-recent '^t\.x\.dead\.recent$' '{"delivery-limit":1000000}'"#,
                r#"rabbitmqctl -p / set_policy --apply-to queues t.x-dead '^t\.x\.dead$' '{"max-age":"30D","stream-max-segment-size-bytes":50000000}'"#,
            ]
        );
        assert!(policies[0].command("a b's").starts_with(r"rabbitmqctl -p 'a b'\''s' set_policy"));
    }

    #[test]
    fn ages() {
        for (seconds, expected) in
            [(30 * 24 * 3600, "30D"), (24 * 3600, "1D"), (36 * 3600, "36h"), (90 * 60, "90m"), (61, "61s"), (0, "1s")]
        {
            assert_eq!(max_age(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn comparisons() {
        let policies = policies("t", Duration::from_hours(24));
        let there = |policy: &Policy| PolicyFound {
            name: policy.name.clone(),
            pattern: policy.pattern.clone(),
            definition: policy.definition.clone(),
        };
        let queue = |name: &str, policy: &str| QueueFound {
            name: name.to_owned(),
            policy: Some(policy.to_owned()),
            ..QueueFound::default()
        };
        let check = |found: &[PolicyFound], queues: &[QueueFound], expected: &[&str]| {
            let findings = compare(&policies, found, queues);
            assert_eq!(findings.len(), expected.len(), "{findings:?}");
            for (finding, expected) in findings.iter().zip(expected) {
                assert!(finding.contains(expected), "{finding}");
            }
        };
        let all: Vec<PolicyFound> = policies.iter().map(there).collect();
        check(&all, &[queue("t.events", "t-work"), queue("t.dead", ""), queue("other", "x")], &[]);
        check(&all[1..], &[], &["policy t-work does not exist"]);
        let mut changed = all.clone();
        changed[3].definition.insert("max-age".to_owned(), json!("7D"));
        check(&changed, &[], &[r#"policy t-dead is {"max-age":"7D""#]);
        check(&all, &[queue("t.lane.slow", "ha")], &["queue t.lane.slow is under policy ha, which outranks t-work"]);
    }
}
