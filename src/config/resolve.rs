//! From what was said to [`Settings`]: each value parsed and checked, then the relations between them. Everything is
//! read before anything is looked at, so that all problems are found.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::raw::Raw;
use super::{
    Backend, Claims, Commands, Gates, Log, Settings, Startup, WhenAway, Worker, broker, catalog, egress, http, parse,
    redis, shown,
};
use crate::dialect;
use crate::domain::event::{Foreign, Reading, TypeSource, TypeSources};
use crate::domain::flow::BreakerPolicy;
use crate::domain::hook::HookLane;
use crate::domain::redaction::Pointer;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::{count, duration, flag, number, one_of, text, variable};

const fn seconds(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(from)..=Duration::from_secs(to)
}

const DAY: u64 = 24 * 3600;
const STARTS: RangeInclusive<Duration> = seconds(0, 365 * DAY);
const HOLDS: RangeInclusive<Duration> = seconds(1, 60);
const GRACES: RangeInclusive<Duration> = seconds(0, DAY);
const CELLS: RangeInclusive<u16> = 0..=64;
const FAILURES: RangeInclusive<u32> = 0..=1_000_000;
const SHARES: RangeInclusive<f64> = 0.01..=1.0;
const BREAKER_WINDOWS: RangeInclusive<Duration> = seconds(1, 3600);
const LEASES: RangeInclusive<Duration> = seconds(1, DAY);
const WINDOWS: RangeInclusive<Duration> = seconds(1, 365 * DAY);
const HINTS: RangeInclusive<Duration> = seconds(0, 365 * DAY);
const RETENTIONS: RangeInclusive<Duration> = seconds(60, 3650 * DAY);
/// The protocol's own limit on a channel would be 65535; more than this only fills memory.
const PREFETCHES: RangeInclusive<u16> = 1..=2000;
const REQUESTS: RangeInclusive<u16> = 0..=2000;
/// A request is held for as long as it takes, within RabbitMQ's `consumer_timeout`.
const DEADLINES: RangeInclusive<Duration> = seconds(1, 20 * 60);
const CONCURRENCIES: RangeInclusive<usize> = 1..=100_000;
/// A broker takes no more: 128 MiB is RabbitMQ's limit.
const BODY_BYTES: RangeInclusive<usize> = 1..=128 * 1024 * 1024;

/// The settings, unless something is wrong with them.
pub(super) fn resolve(raw: &Raw<'_>) -> Option<Settings> {
    let namespace = raw.read("namespace", parse_namespace);
    let backend = backend(raw);
    let hooks = raw.read("hooks", text("the path of a hooks file"));
    let catalog = catalog::catalog(raw);
    let http = http::http(raw);
    let startup = startup(raw);
    let worker = worker(raw);
    let gates = gates(raw);
    let claims = claims(raw);
    let breaker = breaker(raw);
    let events = events(raw);
    let hint_max = raw.read("retry.hint_max", duration(HINTS));
    let egress = egress::egress(raw);
    let allow_programs = raw.read_list("commands.allow", text("the name or path of a program"));
    let variables = raw.read_list("commands.env", variable);
    let shim = raw.read("commands.shim", |text| match parse::path(text)? {
        Some(path) if path.is_relative() => Err(Mismatch::new("a path from / on")), // hooks have folders of their own
        path => Ok(path),
    });
    let redact = raw.read_list("redact.data", |text| Pointer::parse(text).map_err(Mismatch::from));
    let retention = raw.read("dead_letters.retention", duration(RETENTIONS));
    let log = log(raw);
    Some(Settings {
        namespace: namespace?,
        backend: backend?,
        hooks: hooks?.into(),
        catalog: catalog?,
        http: http?,
        startup: startup?,
        worker: worker?,
        gates: gates?,
        claims: claims?,
        breaker: breaker?,
        events: events?,
        hint_max: hint_max?,
        egress: egress?,
        commands: Commands { allow: allow_programs?, env: variables?, shim: shim? },
        dead_letter_retention: retention?,
        redact: redact?,
        log: log?,
        effective: shown::effective(raw),
    })
}

/// Servers or one file: broker and claims go together.
fn backend(raw: &Raw<'_>) -> Option<Backend> {
    let path = raw.read("embedded.path", text("the path of a file"));
    let broker = broker::broker(raw);
    let redis = redis::redis(raw);
    let alone = |set: &str, missing: &str| {
        let mismatch = Mismatch::new(format!("`{missing}` to be set too")).found("it unset");
        raw.wrong(set, mismatch.help("a fleet needs broker and Redis; a single process without servers needs neither"));
    };
    match (raw.is_set("broker.url"), raw.is_set("redis.url")) {
        (true, false) => alone("broker.url", "redis.url"),
        (false, true) => alone("redis.url", "broker.url"),
        (true, true) => return Some(Backend::Servers { broker: Box::new(broker?), redis: Box::new(redis?) }),
        (false, false) => return Some(Backend::Embedded { path: PathBuf::from(path?) }),
    }
    None
}

fn parse_namespace(text: &str) -> Result<String, Mismatch> {
    let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if (1..=40).contains(&text.len()) && text.bytes().all(legal) {
        return Ok(text.to_owned());
    }
    Err(Mismatch::new("1 to 40 of a-z, 0-9, - and _"))
}

