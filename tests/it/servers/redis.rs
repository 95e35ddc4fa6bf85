//! Redis servers: single ones, a primary with replica and sentinels, a cluster.
//!
//! `HOOKFLEET_TEST_REDIS_SERVER` names another program than `redis-server`, such as that of a newer version or of Valkey.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{FromRedisValue, RedisResult, from_redis_value};
use tempfile::TempDir;
use tokio::time::sleep;

use super::{Leashed, found, free_port, until_open};

/// Longest wait for servers to know each other.
const PATIENCE: Duration = Duration::from_secs(60);
/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// A Redis server with an append-only file.
pub(crate) struct Redis {
    server: Leashed,
    home: Arc<TempDir>,
    pub(crate) port: u16,
    arguments: Vec<String>,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With more arguments for the server.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        let home = Arc::new(tempfile::tempdir().unwrap());
        let port = free_port();
        let mut all = vec!["--port".to_owned(), port.to_string(), "--appendonly".to_owned(), "yes".to_owned()];
        all.extend(["--save", "", "--maxmemory-policy", "noeviction"].map(str::to_owned));
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let server = Self::boot(home.path(), port, &all).await;
        Self { server, home, port, arguments: all }
    }

    /// A sentinel that watches a primary named `mymaster`.
    async fn sentinel(primary: u16) -> Self {
        let home = Arc::new(tempfile::tempdir().unwrap());
        let port = free_port();
        let config = format!(
            "port {port}\nsentinel announce-ip 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {primary} 2\nsentinel \
             down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
        );
        let file = home.path().join("sentinel.conf");
        fs::write(&file, config).unwrap();
        let arguments = vec![file.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        let server = Self::boot(home.path(), port, &arguments).await;
        Self { server, home, port, arguments }
    }

    async fn boot(home: &Path, port: u16, arguments: &[String]) -> Leashed {
        let log = home.join("out.txt");
        let out = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let named = std::env::var("HOOKFLEET_TEST_REDIS_SERVER").ok().filter(|program| !program.is_empty());
        let program = named.unwrap_or_else(|| "redis-server".to_owned());
        let mut server = Leashed::start(
            Command::new(found(&[&program], "Redis"))
                .args(arguments)
                .args(["--bind", "127.0.0.1", "--dir", home.to_str().unwrap()])
                .stdin(Stdio::null())
                .stdout(out.try_clone().unwrap())
                .stderr(out),
        );
        until_open(&mut server, port, "Redis", &log).await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    pub(crate) async fn restart(&mut self) {
        self.server = Self::boot(self.home.path(), self.port, &self.arguments).await;
    }

    /// Stops the process where it stands; its sockets stay open.
    pub(crate) fn freeze(&self) {
        self.server.signal("STOP");
    }

    pub(crate) fn thaw(&self) {
        self.server.signal("CONT");
    }

    /// One command, its words separated by spaces.
    pub(crate) async fn try_ask<T: FromRedisValue>(&self, command: &str) -> RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        from_redis_value(command.query_async(&mut connection).await?).map_err(Into::into)
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(command).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Waits until the answer to a command holds all of these.
    pub(crate) async fn until(&self, command: &str, parts: &[&str]) {
        let began = Instant::now();
        loop {
            let answer: RedisResult<redis::Value> = self.try_ask(command).await;
            let text = match &answer {
                Ok(redis::Value::BulkString(text)) => String::from_utf8_lossy(text).into_owned(),
                Ok(redis::Value::SimpleString(text)) => text.clone(),
                Ok(redis::Value::Okay) => "OK".to_owned(),
                other => format!("{other:?}"),
            };
            if parts.iter().all(|part| text.contains(part)) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{command} on port {}: {text}", self.port);
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_replicating(&self) {
        self.until("INFO replication", &["master_link_status:up"]).await;
    }
}

impl Redis {
    /// Waits until a replica has all that its primary has.
    pub(crate) async fn until_like(&self, primary: &Self) {
        let offset = async |server: &Self| -> String {
            let info: String = server.ask("INFO replication").await;
            info.lines().find(|line| line.starts_with("master_repl_offset:")).unwrap().to_owned()
        };
        let began = Instant::now();
        while offset(primary).await != offset(self).await {
            assert!(began.elapsed() < PATIENCE, "the replica on port {} does not follow", self.port);
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A primary with a replica, and three sentinels that watch them.
pub(crate) struct Watched {
    pub(crate) servers: [Redis; 2],
    pub(crate) sentinels: [Redis; 3],
}

impl Watched {
    pub(crate) async fn start() -> Self {
        let primary = Redis::start().await;
        let replica = Redis::with(&["--replicaof", "127.0.0.1", &primary.port.to_string()]).await;
        replica.until_replicating().await;
        let port = primary.port;
        let (a, b, c) = tokio::join!(Redis::sentinel(port), Redis::sentinel(port), Redis::sentinel(port));
        let sentinels = [a, b, c];
        for sentinel in &sentinels {
            // All know each other and the replica, so that they can agree and have somebody to promote.
            sentinel.until("SENTINEL CKQUORUM mymaster", &["OK 3 usable"]).await;
            sentinel.until("INFO sentinel", &["status=ok", "slaves=1", "sentinels=3"]).await;
        }
        Self { servers: [primary, replica], sentinels }
    }

    /// The URLs of the sentinels.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::url).collect()
    }
}

/// Three primaries with a replica each.
pub(crate) struct Cluster {
    /// Primaries, then replicas in the same order.
    pub(crate) servers: Vec<Redis>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let ports: Vec<String> = (0..6).map(|_| free_port().to_string()).collect();
        let nodes = ports.iter().map(|bus| async move {
            Redis::with(&["--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "1000"]).await
        });
        let servers = futures_util::future::join_all(nodes).await;
        let share = SLOTS.div_ceil(3);
        for (number, server) in servers.iter().enumerate() {
            let _: () = server.ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
            if number < 3 {
                let (from, to) = (share * number, (share * (number + 1)).min(SLOTS) - 1);
                let _: () = server.ask(&format!("CLUSTER ADDSLOTSRANGE {from} {to}")).await;
            }
            if number > 0 {
                let _: () = servers[0].ask(&format!("CLUSTER MEET 127.0.0.1 {} {}", server.port, ports[number])).await;
            }
        }
        for server in &servers {
            server.until("CLUSTER INFO", &["cluster_state:ok", "cluster_known_nodes:6\r"]).await;
        }
        for number in 3..6 {
            let primary: String = servers[number - 3].ask("CLUSTER MYID").await;
            servers[number].until(&format!("CLUSTER REPLICATE {primary}"), &["OK"]).await;
        }
        for server in &servers[3..] {
            server.until_replicating().await;
        }
        for server in &servers {
            // Everybody knows who follows whom: only then does a failover work at once.
            until_replicas_known(server).await;
        }
        Self { servers }
    }
}

async fn until_replicas_known(server: &Redis) {
    let began = Instant::now();
    loop {
        let nodes: String = server.ask("CLUSTER NODES").await;
        if nodes.lines().filter(|line| line.contains("slave")).count() == 3 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{nodes}");
        sleep(Duration::from_millis(50)).await;
    }
}
