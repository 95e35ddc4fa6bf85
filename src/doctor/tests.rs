//! From facts to findings, as a table.

use super::facts::{BrokerFacts, CrewFacts, Fleet, ManagementFacts, NodeFacts, RedisFacts, ServerFacts};
use super::*;
use crate::flow::{Card, Failing, Kept, Refused};

fn broker_facts() -> BrokerFacts {
    let node = |name: &str| NodeFacts { name: name.to_owned(), running: true, ..NodeFacts::default() };
    BrokerFacts {
        product: "RabbitMQ".into(),
        version: "3.10.8".into(),
        frame_max: 131_072,
        blocked: false,
        topology: Vec::new(),
        unreadable: Some((0, "h.unreadable".into())),
        backlogs: Vec::new(),
        body_bytes_max: 1024 * 1024,
        management: Ok(ManagementFacts {
            nodes: vec![node("a"), node("b"), node("c")],
            message_bytes_max: Some(16 * 1024 * 1024),
            ..ManagementFacts::default()
        }),
    }
}

fn redis_facts() -> RedisFacts {
    let server = ServerFacts {
        product: "Redis",
        version: "7.0.15".into(),
        is_replica: false,
        append_only: true,
        fsync: Some("everysec".into()),
        write_error: false,
        policy: "noeviction".into(),
        memory_max: 64 << 30,
        memory_used: 1 << 20,
        replicas: 1,
    };
    RedisFacts { server: Ok(server), invocation_bytes: Some(200), latency: Duration::from_micros(300), ahead_ms: -5 }
}

/// Workers with these revisions, of which r7 is the current one.
fn crew_facts(revisions: &[&str]) -> CrewFacts {
    let card = |(number, revision): (u32, &&str)| Card {
        worker: format!("w{number}"),
        host: "a".to_owned(),
        pid: number,
        version: "1.0.0".to_owned(),
        revision: (*revision).to_owned(),
        keeper: (number == 1).then(Kept::default),
        ..Card::default()
    };
    CrewFacts { current: Some("r7".to_owned()), workers: (1..).zip(revisions).map(card).collect(), at_ms: 100_000 }
}

fn facts(broker: BrokerFacts, redis: RedisFacts) -> Facts {
    let catalog = CatalogFacts { hooks: 3, ..CatalogFacts::default() };
    let fleet = Fleet { broker: Ok(broker), redis: Ok(redis), crew: Ok(crew_facts(&["r7", "r7"])) };
    Facts { servers: Servers::Fleet(Box::new(fleet)), catalog: Ok(catalog) }
}

/// What is not fine, each as it is shown, in one text; and the exit code.
fn check(facts: &Facts, code: u8, expected: &[&str]) {
    let load = Load { rate: 500.0, window: Duration::from_hours(24) };
    let findings = examine(facts, Some(load));
    let shown: Vec<String> =
        findings.iter().filter(|it| it.severity != Severity::Fine).map(ToString::to_string).collect();
    assert_eq!(shown.len(), expected.len(), "{shown:#?}");
    for (found, expected) in shown.iter().zip(expected) {
        assert!(found.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(expected), "{found}\n{expected}");
    }
    assert_eq!(exit_code(&findings), code, "{shown:#?}");
}

fn check_broker(change: impl FnOnce(&mut BrokerFacts, &mut ManagementFacts), code: u8, expected: &[&str]) {
    let mut broker = broker_facts();
    let mut management = broker.management.clone().unwrap();
    change(&mut broker, &mut management);
    if broker.management.is_ok() {
        broker.management = Ok(management);
    }
    check(&facts(broker, redis_facts()), code, expected);
}

fn check_server(change: impl FnOnce(&mut ServerFacts), code: u8, expected: &[&str]) {
    check_redis(|redis| change(redis.server.as_mut().unwrap()), code, expected);
}

fn check_redis(change: impl FnOnce(&mut RedisFacts), code: u8, expected: &[&str]) {
    let mut redis = redis_facts();
    change(&mut redis);
    check(&facts(broker_facts(), redis), code, expected);
}

#[test]
fn a_sound_fleet_is_fine() {
    check(&facts(broker_facts(), redis_facts()), 0, &[]);
}

