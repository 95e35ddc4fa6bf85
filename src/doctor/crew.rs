//! What is to be said about the workers that are there, by what they say of themselves.

use std::collections::BTreeMap;

use super::Finding;
use super::facts::CrewFacts;
use crate::flow::{Card, Kept};

/// Letters that are open are written again at half of their time.
const RETENTION_USED_MAX: f64 = 0.75;
/// By then one of the workers keeps the log of the dead letters.
const KEEPER_WITHIN_MS: u64 = 90_000;
/// Workers that are named one by one.
const NAMED_MAX: usize = 3;

pub(super) fn examine(facts: &CrewFacts) -> Vec<Finding> {
    if facts.workers.is_empty() {
        return vec![
            Finding::note("workers", "no worker has been heard of within 5 seconds")
                .advice("events wait in the broker: `hookfleet up` starts a worker"),
        ];
    }
    let mut findings = vec![Finding::fine("workers", format!("{} are there", facts.workers.len()))];
    findings.push(versions(&facts.workers));
    findings.push(revisions(facts));
    findings.extend(refusals(facts));
    findings.extend(failing(&facts.workers));
    findings.push(letters(facts));
    findings.extend(facts.workers.iter().find_map(|card| card.keeper.as_ref()).map(retries));
    findings
}

/// Hooks that only fail: the last attempts of every worker that has tried them lately have failed.
fn failing(workers: &[Card]) -> Vec<Finding> {
    const SUBJECT: &str = "hooks: failing";
    let mut hooks: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
    for failing in workers.iter().flat_map(|card| &card.failing) {
        let (attempts, parked) = hooks.entry(&failing.hook).or_default();
        *attempts += failing.attempts;
        *parked |= failing.parked;
    }
    if hooks.is_empty() {
        return vec![Finding::fine(SUBJECT, "no hook does nothing but fail")];
    }
    let finding = |(hook, (attempts, parked)): (&str, (u64, bool))| {
        let rest = if parked { "; its target counts as broken, and what comes for it is parked" } else { "" };
        let found = format!("the last {attempts} attempts of hook {hook} have all failed{rest}");
        Finding::warning(SUBJECT, found).advice(format!(
            "`hookfleet dead-letters groups --hook {hook}` and the log say why; `hookfleet hooks test --hook {hook} --send` tries it"
        ))
    };
    hooks.into_iter().map(finding).collect()
}

/// What the keeper's probes say of the delay ladder.
fn retries(kept: &Kept) -> Finding {
    match kept.retries_still() {
        Some(found) => Finding::problem("retries", found).advice(
            "nothing is lost, and nothing that waits goes on: look in the broker's log for what ended its dead-lettering (a \
             message that it cannot convert), then restart its nodes one by one",
        ),
        None => Finding::fine("retries", "probes come back from the delay ladder"),
    }
}

/// What the keeper of the dead letters says of them.
fn letters(facts: &CrewFacts) -> Finding {
    const SUBJECT: &str = "dead letters";
    let Some(kept) = facts.workers.iter().find_map(|card| card.keeper.as_ref()) else {
        if facts.workers.iter().all(|card| facts.at_ms.saturating_sub(card.since_ms) < KEEPER_WITHIN_MS) {
            return Finding::fine(SUBJECT, "the keeper of their log is being found: the workers are new");
        }
        return Finding::note(SUBJECT, "no worker is the keeper of their log").advice(
            "one becomes it within a minute of its start; without one, letters that are open age out after \
             dead_letters.retention",
        );
    };
    let Kept { unresolved, oldest_ms, retention_used, error, .. } = kept;
    if let Some(error) = error {
        let found = format!("the keeper could not look after their log: {error}");
        return Finding::unknown(SUBJECT, found).advice("its log says since when; letters that are open may age out");
    }
    let (unresolved, oldest_ms, retention_used) = (*unresolved, *oldest_ms, *retention_used);
    if retention_used > RETENTION_USED_MAX {
        let found = format!(
            "some are in {:.0} % of the time that they are kept, and nobody wrote them again",
            retention_used * 100.0
        );
        return Finding::problem(SUBJECT, found)
            .advice("open ones will be lost: the log of the keeper says what hinders it; replay or resolve them");
    }
    if unresolved > 0 {
        let hours = oldest_ms / 3_600_000;
        let found = format!("{unresolved} are not resolved, the oldest of {hours} h ago");
        return Finding::note(SUBJECT, found)
            .advice("`hookfleet dead-letters groups --state unresolved` says what failed");
    }
    Finding::fine(SUBJECT, "all are resolved")
}

