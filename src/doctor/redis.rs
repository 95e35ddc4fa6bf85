//! What is to be said about a Redis.

use std::time::Duration;

use super::facts::{RedisFacts, ServerFacts};
use super::{Finding, Load, bytes};

/// The oldest version that is tested, of Redis and of Valkey; `SET NX GET` came with it.
const OLDEST: u64 = 7;
/// A claim costs two calls: from here on, Redis is what an invocation waits for.
const LATENCY_MAX: Duration = Duration::from_millis(5);
/// Share of the memory that claims may take, in percent: the rest is for forks, buffers and bursts.
const MEMORY_SHARE: u64 = 70;

pub(super) fn examine(facts: &RedisFacts, load: Option<Load>) -> Vec<Finding> {
    let mut findings = match &facts.server {
        Ok(server) => vec![version(server), persistence(server), eviction(server)],
        Err(reason) => vec![
            Finding::fine("redis: claims", "claims can be written and deleted"),
            Finding::note(
                "redis: server",
                format!("version, persistence, eviction, memory and replicas cannot be looked at: {reason}"),
            )
            .advice(
                "the fleet needs no such right: give this user +info, +config|get and +memory|usage to have them looked \
                 at, or run doctor with another user's redis.url",
            ),
        ],
    };
    findings.push(memory(facts, load));
    findings.extend(facts.server.as_ref().map(replicas));
    let latency = format!("a call takes {:.2} ms", facts.latency.as_secs_f64() * 1000.0);
    findings.push(if facts.latency > LATENCY_MAX {
        Finding::warning("redis: latency", latency)
            .advice("every run waits for two calls: bring Redis nearer, or find what keeps it busy (SLOWLOG GET)")
    } else {
        Finding::fine("redis: latency", latency)
    });
    findings
}

fn replicas(server: &ServerFacts) -> Finding {
    match server.replicas {
        0 => {
            Finding::note("redis: replicas", "no replica: while this Redis is away, the fleet holds (redis.when_away)")
        }
        count => Finding::fine("redis: replicas", format!("{count} replicas")),
    }
}

fn version(facts: &ServerFacts) -> Finding {
    let ServerFacts { product, version, .. } = facts;
    if facts.is_replica {
        return Finding::problem("redis: version", format!("{product} {version} is a replica"))
            .advice("redis.url must name the primary: a replica takes no claims");
    }
    match version.split('.').next().and_then(|major| major.parse::<u64>().ok()) {
        Some(major) if major >= OLDEST => Finding::fine("redis: version", format!("{product} {version}")),
        _ => Finding::problem("redis: version", format!("{product} {version}"))
            .advice("use Redis 7.0 or newer, or Valkey"),
    }
}

fn persistence(facts: &ServerFacts) -> Finding {
    const SUBJECT: &str = "redis: persistence";
    let cost = "a forgotten claim costs a repeated run under the same Idempotency-Key, never an event";
    if facts.write_error {
        return Finding::problem(SUBJECT, "the last write to disk failed").advice("see Redis's log: is its disk full?");
    }
    if !facts.append_only {
        return Finding::warning(SUBJECT, "no append-only file: a restart forgets claims")
            .advice(format!("set appendonly yes; {cost}"));
    }
    match facts.fsync.as_deref() {
        Some("no") => Finding::warning(SUBJECT, "an append-only file that is never fsynced by Redis")
            .advice(format!("set appendfsync everysec; {cost}")),
        Some(fsync) => Finding::fine(SUBJECT, format!("an append-only file, fsync {fsync}")),
        None => Finding::fine(SUBJECT, "an append-only file"),
    }
}

fn eviction(facts: &ServerFacts) -> Finding {
    let found = format!("maxmemory-policy is {}", facts.policy);
    match facts.policy.as_str() {
        "noeviction" => Finding::fine("redis: eviction", found),
        _ if facts.memory_max == 0 => Finding::warning("redis: eviction", format!("{found}, without a maxmemory"))
            .advice("set maxmemory-policy noeviction before somebody sets a maxmemory"),
        _ => Finding::problem("redis: eviction", found)
            .advice("it deletes claims in silence, and their hooks run twice: set maxmemory-policy noeviction"),
    }
}

/// Bytes an invocation × rate × window against what there is.
fn memory(facts: &RedisFacts, load: Option<Load>) -> Finding {
    const SUBJECT: &str = "redis: memory";
    let Some(size) = facts.invocation_bytes else {
        return Finding::note(SUBJECT, "what an invocation takes cannot be measured: the user may not ask")
            .advice("it takes +memory|usage; a finished invocation takes some 200 bytes");
    };
    let each = format!("a finished invocation takes {}", bytes(size));
    let Some(load) = load else {
        return Finding::note(SUBJECT, each).advice("`--rate 500/s` tells how much memory your load takes");
    };
    let needed = needed(size, load);
    let found = format!("{each}, {}/s for {:?} take {}", load.rate, load.window, bytes(needed));
    let Ok(server) = &facts.server else { return Finding::note(SUBJECT, found) };
    if server.memory_max == 0 {
        return Finding::note(SUBJECT, format!("{found}; maxmemory is not set"))
            .advice("set maxmemory below what the machine has: Redis then refuses claims, instead of being killed");
    }
    let max = bytes(server.memory_max);
    if needed > server.memory_max / 100 * MEMORY_SHARE {
        return Finding::problem(SUBJECT, format!("{found}; maxmemory is {max}")).advice(format!(
            "set maxmemory to {} or more, or a shorter idempotency.window: a full Redis takes no claims, and the fleet holds",
            bytes(needed / MEMORY_SHARE * 100)
        ));
    }
    Finding::fine(SUBJECT, format!("{found} of {max}, {} in use", bytes(server.memory_used)))
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
fn needed(each: u64, load: Load) -> u64 {
    (each as f64 * load.rate * load.window.as_secs_f64()) as u64
}