#[test]
fn brokers() {
    check_broker(|it, _| it.version = "3.9.29".into(), 1, &["PROBLEM broker: version RabbitMQ 3.9.29 -> use 3.10"]);
    check_broker(|it, _| it.version = "4.1.0".into(), 0, &[]);
    check_broker(|it, _| it.version = String::new(), 3, &["unknown broker: version the broker does not tell"]);
    check_broker(
        |it, _| it.product = "LavinMQ".into(),
        0,
        &["warning broker: version LavinMQ 3.10.8 -> only RabbitMQ"],
    );
    check_broker(|it, _| it.blocked = true, 1, &["PROBLEM broker: alarm the broker takes no messages"]);
    check_broker(|it, _| it.frame_max = 4096, 0, &["warning broker: frames frame_max is 4.00 KiB"]);
    check_broker(|it, _| it.frame_max = 0, 0, &[]);
    let missing = || vec!["queue h.events does not exist: x".to_owned(), "queue h.dead does not exist: x".to_owned()];
    check_broker(|it, _| it.topology = missing(), 0, &["note broker: queues 2 exchanges and queues do not exist yet"]);
    let wrong = || vec!["queue h.events: 406. It exists with other properties".to_owned()];
    check_broker(|it, _| it.topology = wrong(), 1, &["PROBLEM broker: queues queue h.events: 406"]);
    check_broker(|it, _| it.unreadable = None, 0, &[]);
    let two = || Some((2, "h.unreadable".to_owned()));
    check_broker(
        |it, _| it.unreadable = two(),
        0,
        &["warning broker: unreadable 2 messages could be handed to no worker"],
    );
    check_broker(|it, _| it.management = Err("no".into()), 0, &["note broker: management nodes, policies and alarms"]);
    check_broker(|_, it| it.nodes.truncate(1), 0, &["note broker: nodes one node"]);
    check_broker(|_, it| it.nodes.truncate(2), 0, &["warning broker: nodes two nodes have no majority"]);
    check_broker(|_, it| it.nodes[1].running = false, 1, &["PROBLEM broker: nodes node b does not run"]);
    check_broker(|_, it| it.nodes[1].memory_alarm = true, 1, &["PROBLEM broker: alarm node b is short of memory"]);
    check_broker(|_, it| it.nodes[1].disk_alarm = true, 1, &["PROBLEM broker: alarm node b is short of disk space"]);
    let policy = || vec!["policy h-work does not exist".to_owned()];
    check_broker(|_, it| it.policies = policy(), 0, &["warning broker: policies policy h-work does not exist"]);
    check_broker(|_, it| it.untold = 3, 0, &["note broker: policies 3 queues do not tell yet"]);
    let harm = || vec!["policy x sets expires = 1 for queue h.delay.0: retries are deleted".to_owned()];
    check_broker(|_, it| it.harms = harm(), 1, &["PROBLEM broker: policies policy x sets expires = 1"]);
    let timeout = Some(Duration::from_secs(30));
    check_broker(|_, it| it.consumer_timeout = timeout, 0, &["warning broker: timeout consumer_timeout is 30s"]);
    let small = Some(512 * 1024);
    let expected =
        "PROBLEM broker: messages the broker takes messages of 512.00 KiB, events.body_bytes_max is 1.00 MiB";
    check_broker(|_, it| it.message_bytes_max = small, 1, &[expected]);
}

#[test]
fn stores() {
    check_server(|it| it.version = "6.2.7".into(), 1, &["PROBLEM redis: version Redis 6.2.7 -> use Redis 7.0"]);
    let valkey = |it: &mut ServerFacts| (it.product, it.version) = ("Valkey", "9.1.2".into());
    check_server(valkey, 0, &[]);
    let replica = |it: &mut ServerFacts| (it.product, it.is_replica) = ("Valkey", true);
    check_server(replica, 1, &["PROBLEM redis: version Valkey 7.0.15 is a replica"]);
    check_server(|it| it.is_replica = true, 1, &["PROBLEM redis: version Redis 7.0.15 is a replica"]);
    check_server(|it| it.append_only = false, 0, &["warning redis: persistence no append-only file"]);
    check_server(
        |it| it.fsync = Some("no".into()),
        0,
        &["warning redis: persistence an append-only file that is never"],
    );
    check_server(|it| it.fsync = None, 0, &[]);
    check_server(|it| it.write_error = true, 1, &["PROBLEM redis: persistence the last write to disk failed"]);
    check_server(
        |it| it.policy = "allkeys-lru".into(),
        1,
        &["PROBLEM redis: eviction maxmemory-policy is allkeys-lru"],
    );
    check_server(|it| it.replicas = 0, 0, &["note redis: replicas no replica"]);
    check_redis(|it| it.latency = Duration::from_millis(8), 0, &["warning redis: latency a call takes 8.00 ms"]);
    // 200 bytes × 500/s × 86,400 s = 8.64 GB
    let found = "PROBLEM redis: memory a finished invocation takes 200 B, 500/s for 86400s take 8.04 GiB; maxmemory is \
                 8.00 GiB -> set maxmemory to 11.49 GiB or more";
    check_server(|it| it.memory_max = 8 << 30, 1, &[found]);
    check_server(|it| it.memory_max = 12 << 30, 0, &[]);
    check_server(|it| it.memory_max = 0, 0, &["note redis: memory a finished invocation takes 200 B, 500/s"]);
    let unbounded = |it: &mut ServerFacts| (it.memory_max, it.policy) = (0, "volatile-lru".to_owned());
    check_server(
        unbounded,
        0,
        &["warning redis: eviction maxmemory-policy is volatile-lru, without", "note redis: memory"],
    );
    // Case cases-2 7: the user of README's ACL line may not run INFO; claims are fine.
    let note = "note redis: server version, persistence, eviction, memory and replicas cannot be looked at: no INFO -> the \
                fleet needs no such right: give this user +info, +config|get and +memory|usage";
    check_redis(
        |it| it.server = Err("no INFO".into()),
        0,
        &[note, "note redis: memory a finished invocation takes 200 B"],
    );
    check_redis(
        |it| it.invocation_bytes = None,
        0,
        &["note redis: memory what an invocation takes cannot be measured"],
    );
    check_redis(|it| it.ahead_ms = 2_500, 0, &["warning clocks this machine's clock is 2500 ms ahead of Redis's"]);
    check_redis(|it| it.ahead_ms = -60_000, 0, &["warning clocks this machine's clock is 60000 ms behind Redis's"]);
}

