//! The store of claims on every kind of Redis: what it says of servers that cannot be used, and failovers in the middle of
//! requests.

use std::collections::HashSet;
use std::fs;
use std::mem::discriminant;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hookfleet::config::{ClientCertificate, Node, Redis as Settings, Tls, Topology};
use hookfleet::domain::claim::{Answer, ClaimRequest, DeathLimits, Point, Request, Settlement, Token};
use hookfleet::domain::id::{EventDigest, HookId, InvocationKey};
use hookfleet::domain::secret::Secret;
use hookfleet::executor::install_crypto;
use hookfleet::idempotency::redis::RedisClaims;
use hookfleet::idempotency::{Idempotency, StoreError};
use hookfleet::redis::connection::Link;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::fleet::Site;
use crate::pipeline::hook;
use crate::publishing::{Publisher, event};
use crate::servers::redis::{Cluster, Redis, Watched};
use crate::servers::{client, free_port, namespace, shared};
use crate::sink::{Call, Sink};

/// What a call may cost at most: a second, and the scheduling of a busy machine.
const CALL: Duration = Duration::from_millis(1500);
/// Longest wait for a failover, of which servers need two or three seconds to be sure.
const FAILOVER: Duration = Duration::from_secs(30);

fn secret(url: &str) -> Secret<Url> {
    Secret::new(Url::parse(url).unwrap())
}

/// One server.
pub(crate) fn settings(url: &str) -> Settings {
    Settings { url: secret(url), password_file: None, tls: Tls::default(), topology: Topology::Single }
}

/// A primary that sentinels know.
pub(crate) fn watched_by(url: &str, sentinels: &[String]) -> Settings {
    let sentinels = sentinels.iter().map(|url| secret(url)).collect();
    Settings { topology: Topology::Sentinels(sentinels), ..settings(url) }
}

/// A cluster.
pub(crate) fn clustered(url: &str, more: &[&Redis]) -> Settings {
    let nodes = more.iter().map(|server| Node { host: "127.0.0.1".into(), port: server.port }).collect();
    Settings { topology: Topology::Cluster { nodes }, ..settings(url) }
}

/// What README says that a user of Redis has to be allowed.
const RIGHTS: &str = "+set +get +del +pexpire +pttl +hset +hdel +hget +hmget +hstrlen +hgetall +zadd +zrange \
                      +zremrangebyscore +time +evalsha +eval";

/// A Redis with TLS, which wants to see a certificate, and with a user who may do no more than claims need. The port
/// without TLS is open to the default user.
pub(crate) struct Safe {
    pub(crate) server: Redis,
    files: TempDir,
    port: u16,
}

