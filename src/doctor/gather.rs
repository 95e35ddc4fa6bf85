//! Asks servers, disk and catalog. Nothing is changed, but for one key in Redis that is measured and deleted.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::redis::cmd;
use lapin::Connection;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use url::Url;

use super::facts::{
    Backlog, BrokerFacts, CatalogFacts, CrewFacts, Facts, FileFacts, Fleet, Gathered, ManagementFacts, NodeFacts,
    RedisFacts, ServerFacts, Servers,
};
use crate::amqp::connection::{connect, shown};
use crate::amqp::declare::{check, waiting};
use crate::amqp::management::{Management, ManagementError, NodeFound};
use crate::amqp::policy::harm::{harms, untold};
use crate::amqp::policy::{compare, policies};
use crate::amqp::topology::{Names, Topology};
use crate::catalog::files::Files;
use crate::catalog::revisions::Revisions;
use crate::catalog::{self, Catalog, Lookup, Terms, apply};
use crate::config::{self, Backend, BrokerServer, CatalogFrom, Egress, Redis, Settings};
use crate::domain::claim::{Claim, Token};
use crate::domain::hook::Action;
use crate::domain::id::EventDigest;
use crate::domain::matching::HookSet;
use crate::domain::message::Queue;
use crate::domain::secret::Secret;
use crate::embedded;
use crate::executor;
use crate::flow::Flow as _;
use crate::flow::redis::RedisFlow;
use crate::idempotency::value;
use crate::redis::connection::Link;
use crate::redis::error::Failure;
use crate::telemetry::now_ms;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A change of the catalog is with all workers by then: they follow within a second, and say so once a second.
const FOLLOW_MAX: Duration = Duration::from_secs(4);
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// Calls of which the median is taken.
const CALLS: usize = 21;
/// Looks at what waits, and the time between two of them.
const LOOKS: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What a key with a time to live takes beside what `MEMORY USAGE` counts: its entry among the expiring ones.
const EXPIRY_BYTES: u64 = 40;
/// A hook's name of usual length.
const SAMPLE_HOOK: &str = "notify-on-failure";

/// Everything that can be found out with these settings. Takes some seconds where servers do not answer.
pub async fn facts(settings: &Settings, env: Lookup<'_>) -> Facts {
    let servers = match &settings.backend {
        Backend::Servers { broker: server, redis: store } => {
            executor::install_crypto();
            let redis = redis(store, &settings.namespace);
            let (broker, redis, crew) = tokio::join!(broker(settings, server), redis, crew(settings, store));
            Servers::Fleet(Box::new(Fleet { broker, redis, crew }))
        }
        Backend::Embedded { path } => Servers::File(match file(path) {
            Ok(facts) => Ok(FileFacts { backlogs: backlogs_of_file(path).await, ..facts }),
            Err(error) => Err(error),
        }),
    };
    let catalog = match catalog(settings, env).await {
        Ok(catalog) => Ok(targets(&catalog.hooks, &settings.egress).await),
        Err(problems) => Err(problems),
    };
    Facts { servers, catalog }
}

/// The catalog, as a worker would read it here.
async fn catalog(settings: &Settings, env: Lookup<'_>) -> Gathered<Catalog> {
    let terms = Terms { hint_max: settings.hint_max, env, egress: &settings.egress.allow, callbacks: None };
    let read = match (&settings.backend, settings.catalog.from) {
        (Backend::Servers { redis, .. }, CatalogFrom::Redis) => {
            let revisions = Revisions::new(Link::new((**redis).clone()), &settings.namespace);
            let current = apply::current(&revisions).await.map_err(|error| error.to_string())?;
            let stored = current.ok_or("there is none in Redis yet: `hookfleet hooks apply` makes the first")?;
            let revision = stored.about.pointer().revision();
            catalog::attempt(&revision, &stored.documents, &terms).0
        }
        _ => Files::of(settings).load(&terms),
    };
    read.map_err(|problems| problems.to_string())
}