fn check_crew(revisions: &[&str], change: &dyn Fn(&mut CrewFacts), code: u8, expected: &[&str]) {
    let mut crew = crew_facts(revisions);
    change(&mut crew);
    let fleet = Fleet { broker: Ok(broker_facts()), redis: Ok(redis_facts()), crew: Ok(crew) };
    let sound = facts(broker_facts(), redis_facts());
    check(&Facts { servers: Servers::Fleet(Box::new(fleet)), ..sound }, code, expected);
}

#[test]
fn what_the_keeper_says_of_letters() {
    let check = check_crew;
    let keeper = |keeper: Option<Kept>| move |crew: &mut CrewFacts| crew.workers[0].keeper.clone_from(&keeper);
    check(&["r7"], &keeper(None), 0, &["note dead letters no worker is the keeper"]);
    let young = |crew: &mut CrewFacts| {
        crew.workers[0] = Card { since_ms: 90_000, keeper: None, ..crew.workers[0].clone() };
    };
    check(&["r7"], &young, 0, &[]);
    let open = Kept { unresolved: 7, oldest_ms: 7_200_000, retention_used: 0.4, ..Kept::default() };
    check(
        &["r7"],
        &keeper(Some(open.clone())),
        0,
        &["note dead letters 7 are not resolved, the oldest of 2 h ago -> `hookfleet"],
    );
    let away = Kept { error: Some("the log is away".into()), ..Kept::default() };
    check(
        &["r7"],
        &keeper(Some(away)),
        3,
        &["unknown dead letters the keeper could not look after their log: the log"],
    );
    let still = Kept { retries_still_ms: 60_500, ..Kept::default() };
    check(&["r7"], &keeper(Some(still)), 1, &["PROBLEM retries retries have not come back for 61 s: the broker's"]);
    let aged = Kept { retention_used: 0.8, ..open };
    check(&["r7"], &keeper(Some(aged)), 1, &["PROBLEM dead letters some are in 80 % of the time that they are kept"]);
}

#[test]
fn workers() {
    let check = check_crew;
    let unchanged = |_: &mut CrewFacts| {};
    check(&[], &unchanged, 0, &["note workers no worker has been heard of"]);
    check(&["r7"], &unchanged, 0, &[]);
    check(
        &["r7", "r6", "r7", "r7", "r7"],
        &unchanged,
        0,
        &["warning workers: catalog r7 is current, and not all have it: r6 (process 2 on a), r7 (4 workers) -> such a"],
    );
    check(&["r6"], &unchanged, 0, &["warning workers: catalog r7 is current, and not all have it: r6 -> such"]);
    check(
        &["r7", ""],
        &unchanged,
        0,
        &["warning workers: catalog r7 is current, and not all have it: none (process 2"],
    );
    let of_files = |crew: &mut CrewFacts| crew.current = None;
    check(&["12ab", "12ab"], &of_files, 0, &[]);
    check(&["12ab", "34cd"], &of_files, 0, &["warning workers: catalog it differs: 12ab (process 1 on a), 34cd"]);

    let older = |crew: &mut CrewFacts| crew.workers[1].version = "0.9.0".to_owned();
    let found = "warning workers: versions they differ: 0.9.0 (process 2 on a), 1.0.0 (process 1 on a) -> finish the";
    check(&["r7", "r7"], &older, 0, &[found]);
    let silent = |crew: &mut CrewFacts| crew.workers[1] = Card { worker: "w2".to_owned(), ..Card::default() };
    check(
        &["r7", "r7"],
        &silent,
        0,
        &["warning workers: versions they differ: 1.0.0 (process 1 on a), an older one (w2)"],
    );

    let refuse = |crew: &mut CrewFacts| {
        for card in &mut crew.workers[..2] {
            card.refused = Some(Refused { revision: "r7".to_owned(), reason: "h.yaml:3: no".to_owned() });
        }
    };
    check(
        &["r6", "r6", "r7"],
        &refuse,
        1,
        &[
            "warning workers: catalog r7 is current, and not all have it: r6 (process 1 on a, process 2 on a), r7",
            "PROBLEM workers: catalog process 1 on a, process 2 on a refuse the catalog r7: h.yaml:3: no -> give these",
        ],
    );
}

