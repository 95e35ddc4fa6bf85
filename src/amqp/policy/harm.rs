//! Policies that cost work: what the definitions in force do to the queues and exchanges of the fleet. Pure.
//!
//! The broker merges policy and operator policy into one effective definition a queue, and that with the queue's own
//! arguments: of two numbers the smaller one holds, of two texts the argument. So a policy that somebody sets for other
//! queues, by a wide pattern, can delete retries without a word.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{ExchangeFound, Policy, PolicyFound, QueueFound};
use crate::amqp::topology::{Argument, QueueSpec, Topology};

/// No delivery is held for longer than a minute, but a worker that is frozen may be.
const CONSUMER_TIMEOUT_MIN_MS: i64 = 5 * 60 * 1000;
/// So many names are listed; the others are counted.
const NAMED_MAX: usize = 3;

/// What the management API knows of a vhost.
#[derive(Debug, Clone, Default)]
pub struct InForce {
    pub queues: Vec<QueueFound>,
    pub exchanges: Vec<ExchangeFound>,
    pub policies: Vec<PolicyFound>,
}

/// What a queue is for, as far as policies can harm it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The stream of dead letters.
    Log,
    /// Copies of the newest letters, which make room by themselves.
    Copies,
    /// Holds retries for so many milliseconds, and is consumed by nobody.
    Delay(i64),
    /// Requests to gates.
    Requests,
    /// Work that waits for a worker.
    Work,
    /// Nothing leaves it by itself: probes, and what the broker can hand to nobody.
    Apart,
}

impl Role {
    fn of(queue: &QueueSpec) -> Self {
        let find = |wanted: &str| queue.arguments.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        let is = |name: &str, wanted: &str| matches!(find(name), Some(Argument::Text(text)) if text == wanted);
        match find("x-message-ttl") {
            _ if is("x-queue-type", "stream") => Self::Log,
            _ if is("x-queue-type", "classic") => Self::Requests,
            Some(Argument::Number(_)) if is("x-overflow", "drop-head") => Self::Copies,
            _ if find("x-dead-letter-exchange").is_none() => Self::Apart,
            Some(Argument::Number(hold_ms)) => Self::Delay(*hold_ms),
            _ => Self::Work,
        }
    }

    /// What it costs that this key has this value; `None`: nothing. `wanted` is the value of our own policy.
    fn cost(self, key: &str, value: &Value, wanted: Option<&Value>) -> Option<String> {
        let number = value.as_i64().unwrap_or(i64::MAX);
        let is_less = |own: Option<&Value>| own.and_then(Value::as_i64).is_some_and(|own| number >= 0 && number < own);
        if let ("message-ttl", Self::Delay(hold_ms)) = (key, self) {
            let early = || format!("what waits in it comes back after {number} ms in place of {hold_ms} ms");
            return (number < hold_ms).then(early);
        }
        let said = match (key, self) {
            ("expires", Self::Delay(_)) => {
                "nobody consumes it, so the broker deletes it with all retries and parked work in it"
            }
            ("expires", Self::Log) => "the broker deletes all dead letters once nobody has read them for so long",
            ("expires", Self::Apart) => "the broker deletes it with all that is in it",
            ("expires", _) => {
                "the broker deletes it with all that waits in it once no worker has consumed it for so long"
            }
            ("message-ttl", Self::Work) => "what waits for longer becomes a dead letter that no hook has seen",
            ("message-ttl", Self::Requests) => "requests that wait for longer are not decided",
            ("message-ttl" | "max-length" | "max-length-bytes", Self::Copies) => {
                "after a power cut `hookfleet dead-letters recover` finds fewer copies"
            }
            ("max-length-bytes", Self::Log) => "the oldest dead letters are dropped beyond it, open ones too",
            ("max-length" | "max-length-bytes", Self::Work) => {
                "what is published beyond it is refused: publishers wait, and workers that hand work on"
            }
            ("max-length" | "max-length-bytes", Self::Delay(_)) => {
                "retries beyond it are refused: workers hold what they cannot send on, and then take no more"
            }
            ("max-length" | "max-length-bytes", Self::Requests) => {
                "the oldest requests beyond it are dropped, and not decided"
            }
            ("delivery-limit", Self::Work) if is_less(wanted) => {
                "what comes back so often becomes a dead letter, and each lost connection counts"
            }
            ("delivery-limit", Self::Copies) if is_less(wanted) => {
                "copies of dead letters are dropped after so many looks at them"
            }
            ("dead-letter-routing-key", Self::Delay(_)) => {
                "retries find their way by their routing key, and never arrive with this one"
            }
            ("dead-letter-exchange", Self::Copies) => "copies of dead letters go there when they are too old",
            ("max-age", Self::Log) if is_shorter(value, wanted) => {
                "open dead letters are dropped: the keeper writes them anew after half of dead_letters.retention"
            }
            ("consumer-timeout", Self::Work | Self::Requests | Self::Copies) if number < CONSUMER_TIMEOUT_MIN_MS => {
                "a worker that stands still for so long loses its channel, and what it holds comes again"
            }
            _ => return None,
        };
        Some(said.to_owned())
    }
}

