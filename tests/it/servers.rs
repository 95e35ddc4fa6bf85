//! Real servers on free loopback ports with data folders of their own, so that a test may kill them.
//!
//! Every process is on a leash: it dies when this test process does, however that ends.

use std::fs;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hookfleet::config::BrokerServer;
use hookfleet::domain::secret::Secret;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::sleep;
use url::Url;

#[path = "servers/redis.rs"] // as the benchmark takes this file by its path too
pub(crate) mod redis;
#[path = "servers/slots.rs"]
pub(crate) mod slots;
#[path = "servers/sweep.rs"]
mod sweep;

use self::redis::Redis;

/// A child in a process group of its own, which is killed when this process ends or the value is dropped.
pub(crate) struct Leashed {
    pub(crate) child: Child,
    leash: Child,
}

impl Leashed {
    pub(crate) fn start(command: &mut Command) -> Self {
        slots::take();
        let shown = format!("{command:?}");
        let child = command.process_group(0).spawn().unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let script = format!("cat >/dev/null; kill -s KILL -- -{} 2>/dev/null", child.id());
        let leash = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, leash }
    }

    pub(crate) fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Signals the process itself, such as "STOP" or "TERM".
    pub(crate) fn signal(&self, name: &str) {
        let _ = Command::new("kill").args([&format!("-{name}"), "--", &self.id().to_string()]).status();
    }

    /// kill -9 to the whole group, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let group = format!("-{}", self.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        self.kill();
        drop(self.leash.stdin.take());
        let _ = self.leash.wait();
    }
}

/// An HTTP client.
pub(crate) fn client() -> reqwest::Client {
    static CLIENT: std::sync::OnceLock<reqwest::Client> = std::sync::OnceLock::new();
    let make = || {
        hookfleet::executor::install_crypto();
        // Tests have a runtime each, and a pooled connection lives on the runtime that opened it.
        reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap()
    };
    CLIENT.get_or_init(make).clone()
}

/// A port that is free, that nothing else here was given, and that no connection is given by the system: a server may be
/// stopped for a while and still have it to itself.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000; // the ports of connections begin at 32,768 on Linux, at 49,152 elsewhere
    static NEXT: AtomicU32 = AtomicU32::new(0);
    slots::take();
    let start = std::process::id() % 199 * 100; // the processes of two runs are far apart
    for _ in 0..COUNT {
        let place = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + place).unwrap();
        if StdListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port between {FIRST} and {} is free", FIRST + COUNT);
}

async fn until_open(server: &mut Leashed, port: u16, what: &str, log: &Path) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let began = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        let ended = server.child.try_wait().unwrap().is_some();
        let waiting = !ended && began.elapsed() < Duration::from_secs(90);
        assert!(waiting, "{what} did not open port {port}:\n{}", fs::read_to_string(log).unwrap_or_default());
        sleep(Duration::from_millis(100)).await;
    }
}

fn found(names: &[&str], what: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = |name: &&str| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    names
        .iter()
        .find_map(|name| {
            if name.starts_with('/') { Some(PathBuf::from(name)).filter(|it| it.is_file()) } else { on_path(name) }
        })
        .unwrap_or_else(|| panic!("{what} is not installed: run tests/run, which installs it, or install it by hand"))
}

/// What RabbitMQ 4 comes with; 3.10 takes eight times as much by itself.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A RabbitMQ broker: one node, or a cluster of three.
pub(crate) struct Rabbit {
    nodes: Vec<Node>,
    pub(crate) port: u16,
    folder: Folder,
    _epmd: Leashed,
}

/// What the nodes of a broker share.
struct Folder {
    home: Arc<TempDir>,
    epmd_port: u16,
    make: Make,
}

struct Node {
    process: Option<Leashed>,
    port: u16,
    dist_port: u16,
}

/// Which broker to start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Make {
    /// Of a cluster of three nodes.
    pub(crate) cluster: bool,
    /// The RabbitMQ of this release of Debian, out of `tests/newer-servers`, and not the one of this system.
    pub(crate) release: Option<&'static str>,
    /// Plugins by name.
    pub(crate) plugins: &'static [&'static str],
    /// More lines of rabbitmq.conf.
    pub(crate) config: String,
}

