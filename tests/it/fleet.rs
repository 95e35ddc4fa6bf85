//! Worker processes of the real binary, and what tests ask of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookfleet::domain::message::FORMAT_VERSION;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::servers::redis::Redis;
use crate::servers::{Leashed, Rabbit, client, free_port, namespace};

/// The program under test.
pub(crate) const HOOKFLEET: &str = env!("CARGO_BIN_EXE_hookfleet");

/// Where workers of a test work: servers or a file, a namespace, a hooks file, settings.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) folder: Arc<TempDir>,
    pub(crate) namespace: String,
    env: BTreeMap<String, String>,
    /// Of every worker here; else each takes a free one.
    port: Option<u16>,
    /// Workers serve the gateway too, as `up` does.
    everything: bool,
    /// What the program is started through: a command and its arguments.
    through: Vec<String>,
}

impl Site {
    fn new(env: &[(&str, String)]) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let namespace = namespace();
        let mut site = Self {
            folder,
            namespace: namespace.clone(),
            env: BTreeMap::new(),
            port: None,
            everything: false,
            through: Vec::new(),
        };
        for (name, value) in env {
            site.env.insert((*name).to_owned(), value.clone());
        }
        site.env.insert("HOOKFLEET_NAMESPACE".into(), namespace);
        site.env.insert("HOOKFLEET_EGRESS_ALLOW".into(), "127.0.0.0/8".into());
        site.env.insert("HOOKFLEET_LOG".into(), "hookfleet=info".into());
        let hooks = site.hooks_file().to_str().unwrap().to_owned();
        site.env.insert("HOOKFLEET_HOOKS".into(), hooks);
        site
    }

    /// On these servers.
    pub(crate) fn servers(rabbit: &Rabbit, redis: &Redis) -> Self {
        Self::new(&[("HOOKFLEET_BROKER_URL", rabbit.urls()), ("HOOKFLEET_REDIS_URL", redis.url())])
    }

    /// In a file of its own.
    pub(crate) fn embedded() -> Self {
        let mut site = Self { everything: true, ..Self::new(&[]) };
        let file = site.folder.path().join("hookfleet.db").to_str().unwrap().to_owned();
        site.env.insert("HOOKFLEET_EMBEDDED_PATH".into(), file);
        site
    }

    /// Workers on servers serve the gateway too.
    pub(crate) fn with_gateway(self) -> Self {
        Self { everything: true, ..self }
    }

    /// The same with workers that write messages of the next version.
    pub(crate) fn of_the_next_version(&self) -> Self {
        self.clone().set("HOOKFLEET_TEST_FORMAT_VERSION", &(FORMAT_VERSION + 1).to_string())
    }

    /// Processes here are started by another command, which gets the program as its last argument.
    pub(crate) fn through(self, command: &[&str]) -> Self {
        Self { through: command.iter().map(|&word| word.to_owned()).collect(), ..self }
    }

    /// Processes here go by a clock that a test can set (`libfaketime`).
    pub(crate) fn with_clock(self) -> Self {
        let (preload, names) = if cfg!(target_os = "macos") {
            (
                "DYLD_INSERT_LIBRARIES",
                ["/opt/homebrew/lib/faketime/libfaketime.1.dylib", "/usr/local/lib/faketime/libfaketime.1.dylib"],
            )
        } else {
            (
                "LD_PRELOAD",
                [
                    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
                    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
                ],
            )
        };
        let library = names.into_iter().find(|name| Path::new(name).is_file());
        let library = library.unwrap_or_else(|| panic!("libfaketime is not installed: tests/run does it"));
        let file = self.folder.path().join("clock");
        fs::write(&file, "+0").unwrap();
        self.set(preload, library)
            .set("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap())
            .set("FAKETIME_NO_CACHE", "1")
            .set("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    /// The clock jumps to so far from the true one, such as `+3600` seconds.
    pub(crate) fn set_clock(&self, offset: &str) {
        fs::write(self.folder.path().join("clock"), offset).unwrap();
    }

    pub(crate) fn hooks_file(&self) -> PathBuf {
        self.folder.path().join("hooks.yaml")
    }

    /// Writes the hooks file; `hooks` are the list items.
    pub(crate) fn hooks(self, hooks: &str) -> Self {
        fs::write(self.hooks_file(), format!("version: 1\nhooks:\n{hooks}\n")).unwrap();
        self
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// All workers here, one after the other, listen on one port.
    pub(crate) fn on_one_port(mut self) -> Self {
        self.port = Some(free_port());
        self
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or_else(free_port)
    }

    pub(crate) fn command(&self) -> Command {
        let words: Vec<&str> = self.through.iter().map(String::as_str).chain([HOOKFLEET]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.env_clear().envs(&self.env).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command of the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Runs a command that must succeed; answers what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out.into_owned()
    }

    /// Starts a worker (`up` in a file, `worker` on servers) and waits until it is ready.
    pub(crate) async fn worker(&self) -> Worker {
        let worker = self.spawn(&[]);
        worker.until_ready().await;
        worker
    }

    /// Starts a server without a worker, and waits until it is ready.
    pub(crate) async fn server(&self) -> Worker {
        let server = self.start("server", &[]);
        server.until_ready().await;
        server
    }

    /// Starts a worker with more variables, without waiting.
    pub(crate) fn spawn(&self, env: &[(&str, &str)]) -> Worker {
        self.start(if self.everything { "up" } else { "worker" }, env)
    }

    /// Starts a server without waiting.
    pub(crate) fn spawn_server(&self) -> Worker {
        self.start("server", &[])
    }

    fn start(&self, subcommand: &str, env: &[(&str, &str)]) -> Worker {
        let port = self.port();
        let log = self.folder.path().join(format!("worker-{:08x}.log", fastrand::u32(..)));
        let file = fs::File::create(&log).unwrap();
        let mut command = self.command();
        command.arg(subcommand);
        command.env("HOOKFLEET_HTTP_BIND", format!("127.0.0.1:{port}")).envs(env.iter().copied());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Worker { process: Leashed::start(&mut command), port, log, _folder: Arc::clone(&self.folder) }
    }

    /// Every letter, as the command line lists it.
    pub(crate) fn letters(&self) -> Vec<serde_json::Value> {
        let lines = self.ok(&["dead-letters", "export", "--ndjson"]);
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A worker process.
pub(crate) struct Worker {
    pub(crate) process: Leashed,
    pub(crate) port: u16,
    pub(crate) log: PathBuf,
    pub(crate) _folder: Arc<TempDir>,
}

impl Worker {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }

    pub(crate) async fn until_ready(&self) {
        let began = Instant::now();
        loop {
            if let Ok(answer) = client().get(self.url("/readyz")).send().await
                && answer.status().is_success()
            {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the worker is not ready:\n{}", self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the process is gone; answers its exit code.
    pub(crate) async fn ended(&mut self, limit: Duration) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < limit, "the worker did not end:\n{}", self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// SIGTERM, and waits for the end of the drain.
    pub(crate) async fn stop(&mut self) -> Option<i32> {
        self.process.signal("TERM");
        self.ended(Duration::from_secs(60)).await
    }

    /// What it answers, if it does.
    pub(crate) async fn ask(&self, path: &str) -> Value {
        let answer = client().get(self.url(path)).send().await;
        match answer {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        }
    }

    /// Waits until an answer of this worker holds something.
    pub(crate) async fn until(&self, path: &str, what: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.ask(path).await;
            if what(&answer) {
                return answer;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{path} says {answer:#}\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The sum of a metric over the series whose labels contain `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = match client().get(self.url("/metrics")).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => return 0.0,
        };
        metric(&text, name, label)
    }
}

impl Worker {
    /// Waits until a metric is as much as this, over the series whose labels contain `label`.
    pub(crate) async fn until_metric(&self, name: &str, label: &str, least: f64) {
        let began = Instant::now();
        loop {
            let found = self.metric(name, label).await;
            if found >= least {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{name} {label}: {found}, not yet {least}\n{}",
                self.log()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The sum of a metric in a Prometheus text.
pub(crate) fn metric(text: &str, name: &str, label: &str) -> f64 {
    text.lines()
        .filter(|line| line.starts_with(name) && !line.starts_with('#') && line.contains(label))
        .filter(|line| matches!(line.as_bytes().get(name.len()), Some(b'{' | b' ')))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
