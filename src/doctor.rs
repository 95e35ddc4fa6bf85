//! What is wrong with the surroundings of a fleet, and what to do about it: servers, catalog, clocks, disk.
//!
//! `facts` says what can be known, `gather` asks for it, and everything here judges: pure, from facts to findings.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

mod backlog;
mod broker;
mod crew;
pub mod facts;
pub mod gather;
mod redis;

use facts::{CatalogFacts, Facts, FileFacts, Gathered, Servers};

/// Difference of two clocks from which on times in letters and signatures mislead.
const SKEW_MAX_MS: u64 = 2_000;
/// Space below which an embedded file has no room to work.
const DISK_BYTES_MIN: u64 = 512 * 1024 * 1024;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Fine,
    /// Good to know; nothing has to be done.
    Note,
    /// It could not be found out.
    Unknown,
    /// The fleet works, with less than it promises.
    Warning,
    /// Work is lost, stuck or refused, or will be.
    Problem,
}

impl Severity {
    /// As people are shown it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Problem => "PROBLEM",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// What it is about: `redis: memory`.
    pub subject: &'static str,
    /// What was found, one sentence.
    pub found: String,
    /// What to do, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    fn new(severity: Severity, subject: &'static str, found: impl Into<String>) -> Self {
        Self { severity, subject, found: found.into(), advice: None }
    }

    fn fine(subject: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Fine, subject, found)
    }

    fn note(subject: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Note, subject, found)
    }

    fn unknown(subject: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Unknown, subject, found)
    }

    fn warning(subject: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Warning, subject, found)
    }

    fn problem(subject: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Problem, subject, found)
    }

    fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<18} {}", self.severity.word(), self.subject, self.found)?;
        match &self.advice {
            Some(advice) => write!(f, "\n{:28}-> {advice}", ""),
            None => Ok(()),
        }
    }
}

/// What the fleet is to carry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Invocations a second: events times the hooks that want each.
    pub rate: f64,
    /// How long each is remembered.
    pub window: Duration,
}

/// 0: nothing is wrong. 1: there are problems. 3: something could not be looked at, and the rest is fine.
#[must_use]
pub fn exit_code(findings: &[Finding]) -> u8 {
    let any = |severity| findings.iter().any(|finding| finding.severity == severity);
    if any(Severity::Problem) {
        1
    } else if any(Severity::Unknown) {
        3
    } else {
        0
    }
}

/// Everything that can be said about these facts, in a fixed order.
#[must_use]
pub fn examine(facts: &Facts, load: Option<Load>) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.servers {
        Servers::Fleet(fleet) => {
            match &fleet.broker {
                Ok(broker) => {
                    findings.extend(broker::examine(broker));
                    findings.extend(backlog::examine(&broker.backlogs));
                }
                Err(error) => findings.push(Finding::unknown("broker", error.as_str())),
            }
            match &fleet.redis {
                Ok(redis) => {
                    findings.extend(redis::examine(redis, load));
                    findings.push(clocks(redis.ahead_ms));
                }
                Err(error) => findings.push(Finding::unknown("redis", error.as_str())),
            }
            match &fleet.crew {
                Ok(facts) => findings.extend(crew::examine(facts)),
                Err(error) if fleet.redis.as_ref().err() == Some(error) => {} // said by now
                Err(error) => findings.push(Finding::unknown("workers", error.as_str())),
            }
        }
        Servers::File(file) => findings.extend(disk(file)),
    }
    findings.extend(catalog(&facts.catalog));
    findings
}

fn clocks(ahead_ms: i64) -> Finding {
    let (skew, whose) = (ahead_ms.unsigned_abs(), if ahead_ms > 0 { "ahead of" } else { "behind" });
    let found = format!("this machine's clock is {skew} ms {whose} Redis's");
    if skew < SKEW_MAX_MS {
        return Finding::fine("clocks", found);
    }
    Finding::warning("clocks", found)
        .advice("claims and delays do not depend on it, but times in letters and signatures do: run NTP on both")
}

fn catalog(facts: &Gathered<CatalogFacts>) -> Vec<Finding> {
    let catalog = match facts {
        Err(problems) => {
            let found = format!("the catalog cannot be used here, and a worker that starts does no work:\n{problems}");
            let advice = "mend what `hookfleet hooks check` tells, or bring a good one with `hookfleet hooks apply`";
            return vec![Finding::problem("catalog", found).advice(advice)];
        }
        Ok(catalog) => catalog,
    };
    let mut findings = vec![if catalog.hooks == 0 {
        Finding::warning("catalog", "there are no hooks: every event is dropped as unwanted")
            .advice("write some into the hooks file")
    } else {
        Finding::fine("catalog", format!("{} hooks, revision {}", catalog.hooks, catalog.revision))
    }];
    findings.extend(catalog.refused.iter().map(|(hook, reason)| {
        Finding::problem("catalog: target", format!("hook {hook}: {reason}")).advice(
            "its invocations become dead letters: allow it with egress.allow or egress.ports, or correct the URL",
        )
    }));
    findings.extend(catalog.unresolved.iter().map(|(hook, reason)| {
        Finding::warning("catalog: target", format!("hook {hook}: {reason}"))
            .advice("is the name right, and known here?")
    }));
    findings
}

fn disk(facts: &Gathered<FileFacts>) -> Vec<Finding> {
    let file = match facts {
        Err(error) => return vec![Finding::unknown("file", error.as_str())],
        Ok(file) => file,
    };
    let path = &file.path;
    let broker = Finding::note("broker", format!("no broker is set: everything is kept in the file {path}"))
        .advice("for a fleet of workers set broker.url and redis.url (HOOKFLEET_BROKER_URL, HOOKFLEET_REDIS_URL)");
    let owner = match (&file.owner, file.is_there) {
        (Some(owner), _) => Finding::fine("file: owner", format!("{path} is open in the process that serves {owner}")),
        (None, true) => Finding::warning("file: owner", format!("no process has {path} open: what is in it waits"))
            .advice("run `hookfleet up` on it"),
        (None, false) => Finding::warning("file: owner", format!("there is no file {path}, so nothing runs here"))
            .advice("run `hookfleet up`, which makes it, or set embedded.path to the file that you mean"),
    };
    let free = bytes(file.free);
    let space = if file.free < DISK_BYTES_MIN {
        Finding::problem("file: space", format!("{free} are free where the embedded file lies"))
            .advice("make room: a full disk refuses all publishing, though it loses nothing")
    } else {
        Finding::fine("file: space", format!("{free} are free where the embedded file lies"))
    };
    let found = format!("the embedded file lies on {}", file.system);
    let system = match file.system.as_str() {
        "nfs" | "cifs" => Finding::problem("file: system", found)
            .advice("network file systems keep no write-ahead log safely: choose a local disk (embedded.path)"),
        "tmpfs" => Finding::problem("file: system", found)
            .advice("it is memory, gone with the machine's next start: choose a disk (embedded.path)"),
        "overlayfs" => Finding::warning("file: system", found)
            .advice("in a container it goes with the container: put embedded.path on a volume"),
        _ => Finding::fine("file: system", found),
    };
    let mut findings = vec![broker, owner, space, system];
    findings.extend(backlog::examine(&file.backlogs));
    findings
}

/// Bytes as people read them.
fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = count.checked_ilog2().map_or(0, |log| log / 10).min(4);
    let hundredths = (u128::from(count) * 100) >> (10 * step);
    let unit = units[usize::try_from(step).unwrap_or_default()];
    match step {
        0 => format!("{count} {unit}"),
        _ => format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100),
    }
}

#[cfg(test)]
mod tests;