#[test]
fn the_rest() {
    let sound = facts(broker_facts(), redis_facts());
    let with = |catalog| Facts { catalog, ..sound.clone() };
    check(&with(Err("hooks.yaml:3: no".into())), 1, &["PROBLEM catalog the catalog cannot be used here"]);
    check(&with(Ok(CatalogFacts::default())), 0, &["warning catalog there are no hooks"]);
    let refused = vec![("h".to_owned(), "the target 10.0.0.1 is a private address".to_owned())];
    let target = Ok(CatalogFacts { hooks: 1, refused, ..CatalogFacts::default() });
    check(&with(target), 1, &["PROBLEM catalog: target hook h: the target 10.0.0.1"]);
    let unresolved = vec![("h".to_owned(), "no address".to_owned())];
    let target = Ok(CatalogFacts { hooks: 1, unresolved, ..CatalogFacts::default() });
    check(&with(target), 0, &["warning catalog: target hook h: no address"]);

    let fleet = Fleet { broker: Err("away".into()), redis: Err("away too".into()), crew: Err("away too".into()) };
    let servers = Servers::Fleet(Box::new(fleet));
    check(&Facts { servers, ..sound.clone() }, 3, &["unknown broker away", "unknown redis away too"]);
    let fleet = Fleet { broker: Ok(broker_facts()), redis: Err("a cluster".into()), crew: Err("away".into()) };
    let servers = Servers::Fleet(Box::new(fleet));
    check(&Facts { servers, ..sound.clone() }, 3, &["unknown redis a cluster", "unknown workers away"]);
    let file = |free, system: &str| {
        let (path, owner) = ("h.db".to_owned(), Some("http://127.0.0.1:8733".to_owned()));
        let (backlogs, system) = (Vec::new(), system.to_owned());
        let servers = Servers::File(Ok(FileFacts { path, is_there: true, owner, free, backlogs, system }));
        Facts { servers, ..sound.clone() }
    };
    check(&file(1 << 40, "ext4"), 0, &["note broker no broker is set"]);
    check(&file(100 << 20, "ext4"), 1, &["note broker", "PROBLEM file: space 100.00 MiB are free"]);
    check(&file(1 << 40, "nfs"), 1, &["note broker", "PROBLEM file: system the embedded file lies on nfs"]);
    check(&file(1 << 40, "tmpfs"), 1, &["note broker", "PROBLEM file: system the embedded file lies on tmpfs"]);
    check(&file(1 << 40, "overlayfs"), 0, &["note broker", "warning file: system the embedded file lies on overlayfs"]);
    let unknown = Facts { servers: Servers::File(Err("no".into())), ..sound.clone() };
    check(&unknown, 3, &["unknown file no"]);
}

/// Case C16.
#[test]
fn hooks_that_only_fail_are_told() {
    let failing = |attempts, parked| Failing { hook: "crm".to_owned(), attempts, parked };
    let fail = |facts: &mut CrewFacts| {
        facts.workers[0].failing = vec![failing(7, false)];
        facts.workers[1].failing = vec![failing(10, true)];
    };
    let found = "warning hooks: failing the last 17 attempts of hook crm have all failed; its target counts as broken";
    check_crew(&["r7", "r7"], &fail, 0, &[found]);
}

#[test]
fn bytes_are_readable() {
    let shown = [0, 1023, 1024, 1536, 1 << 30, u64::MAX].map(bytes);
    assert_eq!(shown, ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "1.00 GiB", "16777215.99 TiB"]);
}

#[test]
fn a_greeting_names_the_broker() {
    let property = |greeting: &[u8], name| gather::property(greeting, name);
    let greeting = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x29\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8";
    assert_eq!(property(greeting, "version").as_deref(), Some("3.10.8"));
    assert_eq!(property(greeting, "product").as_deref(), Some("RabbitMQ"));
    assert_eq!(property(greeting, "platform"), None);
    assert_eq!(property(&greeting[..greeting.len() - 1], "version"), None, "cut off");
    assert_eq!(property(b"", "version"), None);
}