impl Safe {
    pub(crate) async fn start() -> Self {
        install_crypto();
        let files = tempfile::tempdir().unwrap();
        let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
        let named = |name: &str| {
            let mut certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            certificate.distinguished_name.push(DnType::CommonName, name);
            certificate
        };
        let mut authority = named("authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        fs::write(path("ca.pem"), authority.pem()).unwrap();
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let certificate = named(name).signed_by(&key, &authority).unwrap();
            fs::write(path(&format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        let stranger = named("stranger").self_signed(&KeyPair::generate().unwrap()).unwrap();
        fs::write(path("stranger.pem"), stranger.pem()).unwrap();
        fs::write(path("password"), "first\n").unwrap();

        let port = free_port();
        let (certificate, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
        let tls = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        let server = Redis::with(&[&["--tls-port", &port.to_string()], tls.as_slice()].concat()).await;
        let safe = Self { server, files, port };
        let user = format!("ACL SETUSER fleet on >first ~t*:* {RIGHTS}");
        let _: () = safe.server.ask(&user).await;
        safe
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) fn settings(&self) -> Settings {
        let client = ClientCertificate { chain: self.path("client.pem"), key: self.path("client.key") };
        Settings {
            password_file: Some(self.path("password")),
            tls: Tls { ca: Some(self.path("ca.pem")), client: Some(client) },
            ..settings(&format!("rediss://fleet@localhost:{}", self.port))
        }
    }
}

fn key(number: u64) -> InvocationKey {
    InvocationKey { event: EventDigest::of("/stores", &number.to_string()), hook: HookId::new("h").unwrap() }
}

fn claim(run: u64) -> Request {
    Request::Claim(ClaimRequest {
        at: Point::first(0),
        token: Token { run, body: 0 },
        deaths: 0,
        forced: 0,
        in_suspect: false,
        limits: DeathLimits::default(),
        lease_ms: 600_000,
        floor_ms: 600_000,
    })
}

fn settle(run: u64) -> Request {
    let token = Token { run, body: 0 };
    Request::Settle { at: Point::first(0), token, deaths: 0, settlement: Settlement::Done, keep_ms: 600_000 }
}

/// A call that answers or fails in time, whatever the servers do.
async fn in_time<T>(call: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let answer = call.await;
    assert!(began.elapsed() < CALL, "a call took {:?}", began.elapsed());
    answer
}

async fn refusal(settings: Settings) -> String {
    let claims = RedisClaims::new(Link::new(settings), &namespace());
    let error = in_time(claims.ping()).await.unwrap_err();
    let again = in_time(claims.ask(&key(0), &claim(1))).await.unwrap_err();
    assert_eq!(discriminant(&again), discriminant(&error), "{error}, then {again}");
    error.to_string()
}

async fn check_refusal(settings: Settings, begin: &str, part: &str) {
    let found = refusal(settings).await;
    let begin = match begin {
        "settings" => "the store of claims cannot be used: ",
        _ => "the store of claims is away: ",
    };
    assert!(found.starts_with(begin) && found.contains(part), "expected {begin}..{part}, found {found}");
    assert!(!found.contains("s3cret"), "{found}");
}

#[tokio::test]
async fn what_cannot_be_used_is_told_in_a_sentence() {
    let (_, server) = shared().await;
    let url = server.url();
    let host = format!("127.0.0.1:{}", server.port);
    let at = |user: &str| settings(&format!("redis://{user}@{host}"));
    check_refusal(at(":s3cret"), "settings", "has no password for user \"default\"").await;
    check_refusal(at("nobody:s3cret"), "settings", &format!("{host} refused user \"nobody\": check")).await;
    check_refusal(settings(&format!("{url}/99")), "settings", "has no such database (DB index is out of range").await;
    check_refusal(clustered(&url, &[]), "settings", "is no node of a Redis Cluster").await;
    let nobody = settings(&format!("redis://127.0.0.1:{}", free_port()));
    check_refusal(nobody.clone(), "away", "is it running, and are host and port in redis.url right?").await;
    let unknown = settings("redis://no-such-host.invalid");
    check_refusal(unknown, "away", "cannot connect to no-such-host.invalid:6379").await;
    let file = Settings { password_file: Some("/no/such/file".into()), ..settings(&url) };
    check_refusal(file, "settings", "cannot read redis.password_file (/no/such/file): No such file").await;
    let no_sentinel = watched_by("redis://mymaster", std::slice::from_ref(&url));
    check_refusal(no_sentinel, "settings", &format!("the sentinel {host} is no sentinel: check redis.sentinels")).await;
    let no_sentinel = watched_by("redis://mymaster", &[nobody.url.expose().to_string()]);
    check_refusal(no_sentinel, "away", "are host and port in redis.sentinels right?").await;
}

#[tokio::test]
async fn a_redis_that_is_protected_says_what_is_missing() {
    let safe = Safe::start().await;
    let good = safe.settings();
    let with = |tls: Tls| Settings { tls, ..good.clone() };
    let (ca, client) = (good.tls.ca.clone(), good.tls.client.clone());
    check_refusal(with(Tls { ca: None, client: client.clone() }), "settings", "cannot be trusted").await;
    let stranger = Tls { ca: Some(safe.path("stranger.pem")), client: client.clone() };
    check_refusal(with(stranger), "settings", "an authority in redis.tls_ca").await;
    check_refusal(with(Tls { ca: ca.clone(), client: None }), "settings", "refused this client's certificate").await;
    let no_pem = Tls { ca: Some(safe.path("password")), client };
    check_refusal(with(no_pem), "settings", "holds no certificate in the form of PEM").await;
    let other_name = Settings { url: secret(&format!("rediss://fleet@127.0.0.1:{}", safe.port)), ..good.clone() };
    check_refusal(other_name, "settings", "not valid for name").await;
    let plain = Settings { url: secret(&format!("rediss://fleet@localhost:{}", safe.server.port)), ..good.clone() };
    let claims = RedisClaims::new(Link::new(plain), &namespace());
    let said = timeout(FAILOVER, async {
        loop {
            let said = in_time(claims.ping()).await.unwrap_err().to_string();
            if said.contains("is that its port for TLS?") {
                return;
            }
        }
    });
    said.await.expect("a hint");
    let wrong = Settings { password_file: Some(safe.path("ca.pem")), ..good.clone() };
    check_refusal(wrong, "settings", "refused user \"fleet\"").await;

    let claims = RedisClaims::new(Link::new(good), &namespace());
    claims.ping().await.unwrap();
    let _: () = safe.server.ask("ACL SETUSER fleet -set").await;
    let error = claims.ping().await.unwrap_err().to_string();
    assert!(
        error.contains("does not let user \"fleet\" do all that claims need") && error.contains("'set'"),
        "{error}"
    );
}

/// A new password is read from its file when the next connection needs it.
#[tokio::test]
async fn a_new_password_needs_no_restart() {
    let safe = Safe::start().await;
    let claims = RedisClaims::new(Link::new(safe.settings()), &namespace());
    claims.ping().await.unwrap();
    fs::write(safe.path("password"), "second\n").unwrap();
    let _: () = safe.server.ask("ACL SETUSER fleet <first >second").await;
    claims.ping().await.unwrap(); // who is in stays in
    let _: () = safe.server.ask("CLIENT KILL USER fleet").await;
    in_time(claims.ping()).await.unwrap();
    assert_eq!(claims.ask(&key(0), &claim(1)).await, Ok(Answer::Won { deaths: 0, taken_over: false }));
}

/// A server that takes no writes answers, but no ping is content with that.
#[tokio::test]
async fn a_redis_without_room_and_a_replica_fail_the_ping() {
    let (primary, server) = tokio::join!(Redis::start(), Redis::start());
    let claims = RedisClaims::new(Link::new(settings(&server.url())), &namespace());
    claims.ping().await.unwrap();
    assert!(matches!(claims.ask(&key(0), &claim(1)).await, Ok(Answer::Won { .. })));

    let _: () = server.ask("CONFIG SET maxmemory 1").await;
    for error in [claims.ping().await.unwrap_err(), claims.ask(&key(0), &settle(1)).await.unwrap_err()] {
        let StoreError::Away(reason) = &error else { panic!("{error:?}") };
        assert!(reason.contains("maxmemory") && reason.contains("noeviction"), "{reason}");
    }
    let _: () = server.ask("CONFIG SET maxmemory 0").await;
    assert_eq!(claims.ask(&key(0), &settle(1)).await, Ok(Answer::Ok));

    let _: () = server.ask(&format!("REPLICAOF 127.0.0.1 {}", primary.port)).await;
    for writable in ["yes", "no"] {
        let _: () = server.ask(&format!("CONFIG SET replica-read-only {writable}")).await;
        let StoreError::Away(reason) = in_time(claims.ping()).await.unwrap_err() else { panic!("it is away") };
        assert!(reason.contains("is a replica") && reason.contains("redis.url must name the primary"), "{reason}");
    }
    let _: () = server.ask("REPLICAOF NO ONE").await;
    until_up(&claims, "the primary").await;
}

/// A server that says nothing costs a call a second, and nothing once it speaks again.
#[tokio::test]
async fn a_frozen_redis_costs_a_second_a_call() {
    let server = Redis::start().await;
    let claims = RedisClaims::new(Link::new(settings(&server.url())), &namespace());
    claims.ping().await.unwrap();
    server.freeze();
    for run in 0..5 {
        let error = in_time(claims.ask(&key(run), &claim(run))).await.unwrap_err();
        assert_eq!(error, StoreError::Timeout);
    }
    // Nor is it worse for who comes later, or for many at once.
    let later = RedisClaims::new(Link::new(settings(&server.url())), &namespace());
    let many = futures_util::future::join_all((0..100).map(|_| later.ping()));
    assert!(in_time(many).await.iter().all(Result::is_err));
    server.thaw();
    let began = Instant::now();
    until_up(&claims, "the server").await;
    assert!(began.elapsed() < CALL, "{:?}", began.elapsed());
    // What was not answered was done all the same, and the same token finds it so.
    assert_eq!(claims.ask(&key(0), &claim(0)).await, Ok(Answer::Won { deaths: 0, taken_over: false }));
    until_up(&later, "the server").await;
}

/// A killed server: calls fail at once while it is away, never after a row of reconnects.
#[tokio::test]
async fn a_redis_that_is_gone_fails_calls_at_once() {
    let mut server = Redis::start().await;
    let claims = RedisClaims::new(Link::new(settings(&server.url())), &namespace());
    assert!(matches!(claims.ask(&key(0), &claim(1)).await, Ok(Answer::Won { .. })));
    server.kill();
    let began = Instant::now();
    for _ in 0..200 {
        assert!(matches!(claims.ask(&key(0), &settle(1)).await, Err(StoreError::Away(_))));
    }
    assert!(began.elapsed() < CALL, "200 calls took {:?}", began.elapsed());
    server.restart().await;
    until_up(&claims, "the server").await;
    // It has forgotten the script, but not the claim.
    assert_eq!(claims.ask(&key(0), &settle(1)).await, Ok(Answer::Ok));
}

/// How a primary is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Killed,
    /// Its sockets stay open and say nothing.
    Frozen,
}

const DONE: std::ops::Range<u64> = 0..200;

async fn until_up(claims: &RedisClaims, what: &str) {
    let began = Instant::now();
    loop {
        let Err(error) = in_time(claims.ping()).await else { return };
        assert!(began.elapsed() < FAILOVER, "{what} is not back: {error}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn run_all(claims: &RedisClaims, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert!(matches!(claims.ask(&key(number), &claim(number)).await, Ok(Answer::Won { .. })));
        assert_eq!(claims.ask(&key(number), &settle(number)).await, Ok(Answer::Ok));
    }
}

/// Claims and settles one key after the other, for ever, and repeats calls that fail, as the fleet does.
async fn requests(claims: &RedisClaims) {
    for number in 1000.. {
        for request in [claim(number), settle(number)] {
            while in_time(claims.ask(&key(number), &request)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Pings fail while the primary is lost, and say why; requests go on by themselves.
async fn lose(claims: &RedisClaims, what: &str, primary: &mut Redis, loss: Loss) {
    const REASONS: [&str; 5] =
        ["cannot connect to", "cannot be reached", "is lost", "did not answer in time", "does not serve all slots"];
    let watch = async {
        match loss {
            Loss::Killed => primary.kill(),
            Loss::Frozen => primary.freeze(),
        }
        let lost_at = Instant::now();
        let failed = async {
            loop {
                if let Err(error) = in_time(claims.ping()).await {
                    return error.to_string();
                }
            }
        };
        let reason = timeout(FAILOVER, failed).await.expect("a ping that fails");
        assert!(REASONS.iter().any(|expected| reason.contains(expected)), "{what}: {reason}");
        println!("{what} {loss:?}: after {:.1} s a ping failed: {reason}", lost_at.elapsed().as_secs_f64());
        until_up(claims, what).await;
        println!("{what} {loss:?}: up again after {:.1} s", lost_at.elapsed().as_secs_f64());
    };
    tokio::select! {
        () = watch => {}
        () = requests(claims) => {}
    }
}

/// What was done before a failover is done after it, and new work is done by servers that had never seen the script.
async fn goes_on(claims: &RedisClaims) {
    for number in DONE {
        let token = Token { run: number, body: 0 };
        assert_eq!(in_time(claims.ask(&key(number), &claim(7))).await, Ok(Answer::Done { token }));
    }
    run_all(claims, 300..400).await;
}

async fn sentinels_fail_over(loss: Loss) {
    let mut watched = Watched::start().await;
    // One sentinel that is away costs nothing.
    let sentinels = [vec![format!("redis://127.0.0.1:{}", free_port())], watched.urls()].concat();
    let claims = RedisClaims::new(Link::new(watched_by("redis://mymaster", &sentinels)), &namespace());
    run_all(&claims, DONE).await;
    let [primary, replica] = &mut watched.servers;
    replica.until_like(primary).await;
    lose(&claims, "a primary with sentinels", primary, loss).await;
    goes_on(&claims).await;
}

#[tokio::test]
async fn sentinels_fail_over_from_a_primary_that_was_killed() {
    sentinels_fail_over(Loss::Killed).await;
}

#[tokio::test]
async fn sentinels_fail_over_from_a_primary_that_was_frozen() {
    sentinels_fail_over(Loss::Frozen).await;
}

/// A failover that an operator asks for: the old primary lives on, as a replica.
#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left() {
    let watched = Watched::start().await;
    let claims = RedisClaims::new(Link::new(watched_by("redis://mymaster", &watched.urls())), &namespace());
    run_all(&claims, DONE).await;
    let [primary, replica] = &watched.servers;
    replica.until_like(primary).await;
    let failover = async {
        let _: () = watched.sentinels[0].ask("SENTINEL FAILOVER mymaster").await;
        replica.until("INFO replication", &["role:master"]).await;
        primary.until("INFO replication", &["role:slave", "master_link_status:up"]).await;
        until_up(&claims, "the new primary").await;
    };
    tokio::select! {
        () = failover => {}
        () = requests(&claims) => {}
    }
    goes_on(&claims).await;
}

#[tokio::test]
async fn sentinels_name_the_primary_by_its_name_only() {
    let watched = Watched::start().await;
    let unknown = watched_by("redis://other", &watched.urls());
    check_refusal(unknown, "settings", "watches no primary named \"other\": redis.url must have its name").await;
    let direct = settings(&watched.urls()[0]);
    check_refusal(direct, "settings", "is a sentinel: name it in redis.sentinels").await;
    let replica = settings(&watched.servers[1].url());
    check_refusal(replica, "away", "is a replica: redis.url must name the primary").await;
}

async fn a_cluster_fails_over(loss: Loss) {
    let mut cluster = Cluster::start().await;
    let claims =
        RedisClaims::new(Link::new(clustered(&cluster.servers[0].url(), &[&cluster.servers[4]])), &namespace());
    run_all(&claims, DONE).await;
    let (primaries, replicas) = cluster.servers.split_at_mut(3);
    for (primary, replica) in primaries.iter().zip(replicas.iter()) {
        replica.until_like(primary).await;
    }
    // The node of the URL, at that: another one has to tell who took its place.
    lose(&claims, "a primary of a cluster", &mut primaries[0], loss).await;
    goes_on(&claims).await;
}

#[tokio::test]
async fn a_cluster_fails_over_from_a_primary_that_was_killed() {
    a_cluster_fails_over(Loss::Killed).await;
}

#[tokio::test]
async fn a_cluster_fails_over_from_a_primary_that_was_frozen() {
    a_cluster_fails_over(Loss::Frozen).await;
}

/// Slots that move while requests run: nobody notices.
#[tokio::test]
async fn slots_of_a_cluster_may_move() {
    let cluster = Cluster::start().await;
    for server in &cluster.servers {
        let user = format!("ACL SETUSER fleet on >password ~t*:* {RIGHTS}");
        let _: () = server.ask(&format!("{user} +cluster|slots +ping +asking")).await;
    }
    let url = cluster.servers[0].url().replace("//", "//fleet:password@");
    let claims = RedisClaims::new(Link::new(clustered(&url, &[])), &namespace());
    run_all(&claims, DONE).await;
    let one = settings(&cluster.servers[1].url());
    check_refusal(one, "settings", "is a node of a Redis Cluster: set `redis.cluster: true`").await;
    let [from, to] = [&cluster.servers[0], &cluster.servers[1]];
    let (from_id, to_id): (String, String) = (from.ask("CLUSTER MYID").await, to.ask("CLUSTER MYID").await);
    let asks = async {
        for slot in 0..200 {
            let _: () = to.ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).await;
            let _: () = from.ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")).await;
            let keys: Vec<String> = from.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 100")).await;
            for key in keys {
                let _: () = from.ask(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port)).await;
            }
            for node in [to, from, &cluster.servers[2]] {
                let _: () = node.ask(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
            }
        }
    };
    let asked = async {
        for number in (500..).step_by(10) {
            run_all(&claims, number..number + 10).await; // every call is answered
        }
    };
    tokio::select! {
        () = asks => {}
        () = asked => {}
    }
    goes_on(&claims).await;
}

/// A worker of a fleet that keeps its claims behind sentinels: not ready while the primary is lost, then as before.
#[tokio::test]
async fn a_worker_outlives_a_failover() {
    let (rabbit, _) = shared().await;
    let mut watched = Watched::start().await;
    let sink = Sink::start().await;
    let site = Site::servers(rabbit, &watched.servers[0])
        .hooks(&hook(&sink, "h", "a", ""))
        .set("HOOKFLEET_REDIS_URL", "redis://mymaster")
        .set("HOOKFLEET_REDIS_SENTINELS", &watched.urls().join(","));
    let mut worker = site.worker().await;
    let publisher = Publisher::amqp(rabbit, &site).await;
    publisher.send_all((0..100).map(|i| event("a", &format!("before-{i}")))).await;
    sink.until("what came before", FAILOVER, |calls| calls.len() == 100).await;
    watched.servers[0].kill();
    publisher.send_all((0..100).map(|i| event("a", &format!("after-{i}")))).await;
    let not_ready = async {
        loop {
            let answer = client().get(worker.url("/readyz")).send().await.unwrap();
            if answer.status() == 503 {
                return answer.text().await.unwrap();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let reason = timeout(FAILOVER, not_ready).await.expect("a worker that is not ready");
    assert!(reason.contains("the store of claims is away") && reason.contains("mymaster"), "{reason}");
    let all = |calls: &[Call]| calls.iter().map(|call| &call.event).collect::<HashSet<_>>().len() == 200;
    sink.until("everything", FAILOVER * 2, all).await;
    worker.until_ready().await;
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty());
}