/// What a policy of an exchange costs; `has_alternate`: its own argument holds.
fn cost_of_exchange(key: &str, has_alternate: bool, takes_events: bool) -> Option<&'static str> {
    match key {
        "alternate-exchange" if !has_alternate => {
            Some("what a queue lets go while the broker starts leaves the fleet by it, in place of waiting")
        }
        "federation-upstream" | "federation-upstream-set" if !takes_events => {
            Some("messages of another broker come into it, and the fleet takes them for its own")
        }
        _ => None,
    }
}

/// Whether letters are kept for a shorter time than the fleet thinks.
fn is_shorter(value: &Value, wanted: Option<&Value>) -> bool {
    let age = |value: &Value| value.as_str().and_then(age);
    match (age(value), wanted.and_then(age)) {
        (Some(found), Some(wanted)) => found < wanted,
        _ => false,
    }
}

/// An age as streams read it.
fn age(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "Y" => 365 * 24 * 3600,
        "M" => 30 * 24 * 3600,
        "D" => 24 * 3600,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// The policies that cost work, one sentence each: which, what it says, for which queues, and what that costs.
#[must_use]
pub fn harms(topology: &Topology, wanted: &[Policy], found: &InForce) -> Vec<String> {
    let mut harms: BTreeMap<Harm, Vec<&str>> = BTreeMap::new();
    for spec in &topology.queues {
        let Some(queue) = found.queues.iter().find(|queue| queue.name == spec.name) else { continue };
        let role = Role::of(spec);
        let own = wanted.iter().find(|policy| policy.queues.contains(&spec.name));
        for (key, value) in effective(queue, &found.policies) {
            if let Some(cost) = role.cost(&key, &value, own.and_then(|policy| policy.definition.get(&key))) {
                let harm = Harm { by: queue.policies(), key, value: value.to_string(), kind: "queue", cost };
                harms.entry(harm).or_default().push(&spec.name);
            }
        }
    }
    for spec in &topology.exchanges {
        let exchange = found.exchanges.iter().find(|exchange| exchange.name == spec.name);
        let Some(name) = exchange.and_then(|exchange| exchange.policy.as_deref()) else { continue };
        let Some(policy) = found.policies.iter().find(|policy| policy.name == name) else { continue };
        let has_alternate = spec.arguments.iter().any(|(name, _)| *name == "alternate-exchange");
        for (key, value) in &policy.definition {
            if let Some(cost) = cost_of_exchange(key, has_alternate, spec.name.ends_with(".events")) {
                let (by, cost) = (format!("policy {name}"), cost.to_owned());
                let harm = Harm { by, key: key.clone(), value: value.to_string(), kind: "exchange", cost };
                harms.entry(harm).or_default().push(&spec.name);
            }
        }
    }
    harms.into_iter().map(|(harm, names)| harm.sentence(&names)).collect()
}

/// How many queues of the fleet do not say yet what holds for them: the management API knows some seconds after they are
/// declared, or a policy has changed.
#[must_use]
pub fn untold(topology: &Topology, found: &InForce) -> usize {
    let is_untold = |name: &String| found.queues.iter().any(|queue| queue.name == *name && queue.effective.is_null());
    topology.queues.iter().filter(|spec| is_untold(&spec.name)).count()
}

/// One key of one policy, and what it costs; the same for many queues.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Harm {
    by: String,
    key: String,
    value: String,
    kind: &'static str,
    cost: String,
}

impl Harm {
    fn sentence(&self, names: &[&str]) -> String {
        let Self { by, key, value, kind, cost } = self;
        let plural = if names.len() > 1 { "s" } else { "" };
        let listed = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        let others = match names.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        format!("{by} sets {key} = {value} for {kind}{plural} {listed}{others}: {cost}")
    }
}

/// What policy and operator policy come to. Where the API does not tell, what the policy says.
fn effective(queue: &QueueFound, policies: &[PolicyFound]) -> Map<String, Value> {
    match &queue.effective {
        Value::Object(definition) => definition.clone(),
        Value::Array(_) => Map::new(), // none, as some versions write it
        _ => {
            let named = policies.iter().find(|policy| Some(&policy.name) == queue.policy.as_ref());
            named.map(|policy| policy.definition.clone()).unwrap_or_default()
        }
    }
}