async fn broker(settings: &Settings, server: &BrokerServer) -> Gathered<BrokerFacts> {
    let connection = connect(server, "hookfleet doctor").await.map_err(|error| error.to_string())?;
    let topology = check(&connection, &Topology::new(&settings.namespace)).await?;
    let unreadable = Names::new(&settings.namespace).unreadable();
    let unreadable = match waiting(&connection, &unreadable).await {
        Ok(count) => Some((count, unreadable)),
        Err(_) => None, // where it should be there, the comparison above says that it is not
    };
    let backlogs = backlogs(&connection, &Names::new(&settings.namespace)).await;
    let (frame_max, blocked) = (connection.configuration().frame_max(), connection.status().blocked());
    let _ = connection.close(200, "bye".into()).await; // it is gone either way
    let management = Management::new(server).await;
    let overview = match &management {
        Ok(management) => management.overview().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.clone()),
    };
    let (product, version) = match &overview {
        Ok(overview) => ("RabbitMQ".to_owned(), overview.rabbitmq_version.clone()),
        Err(_) => named(server).await,
    };
    let management = match (management, overview) {
        (Ok(management), Ok(_)) => managed(&management, settings).await.map_err(|error| error.to_string()),
        (_, Err(error)) | (Err(error), _) => Err(error),
    };
    let body_bytes_max = settings.events.body_bytes_max;
    Ok(BrokerFacts { product, version, frame_max, blocked, topology, unreadable, backlogs, body_bytes_max, management })
}

/// What waits in the queues that work comes from, looked at several times. A queue that is not there yet has nothing.
async fn backlogs(connection: &Connection, names: &Names) -> Vec<Backlog> {
    let mut backlogs: Vec<Backlog> = Queue::ALL
        .iter()
        .map(|queue| Backlog { queue: names.queue(*queue), counts: Vec::new(), oldest: None })
        .collect();
    for look in 0..LOOKS {
        if look > 0 {
            sleep(LOOK_EVERY).await;
        }
        for backlog in &mut backlogs {
            if let Ok(count) = waiting(connection, &backlog.queue).await {
                backlog.counts.push(count);
            }
        }
        backlogs.retain(|backlog| backlog.counts.last().is_some_and(|count| *count > 0));
        if backlogs.is_empty() {
            break;
        }
    }
    backlogs
}

async fn managed(management: &Management, settings: &Settings) -> Result<ManagementFacts, ManagementError> {
    let wanted = policies(&settings.namespace, settings.dead_letter_retention);
    let (topology, found) = (Topology::new(&settings.namespace), management.in_force().await?);
    let node = |node: NodeFound| NodeFacts {
        name: node.name,
        running: node.running,
        memory_alarm: node.mem_alarm,
        disk_alarm: node.disk_free_alarm,
    };
    Ok(ManagementFacts {
        nodes: management.nodes().await?.into_iter().map(node).collect(),
        policies: compare(&wanted, &found.policies, &found.queues),
        harms: harms(&topology, &wanted, &found),
        untold: untold(&topology, &found),
        consumer_timeout: None, // the API does not tell these two
        message_bytes_max: None,
    })
}

/// Product and version, as the first node that answers names them. Over TLS only the management API tells.
async fn named(server: &BrokerServer) -> (String, String) {
    for url in server.urls.iter().map(Secret::expose).filter(|url| url.scheme() == "amqp") {
        if let Ok(greeting) = greeting(url).await {
            let property = |name| property(&greeting, name).unwrap_or_default();
            return (property("product"), property("version"));
        }
    }
    (String::new(), String::new())
}

/// The first frame that a broker sends: it names itself there, and the client library keeps that to itself.
async fn greeting(url: &Url) -> Result<Vec<u8>, String> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let asked = async {
        let mut stream = TcpStream::connect((host, url.port().unwrap_or(5672))).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        let size = u64::from(u32::from_be_bytes([head[3], head[4], head[5], head[6]])).min(64 * 1024);
        let mut payload = Vec::new();
        stream.take(size).read_to_end(&mut payload).await?;
        Ok::<_, std::io::Error>(payload)
    };
    match timeout(TIMEOUT, asked).await {
        Ok(Ok(payload)) => Ok(payload),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{} did not answer", shown(url))),
    }
}

