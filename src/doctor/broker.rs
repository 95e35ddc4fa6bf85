//! What is to be said about a RabbitMQ.

use std::time::Duration;

use super::facts::{BrokerFacts, ManagementFacts, NodeFacts};
use super::{Finding, bytes};

/// The oldest version that is tested.
const OLDEST: (u64, u64) = (3, 10);
/// Headers of our own messages, with their histories and a client's headers, need so much of a frame.
const FRAME_MIN: u32 = 128 * 1024;
/// No delivery is held longer than a minute, but a worker that is frozen may be.
const CONSUMER_TIMEOUT_MIN: Duration = Duration::from_mins(5);

pub(super) fn examine(facts: &BrokerFacts) -> Vec<Finding> {
    let mut findings = vec![version(facts)];
    if facts.blocked {
        findings.push(
            Finding::problem("broker: alarm", "the broker takes no messages: it is short of memory or disk space")
                .advice("see its log, and `rabbitmqctl status`; publishers and workers wait until it is over"),
        );
    }
    if facts.frame_max != 0 && facts.frame_max < FRAME_MIN {
        findings.push(
            Finding::warning("broker: frames", format!("frame_max is {}", bytes(facts.frame_max.into())))
                .advice("messages with large headers are refused: set frame_max = 131072 in rabbitmq.conf"),
        );
    }
    findings.extend(topology(&facts.topology));
    findings.extend(
        facts.unreadable.as_ref().filter(|(count, _)| *count > 0).map(|(count, queue)| unreadable(*count, queue)),
    );
    match &facts.management {
        Ok(management) => findings.extend(managed(management, facts.body_bytes_max)),
        Err(error) => findings.push(
            Finding::note("broker: management", format!("nodes, policies and alarms were not looked at: {error}"))
                .advice("`hookfleet topology print` lists the policies that a production broker should have"),
        ),
    }
    findings
}

fn version(facts: &BrokerFacts) -> Finding {
    let BrokerFacts { product, version, .. } = facts;
    let mut numbers = version.split('.').map_while(|part| part.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        _ if product != "RabbitMQ" => Finding::warning("broker: version", format!("{product} {version}"))
            .advice("only RabbitMQ is tested: it needs quorum queues, streams and at-least-once dead-lettering"),
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => {
            Finding::fine("broker: version", format!("RabbitMQ {version}"))
        }
        (Some(_), Some(_)) => Finding::problem("broker: version", format!("RabbitMQ {version}"))
            .advice("use 3.10 or newer: older ones lack at-least-once dead-lettering, and lose retries"),
        _ => Finding::unknown("broker: version", "the broker does not tell its version"),
    }
}

fn unreadable(count: u64, queue: &str) -> Finding {
    let found = format!("{count} messages could be handed to no worker, since the broker cannot convert them");
    Finding::warning("broker: unreadable", found).advice(format!(
        "they lie in queue {queue}: read them with a client of the protocol that they came by (AMQP 1.0, MQTT, STOMP), find \
         who publishes such values, then `rabbitmqctl purge_queue {queue}`"
    ))
}

fn topology(differing: &[String]) -> Vec<Finding> {
    let (missing, wrong): (Vec<_>, Vec<_>) = differing.iter().partition(|finding| finding.contains("does not exist"));
    let mut findings = Vec::new();
    if differing.is_empty() {
        findings.push(Finding::fine("broker: queues", "exchanges and queues are as they should be"));
    }
    if !missing.is_empty() {
        let found = format!("{} exchanges and queues do not exist yet", missing.len());
        findings.push(Finding::note("broker: queues", found).advice("the first worker or publisher declares them"));
    }
    findings.extend(wrong.into_iter().map(|finding| Finding::problem("broker: queues", finding.as_str())));
    findings
}

fn managed(facts: &ManagementFacts, body_bytes_max: usize) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.nodes.iter().flat_map(node).collect();
    findings.push(match facts.nodes.len() {
        0 | 1 => Finding::note("broker: nodes", "one node: queues survive a crash, but not the loss of its disk").advice(
            "streams are not fsynced: after a power cut the newest dead letters may be gone. Run three nodes where that \
             matters",
        ),
        2 => Finding::warning("broker: nodes", "two nodes have no majority when one is away: everything stops then")
            .advice("run three nodes, or one"),
        count => Finding::fine("broker: nodes", format!("{count} nodes")),
    });
    findings.extend(facts.policies.iter().map(|what| {
        Finding::warning("broker: policies", what.clone()).advice("`hookfleet topology apply` sets them all")
    }));
    if facts.untold > 0 {
        let found = format!("{} queues do not tell yet which policies hold for them", facts.untold);
        findings.push(Finding::note("broker: policies", found).advice("look again in some seconds"));
    }
    findings.extend(facts.harms.iter().map(|what| {
        Finding::problem("broker: policies", what.clone()).advice(
            "let its pattern leave out the queues of the fleet, or clear it (rabbitmqctl clear_policy, or \
             clear_operator_policy)",
        )
    }));
    if let Some(timeout) = facts.consumer_timeout.filter(|timeout| *timeout < CONSUMER_TIMEOUT_MIN) {
        findings.push(
            Finding::warning("broker: timeout", format!("consumer_timeout is {timeout:?}")).advice(
                "a worker that pauses loses its channel, and what it holds is delivered again: allow 5 minutes",
            ),
        );
    }
    if let Some(max) = facts.message_bytes_max {
        let needed = u64::try_from(body_bytes_max).unwrap_or(u64::MAX);
        let found = format!("the broker takes messages of {}", bytes(max));
        findings.push(if max < needed {
            Finding::problem("broker: messages", format!("{found}, events.body_bytes_max is {}", bytes(needed)))
                .advice("raise max_message_size in rabbitmq.conf, or lower events.body_bytes_max")
        } else {
            Finding::fine("broker: messages", found)
        });
    }
    findings
}

fn node(node: &NodeFacts) -> Vec<Finding> {
    let name = &node.name;
    if !node.running {
        let found = format!("node {name} does not run");
        return vec![Finding::problem("broker: nodes", found).advice("start it: the next loss may stop everything")];
    }
    let alarm = |what: &str| {
        Finding::problem("broker: alarm", format!("node {name} is short of {what}: the broker takes no messages"))
            .advice(format!("give it more {what}, or consume what waits; nothing is lost meanwhile"))
    };
    let alarms = [(node.memory_alarm, "memory"), (node.disk_alarm, "disk space")];
    alarms.into_iter().filter(|(on, _)| *on).map(|(_, what)| alarm(what)).collect()
}