impl Make {
    /// As HOOKFLEET_TEST_BROKERS says: `single` (the default), `cluster`, or a single node of a newer release.
    pub(crate) fn of_environment() -> Self {
        let make = Self::default();
        match std::env::var("HOOKFLEET_TEST_BROKERS").as_deref() {
            Err(_) | Ok("" | "single") => make,
            Ok("cluster") => Self { cluster: true, ..make },
            Ok("trixie") => Self { release: Some("trixie"), ..make },
            Ok(NEWEST) => Self { release: Some(NEWEST), ..make },
            Ok(other) => panic!("HOOKFLEET_TEST_BROKERS: expected single, cluster, trixie or {NEWEST}, found {other}"),
        }
    }
}

/// The server's own script: the wrapper in sbin of Debian's package changes the user.
const RABBIT: [&str; 4] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/homebrew/sbin/rabbitmq-server",
    "/usr/local/sbin/rabbitmq-server",
    "rabbitmq-server",
];
const CTL: [&str; 4] = [
    "/usr/lib/rabbitmq/bin/rabbitmqctl",
    "/opt/homebrew/sbin/rabbitmqctl",
    "/usr/local/sbin/rabbitmqctl",
    "rabbitmqctl",
];
const EPMD: [&str; 4] =
    ["epmd", "/usr/bin/epmd", "/usr/lib/erlang/bin/epmd", "/opt/homebrew/opt/erlang/lib/erlang/bin/epmd"];

/// The newest release of Debian, with RabbitMQ 4.3 and Valkey 9.
pub(crate) const NEWEST: &str = "forky";

/// A program of `tests/newer-servers`.
fn newer(release: &str, program: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/newer-servers").join(release).join("bin").join(program);
    assert!(path.is_file(), "{} is missing: run tests/newer-servers {release} as root", path.display());
    path
}

impl Rabbit {
    /// The broker that the tests are to run on.
    pub(crate) async fn start() -> Self {
        Self::make(Make::of_environment()).await
    }

    pub(crate) async fn make(make: Make) -> Self {
        let epmd_port = free_port();
        let epmd = Leashed::start(
            Command::new(found(&EPMD, "Erlang's epmd"))
                .args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"])
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        let nodes = if make.cluster { 3 } else { 1 };
        let folder = Folder { home: Arc::new(tempfile::tempdir().unwrap()), epmd_port, make };
        let mut started: Vec<Node> = Vec::new();
        for _ in 0..nodes {
            let mut node = Node { process: None, port: free_port(), dist_port: free_port() };
            folder.prepare(&node);
            node.process = Some(folder.boot(&node).await);
            if let Some(first) = started.first() {
                for arguments in [&["stop_app"][..], &["join_cluster", &first.name()], &["start_app"]] {
                    folder.ctl(&node, arguments);
                }
            }
            started.push(node);
        }
        Self { port: started[0].port, nodes: started, folder, _epmd: epmd }
    }

    /// The first node.
    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    /// All nodes, as the setting broker.url takes them.
    pub(crate) fn urls(&self) -> String {
        let urls: Vec<String> =
            self.nodes.iter().map(|node| format!("amqp://guest:guest@127.0.0.1:{}", node.port)).collect();
        urls.join(",")
    }

    /// All nodes, as the library takes them.
    pub(crate) fn server(&self) -> BrokerServer {
        let parse = |url: &str| Secret::new(Url::parse(url).unwrap());
        let urls: Vec<_> = self.urls().split(',').map(parse).collect();
        BrokerServer { urls, ..BrokerServer::at(Url::parse(&self.url()).unwrap()) }
    }

    /// Kills the first node, which leads the queues that were declared through it.
    pub(crate) fn kill(&mut self) {
        self.nodes[0].process = None;
    }

    /// Starts the killed nodes again on the data that they had.
    pub(crate) async fn restart(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.process.is_none()) {
            node.process = Some(self.folder.boot(node).await);
        }
    }