/// A text of the table in a greeting (AMQP 0-9-1, 4.2.5.5): name, the letter S, length, text.
pub(super) fn property(greeting: &[u8], name: &str) -> Option<String> {
    let mut field = vec![u8::try_from(name.len()).ok()?];
    field.extend_from_slice(name.as_bytes());
    field.push(b'S');
    let at = greeting.windows(field.len()).position(|window| window == field)?;
    let (size, rest) = greeting[at + field.len()..].split_first_chunk::<4>()?;
    let text = rest.get(..usize::try_from(u32::from_be_bytes(*size)).ok()?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

async fn redis(store: &Redis, namespace: &str) -> Gathered<RedisFacts> {
    if matches!(store.topology, config::Topology::Cluster { .. }) {
        return Err(
            "a cluster is looked at node by node, which this command cannot do: ask each for INFO and for its \
                    appendonly, maxmemory and maxmemory-policy"
                .to_owned(),
        );
    }
    let link = Link::new(store.clone());
    ask(&link, namespace).await.map_err(|error| error.to_string())
}

async fn ask(link: &Link, namespace: &str) -> Result<RedisFacts, Failure> {
    let (seconds, micros): (u64, u64) = link.call().query(&cmd("TIME")).await?;
    let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let there = u128::from(seconds) * 1000 + u128::from(micros) / 1000;
    let ahead_ms = i128::try_from(here).unwrap_or_default() - i128::try_from(there).unwrap_or_default();
    // What workers need has answered by now: what is refused from here on is a right that they do without.
    let invocation_bytes = sample(link, namespace).await?;
    let server = match server(link).await {
        Err(Failure::Settings(reason)) => Err(reason),
        server => Ok(server?),
    };
    let ahead_ms = i64::try_from(ahead_ms).unwrap_or_default();
    Ok(RedisFacts { server, invocation_bytes, latency: latency(link).await?, ahead_ms })
}

/// What the server says of itself.
async fn server(link: &Link) -> Result<ServerFacts, Failure> {
    let info: String = link.call().query(&cmd("INFO")).await?;
    let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let text = |name: &str| info.get(name).copied().unwrap_or_default();
    let number = |name: &str| text(name).parse().unwrap_or_default();
    // Some services forbid CONFIG.
    let config: Result<Vec<String>, _> = link.call().query(cmd("CONFIG").arg("GET").arg("appendfsync")).await;
    let (product, version) = product(&info);
    Ok(ServerFacts {
        product,
        version: version.to_owned(),
        is_replica: text("role") == "slave",
        append_only: text("aof_enabled") == "1",
        fsync: config.ok().and_then(|pair| pair.into_iter().nth(1)),
        write_error: text("aof_last_write_status") == "err" || text("rdb_last_bgsave_status") == "err",
        policy: text("maxmemory_policy").to_owned(),
        memory_max: number("maxmemory"),
        memory_used: number("used_memory"),
        replicas: number("connected_slaves"),
    })
}

/// What the server is, and in which version.
fn product<'a>(info: &HashMap<&str, &'a str>) -> (&'static str, &'a str) {
    match info.get("valkey_version") {
        Some(version) => ("Valkey", *version),
        None => ("Redis", info.get("redis_version").copied().unwrap_or_default()),
    }
}

/// What one finished invocation takes: a claim as workers write it, measured and deleted. None where the user may not
/// measure it.
async fn sample(link: &Link, namespace: &str) -> Result<Option<u64>, Failure> {
    let event = EventDigest::of("/hookfleet/doctor", &fastrand::u64(..).to_string());
    let key = format!("{namespace}:claim:{{{event}}}:{SAMPLE_HOOK}");
    let done = value::encode(&Claim::Done { generation: 0, token: Token { run: fastrand::u64(..), body: 0 } });
    let () = link.call().query(cmd("SET").arg(&key).arg(done).arg("PX").arg(60_000)).await?;
    let size: Result<Option<u64>, _> = link.call().query(cmd("MEMORY").arg("USAGE").arg(&key)).await;
    let () = link.call().query(cmd("DEL").arg(&key)).await?;
    match size {
        Err(Failure::Settings(_)) => Ok(None),
        size => Ok(Some(size?.unwrap_or_default() + EXPIRY_BYTES)),
    }
}

/// How long a call takes that every user of a fleet may make.
async fn latency(link: &Link) -> Result<Duration, Failure> {
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let began = Instant::now();
        let _: (u64, u64) = link.call().query(&cmd("TIME")).await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[CALLS / 2])
}