fn versions(workers: &[Card]) -> Finding {
    const SUBJECT: &str = "workers: versions";
    let groups = groups(workers, |card| if card.version.is_empty() { "an older one" } else { &card.version });
    if groups.len() == 1 {
        return Finding::fine(SUBJECT, format!("all run {}", listed(&groups)));
    }
    Finding::warning(SUBJECT, format!("they differ: {}", listed(&groups))).advice(
        "finish the upgrade: until then messages of the newer version wait for its workers, and catalogs may only use \
         what the oldest reads",
    )
}

/// Whoever gathered this has waited for changes to come through.
fn revisions(facts: &CrewFacts) -> Finding {
    const SUBJECT: &str = "workers: catalog";
    // A program that says nothing of itself is told of by its version.
    let speaking: Vec<Card> = facts.workers.iter().filter(|card| !card.version.is_empty()).cloned().collect();
    let groups = groups(&speaking, |card| if card.revision.is_empty() { "none" } else { &card.revision });
    match &facts.current {
        Some(current) if groups.keys().any(|revision| revision != current) => {
            let found = format!("{current} is current, and not all have it: {}", listed(&groups));
            Finding::warning(SUBJECT, found).advice(
                "such a worker takes no work: its log and its /v1/status say why; it follows as soon as it reaches \
                 Redis and can read the catalog",
            )
        }
        None if groups.len() > 1 => Finding::warning(SUBJECT, format!("it differs: {}", listed(&groups))).advice(
            "what a worker does not know of goes round until one does: bring the same hooks files to all, or share them \
             with catalog.from: redis",
        ),
        _ => Finding::fine(SUBJECT, format!("all have {}", listed(&groups))),
    }
}

fn refusals(facts: &CrewFacts) -> impl Iterator<Item = Finding> {
    let advice = if facts.current.is_some() {
        "give these workers what it asks for (variables, files), or apply one that they can read: `hookfleet hooks \
         rollback` brings an older one back"
    } else {
        "mend the hooks files there, or give these workers what they ask for: meanwhile their last good hooks go on"
    };
    let mut refusals: BTreeMap<(&str, &str), Vec<&Card>> = BTreeMap::new();
    for card in &facts.workers {
        if let Some(refused) = &card.refused {
            refusals.entry((&refused.revision, &refused.reason)).or_default().push(card);
        }
    }
    refusals.into_iter().map(move |((revision, reason), cards)| {
        let verb = if cards.len() == 1 { "refuses" } else { "refuse" };
        let of = if revision.is_empty() { String::new() } else { format!(" {revision}") };
        Finding::problem("workers: catalog", format!("{} {verb} the catalog{of}: {reason}", named(&cards)))
            .advice(advice)
    })
}

/// Workers by what they have in common.
fn groups<'c>(workers: &'c [Card], of: impl Fn(&'c Card) -> &'c str) -> BTreeMap<String, Vec<&'c Card>> {
    let mut groups: BTreeMap<String, Vec<&Card>> = BTreeMap::new();
    for card in workers {
        groups.entry(of(card).to_owned()).or_default().push(card);
    }
    groups
}

/// `r7 (2 workers), r6 (1234@host)`; of one group its name alone.
fn listed(groups: &BTreeMap<String, Vec<&Card>>) -> String {
    if let (1, Some(name)) = (groups.len(), groups.keys().next()) {
        return name.clone();
    }
    let group = |(name, cards): (&String, &Vec<&Card>)| format!("{name} ({})", named(cards));
    groups.iter().map(group).collect::<Vec<_>>().join(", ")
}

fn named(cards: &[&Card]) -> String {
    if cards.len() > NAMED_MAX {
        return format!("{} workers", cards.len());
    }
    let name = |card: &&Card| {
        if card.version.is_empty() { card.worker.clone() } else { format!("process {} on {}", card.pid, card.host) }
    };
    cards.iter().map(name).collect::<Vec<_>>().join(", ")
}