fn startup(raw: &Raw<'_>) -> Option<Startup> {
    let timeout = raw.read("startup.timeout", duration(STARTS));
    let command_timeout = raw.read("startup.command_timeout", duration(STARTS));
    Some(Startup { timeout: timeout?, command_timeout: command_timeout? })
}

fn worker(raw: &Raw<'_>) -> Option<Worker> {
    let cells = raw.read("worker.cells", count(CELLS)).map(|cells| if cells == 0 { cores() } else { cells });
    let prefetch = raw.read("worker.prefetch", count(PREFETCHES));
    let concurrency = raw.read("worker.concurrency", count(CONCURRENCIES));
    let hold_max = raw.read("worker.hold", duration(HOLDS));
    let grace = raw.read("worker.grace", duration(GRACES));
    let lanes = lanes(raw);
    Some(Worker {
        cells: cells?,
        prefetch: prefetch?,
        concurrency: concurrency?,
        lanes: lanes?,
        hold_max: hold_max?,
        grace: grace?,
    })
}

/// As many as this process may use.
fn cores() -> u16 {
    std::thread::available_parallelism()
        .map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(*CELLS.end()).min(*CELLS.end()))
}

fn lanes(raw: &Raw<'_>) -> Option<[bool; HookLane::ALL.len()]> {
    let named = raw.read_list("worker.lanes", one_of(&HookLane::ALL.map(|lane| (lane.name(), lane))))?;
    if named.is_empty() {
        raw.wrong("worker.lanes", Mismatch::new("at least one of default and slow").found("an empty list"));
        return None;
    }
    Some(HookLane::ALL.map(|lane| named.contains(&lane)))
}

fn breaker(raw: &Raw<'_>) -> Option<BreakerPolicy> {
    let failures = raw.read("breaker.failures", count(FAILURES));
    let share = raw.read("breaker.share", number(SHARES));
    let window = raw.read("breaker.window", duration(BREAKER_WINDOWS));
    Some(BreakerPolicy { failures: failures?, share: share?, window: window? })
}

fn gates(raw: &Raw<'_>) -> Option<Gates> {
    let concurrency = raw.read("gates.concurrency", count(REQUESTS));
    let deadline = raw.read("gates.deadline", duration(DEADLINES));
    Some(Gates { concurrency: concurrency?, deadline: deadline? })
}

fn claims(raw: &Raw<'_>) -> Option<Claims> {
    let lease = raw.read("idempotency.lease", duration(LEASES));
    let window = raw.read("idempotency.window", duration(WINDOWS));
    let when_away = raw.read("redis.when_away", one_of(&[("hold", WhenAway::Hold), ("proceed", WhenAway::Proceed)]));
    Some(Claims { lease: lease?, window: window?, when_away: when_away? })
}

fn events(raw: &Raw<'_>) -> Option<Reading> {
    let body_bytes_max = raw.read("events.body_bytes_max", count(BODY_BYTES));
    let digest_missing_id = raw.read("events.missing_id", one_of(&[("refuse", false), ("digest", true)]));
    let forward_baggage = raw.read("events.baggage", one_of(&[("drop", false), ("forward", true)]));
    let (missing_type, body_bytes_max) = (missing_type(raw), body_bytes_max?);
    Some(Reading {
        body_bytes_max,
        inflated_bytes_max: body_bytes_max,
        digest_missing_id: digest_missing_id?,
        missing_type: missing_type?,
        forward_baggage: forward_baggage?,
        foreign: Foreign(dialect::decode),
    })
}

/// `refuse` alone, or sources of types in their order.
fn missing_type(raw: &Raw<'_>) -> Option<TypeSources> {
    const PATH: &str = "events.missing_type";
    let [first, second, third] = TypeSource::ALL.map(|(name, source)| (name, Some(source)));
    let named = raw.read_one_or_more(PATH, one_of(&[("refuse", None), first, second, third]))?;
    let sources: Vec<TypeSource> = named.iter().copied().flatten().collect();
    if sources.is_empty() || sources.len() == named.len() {
        return Some(TypeSources::new(&sources));
    }
    raw.wrong(PATH, Mismatch::new("either `refuse` or where types come from").found("both"));
    None
}

fn log(raw: &Raw<'_>) -> Option<Log> {
    let filter = raw.read("log.level", parse_filter);
    let json = raw.read("log.format", one_of(&[("text", false), ("json", true)]));
    let payloads = raw.read("log.payloads", flag);
    Some(Log { filter: filter?, json: json?, payloads: payloads? })
}

/// A bare word has to be a level. It could name a part as well, but then a misspelt level would silence everything.
fn parse_filter(text: &str) -> Result<String, Mismatch> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |word: &str| word.contains(['=', '[']) || LEVELS.contains(&word.trim().to_ascii_lowercase().as_str());
    let expected = || Mismatch::new("a level such as info, or levels by part such as info,hookfleet=debug");
    // At its finest it shows the password that it sends to the broker; what matters of connections is logged here.
    if text.split(',').any(|word| word.trim().to_ascii_lowercase().starts_with("lapin")) {
        return Err(Mismatch::new("no level for lapin, which logs passwords"));
    }
    match text.split(',').find(|word| !known(word)) {
        Some(word) => Err(expected().did_you_mean(word, LEVELS)),
        None => EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| expected().help(error.to_string())),
    }
}
