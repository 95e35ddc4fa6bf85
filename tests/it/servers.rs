//! Real servers on free loopback ports with data folders of their own, so that a test may kill them.
//!
//! Every process is on a leash: it dies when this test process does, however that ends.

use std::fs;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::sleep;

#[path = "servers/redis.rs"] // as the benchmark takes this file by its path too
pub(crate) mod redis;

use self::redis::Redis;

/// A child in a process group of its own, which is killed when this process ends or the value is dropped.
pub(crate) struct Leashed {
    pub(crate) child: Child,
    leash: Child,
}

impl Leashed {
    pub(crate) fn start(command: &mut Command) -> Self {
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

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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

/// A RabbitMQ node.
pub(crate) struct Rabbit {
    node: Leashed,
    _epmd: Leashed,
    home: Arc<TempDir>,
    pub(crate) port: u16,
    dist_port: u16,
    epmd_port: u16,
}

/// The server's own script: the wrapper in sbin of Debian's package changes the user.
const RABBIT: [&str; 4] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/homebrew/sbin/rabbitmq-server",
    "/usr/local/sbin/rabbitmq-server",
    "rabbitmq-server",
];

impl Rabbit {
    pub(crate) async fn start() -> Self {
        let home = Arc::new(tempfile::tempdir().unwrap());
        let (port, dist_port, epmd_port) = (free_port(), free_port(), free_port());
        let epmd = Leashed::start(
            Command::new(found(
                &["epmd", "/usr/bin/epmd", "/usr/lib/erlang/bin/epmd", "/opt/homebrew/opt/erlang/lib/erlang/bin/epmd"],
                "Erlang's epmd",
            ))
            .args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
        );
        let config = format!(
            "listeners.tcp.default = 127.0.0.1:{port}\ndisk_free_limit.absolute = 100MB\nvm_memory_high_watermark.relative = 0.6\nmax_message_size = {MESSAGE_BYTES_MAX}\n"
        );
        fs::write(home.path().join("rabbitmq.conf"), config).unwrap();
        fs::write(home.path().join("plugins"), "[].").unwrap();
        let node = Self::boot(home.path(), port, dist_port, epmd_port).await;
        Self { node, _epmd: epmd, home, port, dist_port, epmd_port }
    }

    fn command(program: PathBuf, home: &Path, dist_port: u16, epmd_port: u16) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", home)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .env("RABBITMQ_NODENAME", format!("t{dist_port}@localhost"))
            .env("RABBITMQ_DIST_PORT", dist_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", home.join("data"))
            .env("RABBITMQ_LOG_BASE", home.join("log"))
            .env("RABBITMQ_PID_FILE", home.join("pid"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", home.join("generated"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("plugins"))
            .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", home.join("advanced.config"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .stdin(Stdio::null());
        command
    }

    async fn boot(home: &Path, port: u16, dist_port: u16, epmd_port: u16) -> Leashed {
        let log = home.join("out.txt");
        let out = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = Self::command(found(&RABBIT, "RabbitMQ"), home, dist_port, epmd_port);
        let mut node = Leashed::start(command.stdout(out.try_clone().unwrap()).stderr(out));
        until_open(&mut node, port, "RabbitMQ", &log).await;
        node
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill(&mut self) {
        self.node.kill();
    }

    /// Starts the node again on the data that it had.
    pub(crate) async fn restart(&mut self) {
        self.node = Self::boot(self.home.path(), self.port, self.dist_port, self.epmd_port).await;
    }

    /// Runs `rabbitmqctl` on this node.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let program = found(
            &[
                "/usr/lib/rabbitmq/bin/rabbitmqctl",
                "/opt/homebrew/sbin/rabbitmqctl",
                "/usr/local/sbin/rabbitmqctl",
                "rabbitmqctl",
            ],
            "rabbitmqctl",
        );
        let output =
            Self::command(program, self.home.path(), self.dist_port, self.epmd_port).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

/// One RabbitMQ and one Redis for all tests that do not kill them; each test has a namespace of its own.
pub(crate) async fn shared() -> &'static (Rabbit, Redis) {
    static SERVERS: OnceCell<(Rabbit, Redis)> = OnceCell::const_new();
    SERVERS.get_or_init(|| async { tokio::join!(Rabbit::start(), Redis::start()) }).await
}

/// A namespace that no other test has.
pub(crate) fn namespace() -> String {
    format!("t{:08x}", fastrand::u32(..))
}