impl QueueFound {
    /// The policies that hold for it, by name.
    fn policies(&self) -> String {
        let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        match (named(&self.policy), named(&self.operator_policy)) {
            (None, None) => "a policy".to_owned(),
            (Some(policy), None) => format!("policy {policy}"),
            (None, Some(operator)) => format!("operator policy {operator}"),
            (Some(policy), Some(operator)) => format!("policy {policy} or operator policy {operator}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::policies;
    use super::*;

    /// What is in force for one queue or exchange of namespace `t`, and what is said of it.
    #[expect(clippy::needless_pass_by_value, reason = "written where it is checked")]
    fn check(name: &str, definition: Value, expected: &str) {
        let (topology, wanted) = (Topology::new("t"), policies("t", Duration::from_hours(24)));
        let queue = QueueFound {
            name: name.to_owned(),
            operator_policy: Some("ops".to_owned()),
            effective: definition.clone(),
            ..QueueFound::default()
        };
        let exchange = ExchangeFound { name: name.to_owned(), policy: Some("all".to_owned()) };
        let definition = definition.as_object().cloned().unwrap_or_default();
        let policy = PolicyFound { name: "all".to_owned(), pattern: ".*".to_owned(), definition };
        let is_queue = topology.queues.iter().any(|queue| queue.name == name);
        let found = InForce {
            queues: vec![queue].into_iter().filter(|_| is_queue).collect(),
            exchanges: vec![exchange].into_iter().filter(|_| !is_queue).collect(),
            policies: vec![policy],
        };
        let said = harms(&topology, &wanted, &found);
        assert_eq!(said.len(), usize::from(!expected.is_empty()), "{name}: {said:?}");
        assert!(said.iter().all(|said| said.contains(expected)), "{name}: {said:?}");
    }

    /// The six of case D2, others of their kind, and what does no harm.
    #[test]
    fn d2_policies_that_cost_work() {
        check("t.events", json!({ "message-ttl": 60_000 }), "becomes a dead letter that no hook has seen");
        check(
            "t.delay.3",
            json!({ "expires": 60_000 }),
            "operator policy ops sets expires = 60000 for queue t.delay.3: ",
        );
        check("t.unreadable", json!({ "expires": 60_000 }), "deletes it with all that is in it");
        check("t.running", json!({ "expires": 60_000 }), "deletes it with all retries");
        check("t.park.2", json!({ "expires": 60_000 }), "deletes it with all retries");
        check("t.lane.slow", json!({ "expires": 60_000 }), "once no worker has consumed it");
        check("t.dead", json!({ "max-length-bytes": 1_000_000 }), "the oldest dead letters are dropped");
        check("t.delay.3", json!({ "message-ttl": 1000 }), "comes back after 1000 ms in place of 2000 ms");
        check("t.gates", json!({ "max-length": 10 }), "the oldest requests beyond it are dropped");
        check("t.dead", json!({ "max-age": "6h" }), "open dead letters are dropped");
        check("t.events", json!({ "max-length": 10 }), "is refused: publishers wait");
        check("t.delay.3", json!({ "max-length": 10 }), "retries beyond it are refused");
        check("t.delay.3", json!({ "dead-letter-routing-key": "x" }), "never arrive");
        check("t.events", json!({ "delivery-limit": 5 }), "each lost connection counts");
        check("t.lane.default", json!({ "consumer-timeout": 60_000 }), "loses its channel");
        check("t.dead.recent", json!({ "message-ttl": 60_000 }), "finds fewer copies");
        check("t.gates", json!({ "message-ttl": 1 }), "are not decided");
        check(
            "t.delay.end",
            json!({ "alternate-exchange": "x" }),
            "policy all sets alternate-exchange = \"x\" for exchange",
        );
        check("t.lane", json!({ "federation-upstream-set": "all" }), "takes them for its own");

        check("t.delay.3", json!({ "message-ttl": 2000 }), "");
        check("t.delay.3", json!({ "delivery-limit": 1 }), ""); // nobody consumes it
        check("t.delay.3", json!({ "dead-letter-strategy": "at-most-once", "overflow": "drop-head" }), ""); // ours hold
        check("t.events", json!({ "delivery-limit": 200, "queue-leader-locator": "balanced" }), "");
        check("t.events", json!({ "delivery-limit": -1 }), "");
        check("t.dead", json!({ "max-age": "1D", "stream-max-segment-size-bytes": 50_000_000 }), "");
        check("t.dead", json!({ "max-age": "2D", "message-ttl": 1 }), "");
        check("t.events", json!([]), "");
        check("t.lane", json!({ "alternate-exchange": "x" }), ""); // its argument holds
        check("elsewhere", json!({ "expires": 1 }), "");
    }

    /// A wide pattern is one sentence a cost, not one a queue.
    #[test]
    fn d2_many_queues_are_one_sentence() {
        let (topology, wanted) = (Topology::new("t"), policies("t", Duration::from_hours(24)));
        let queue = |spec: &QueueSpec| QueueFound {
            name: spec.name.clone(),
            policy: Some("tidy".to_owned()),
            ..QueueFound::default()
        };
        let definition = json!({ "expires": 60_000 }).as_object().cloned().unwrap();
        let found = InForce {
            queues: topology.queues.iter().map(queue).collect(),
            policies: vec![PolicyFound { name: "tidy".into(), pattern: "^t".into(), definition }],
            ..InForce::default()
        };
        let said = harms(&topology, &wanted, &found);
        assert_eq!((said.len(), untold(&topology, &found)), (4, topology.queues.len()), "{said:#?}");
        assert!(
            said.iter().any(|said| said.contains("t.delay.0, t.delay.1, t.delay.2 and 25 more: nobody")),
            "{said:#?}"
        );
    }
}