/// The workers that are there. While their catalogs differ they may be about to take a new one: they are given time.
async fn crew(settings: &Settings, store: &Redis) -> Gathered<CrewFacts> {
    let link = Link::new(store.clone());
    let flow = RedisFlow::new(link.clone(), &settings.namespace);
    let revisions = Revisions::new(link, &settings.namespace);
    let give_up_at = Instant::now() + FOLLOW_MAX;
    loop {
        let current = match settings.catalog.from {
            CatalogFrom::Redis => revisions.current().await.map_err(|error| error.to_string())?,
            CatalogFrom::File => None,
        };
        let current = current.map(|pointer| pointer.revision().to_string());
        let workers = flow.crew().await.map_err(|error| error.to_string())?;
        let expected = current.as_ref().or_else(|| workers.first().map(|card| &card.revision));
        let agree = workers.iter().all(|card| Some(&card.revision) == expected && card.refused.is_none());
        if agree || Instant::now() >= give_up_at {
            return Ok(CrewFacts { current, workers, at_ms: now_ms() });
        }
        sleep(FOLLOW_EVERY).await;
    }
}

/// Asks for every target, and for every server of tokens, what the guard of outgoing calls says of it now.
async fn targets(hooks: &HookSet, egress: &Egress) -> CatalogFacts {
    let revision = hooks.revision().to_string();
    let mut facts = CatalogFacts { revision, hooks: hooks.hooks().len(), ..CatalogFacts::default() };
    for hook in hooks.hooks() {
        let Action::Http(http) = &hook.action else { continue };
        let endpoint = http.oauth.iter().map(|oauth| ("token endpoint: ", oauth.url.expose()));
        for (what, url) in [("", http.url.expose())].into_iter().chain(endpoint) {
            let told = |reason: &str| (hook.id.to_string(), format!("{what}{reason}"));
            match timeout(TIMEOUT, executor::refused(egress, url)).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(reason))) => facts.refused.push(told(&reason)),
                Ok(Err(reason)) => facts.unresolved.push(told(&reason)),
                Err(_) => facts.unresolved.push(told("its target's name is not resolved in time")),
            }
        }
    }
    facts
}

/// What waits in a file. One that cannot be read has nothing: what is wrong with it is said where it is opened.
async fn backlogs_of_file(path: &Path) -> Vec<Backlog> {
    let Ok(store) = embedded::Store::open_to_read(path) else { return Vec::new() };
    let now_ms = now_ms();
    let backlog = |(queue, count, due_ms): (String, u64, u64)| Backlog {
        queue,
        counts: vec![count],
        oldest: Some(Duration::from_millis(now_ms.saturating_sub(due_ms))),
    };
    store.backlogs(now_ms).await.unwrap_or_default().into_iter().map(backlog).collect()
}

/// The folder may not be there yet: its nearest parent is on the same disk.
fn file(path: &Path) -> Gathered<FileFacts> {
    let here = Path::new(".");
    let folder = path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(here);
    let folder = if folder.as_os_str().is_empty() { here } else { folder };
    let wrong = |error: rustix::io::Errno| format!("cannot ask for the disk of {}: {error}", folder.display());
    let space = rustix::fs::statvfs(folder).map_err(wrong)?;
    Ok(FileFacts {
        path: path.display().to_string(),
        is_there: path.exists(),
        owner: embedded::owner(path).map(|owner| owner.to_string()),
        free: space.f_bavail.saturating_mul(space.f_frsize),
        backlogs: Vec::new(),
        system: system(folder)?,
    })
}

#[cfg(target_os = "linux")]
fn system(folder: &Path) -> Gathered<String> {
    let found = rustix::fs::statfs(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // linux/magic.h, and 0xff534d42 of the cifs module
    let name = match u32::try_from(found.f_type & 0xffff_ffff).unwrap_or_default() {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x2fc1_2fc1 => "zfs",
        0x6969 => "nfs",
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => "cifs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x6573_5546 => "fuse",
        other => return Ok(format!("a file system of type {other:#x}")),
    };
    Ok(name.to_owned())
}

#[cfg(not(target_os = "linux"))]
fn system(_: &Path) -> Gathered<String> {
    Ok("a file system of this machine".to_owned())
}