    /// The last lines of each node's log, for failures that only the broker can explain.
    pub(crate) fn log(&self) -> String {
        const LINES_MAX: usize = 300;
        let read = |node: &Node| {
            let path = self.folder.of(node).join("log").join(format!("{}.log", node.name()));
            let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let text = text.unwrap_or_else(|error| format!("{}: {error}", path.display()));
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES_MAX)..];
            format!("--- log of {}\n{}\n", node.name(), last.join("\n"))
        };
        self.nodes.iter().map(read).collect()
    }

    /// The place of the node that leads a queue.
    pub(crate) fn leader(&self, queue: &str) -> usize {
        let listed = self.ctl(&["-q", "list_queues", "name", "pid", "--no-table-headers"]);
        let line =
            listed.lines().find(|line| line.split('\t').next() == Some(queue)).unwrap_or_else(|| panic!("{listed}"));
        self.nodes.iter().position(|node| line.contains(&node.name())).unwrap_or_else(|| panic!("{line}"))
    }

    pub(crate) fn kill_node(&mut self, node: usize) {
        self.nodes[node].process = None;
    }

    /// Runs `rabbitmqctl` on the first node that runs.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let node = self.nodes.iter().find(|node| node.process.is_some()).expect("a node that runs");
        self.folder.ctl(node, arguments)
    }
}

impl Node {
    fn name(&self) -> String {
        format!("t{}@localhost", self.dist_port)
    }
}

impl Folder {
    fn of(&self, node: &Node) -> PathBuf {
        self.home.path().join(format!("node-{}", node.dist_port))
    }

    /// Writes the settings of a node.
    fn prepare(&self, node: &Node) {
        let folder = self.of(node);
        fs::create_dir(&folder).unwrap();
        let config = format!(
            "listeners.tcp.default = 127.0.0.1:{}\ndisk_free_limit.absolute = 100MB\n\
             vm_memory_high_watermark.relative = 0.6\nmax_message_size = {MESSAGE_BYTES_MAX}\n{}",
            node.port, self.make.config
        );
        fs::write(folder.join("rabbitmq.conf"), config).unwrap();
        let advanced = concat!(env!("CARGO_MANIFEST_DIR"), "/config/rabbitmq-advanced.config");
        fs::copy(advanced, folder.join("advanced.config")).unwrap();
        fs::write(folder.join("plugins"), format!("[{}].", self.make.plugins.join(","))).unwrap();
    }

    fn command(&self, program: PathBuf, node: &Node) -> Command {
        let folder = self.of(node);
        let mut command = Command::new(program);
        command
            .env("HOME", self.home.path())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_NODENAME", node.name())
            .env("RABBITMQ_DIST_PORT", node.dist_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", folder.join("generated"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", folder.join("advanced.config"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .stdin(Stdio::null());
        command
    }

    async fn boot(&self, node: &Node) -> Leashed {
        let log = self.of(node).join("out.txt");
        let out = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let program =
            self.make.release.map_or_else(|| found(&RABBIT, "RabbitMQ"), |release| newer(release, "rabbitmq-server"));
        let mut command = self.command(program, node);
        let mut process = Leashed::start(command.stdout(out.try_clone().unwrap()).stderr(out));
        until_open(&mut process, node.port, "RabbitMQ", &log).await;
        process
    }

    fn ctl(&self, node: &Node, arguments: &[&str]) -> String {
        let program =
            self.make.release.map_or_else(|| found(&CTL, "rabbitmqctl"), |release| newer(release, "rabbitmqctl"));
        let output = self.command(program, node).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

static SERVERS: OnceCell<(Rabbit, Redis)> = OnceCell::const_new();

/// One RabbitMQ and one Redis for all tests that do not kill them; each test has a namespace of its own.
pub(crate) async fn shared() -> &'static (Rabbit, Redis) {
    slots::take(); // first: the test that starts them has to have its units when the others wait for it
    SERVERS.get_or_init(|| async { tokio::join!(Rabbit::start(), Redis::start()) }).await
}

/// A namespace that no other test has. What it has on the shared broker is deleted when the test has ended.
pub(crate) fn namespace() -> String {
    let namespace = format!("t{:08x}", fastrand::u32(..));
    slots::sweep_at_end(&namespace);
    namespace
}
