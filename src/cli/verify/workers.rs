//! The processes that `verify` breaks, and the leash that they are on.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::launch::Launch;
use crate::executor::install_crypto;

/// Longest wait for a worker to take work.
const READY_PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks at one that is not ready.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest wait for one answer about readiness.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a worker that ends by itself is started again: another program may have taken its port, and the broker may
/// have been away.
const RESTARTS_MAX: u32 = 3;
/// What a worker that is asked to end may take beyond its `worker.grace`.
const END_PATIENCE: Duration = Duration::from_secs(15);
/// Longest wait for killed processes to be gone.
const GONE_PATIENCE: Duration = Duration::from_secs(5);
/// What is shown of a worker's log.
const TAIL_LINES: usize = 5;
/// Kills its process group, and with it itself, once nobody holds the other end of its standard input any more: also if
/// this process is killed with -9, and also workers that are stopped.
const LEASH: &str = "cat >/dev/null; kill -s KILL 0";

/// Worker processes, all in one process group. Nothing of it outlives this process.
pub(super) struct Workers {
    launch: Launch,
    grace: Duration,
    folder: PathBuf,
    leash: Child,
    group: i32,
    running: Vec<Worker>,
    client: Client,
    /// Where the first one listens.
    first: watch::Sender<SocketAddr>,
}

struct Worker {
    child: Child,
    address: SocketAddr,
    restarts: u32,
}

impl Workers {
    /// Prepares a number of workers that write their logs into `folder`; [`Workers::start`] starts each.
    pub(super) fn new(launch: Launch, grace: Duration, folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", LEASH]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let leash = command.process_group(0).kill_on_drop(true).spawn().context("cannot start sh")?;
        let group = leash.id().and_then(|id| i32::try_from(id).ok()).context("sh has ended")?;
        install_crypto(); // a client refuses to be built without it
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(Self {
            launch,
            grace,
            folder: folder.to_owned(),
            leash,
            group,
            running: Vec::new(),
            client: Client::builder().no_proxy().timeout(LOOK_TIMEOUT).pool_max_idle_per_host(0).build()?,
            first: watch::Sender::new(nowhere),
        })
    }

    pub(super) fn count(&self) -> usize {
        self.running.len()
    }

    /// The address of the first worker, whoever it is at the moment.
    pub(super) fn first(&self) -> watch::Receiver<SocketAddr> {
        self.first.subscribe()
    }

    /// Starts this many, and waits until they are ready.
    pub(super) async fn start_all(&mut self, count: usize) -> anyhow::Result<()> {
        for number in 0..count {
            let worker = self.spawn(number)?;
            self.running.push(worker);
        }
        for number in 0..count {
            self.until_ready(number).await?;
        }
        Ok(())
    }

    /// Starts a worker in the place of one that has ended.
    pub(super) fn start(&mut self, number: usize) -> anyhow::Result<()> {
        self.running[number] = self.spawn(number)?;
        Ok(())
    }

    fn spawn(&self, number: usize) -> anyhow::Result<Worker> {
        // Free at this moment: if it is not any more when the worker takes it, that one ends and another is started.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = OpenOptions::new().create(true).append(true).open(self.log(number))?;
        let mut command = Command::from(self.launch.command(address));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(self.group).kill_on_drop(true);
        let child = command.spawn().context("cannot start a worker")?;
        if number == 0 {
            self.first.send_replace(address);
        }
        Ok(Worker { child, address, restarts: 0 })
    }

    /// Waits until a worker takes work. One that ended by itself is started again, as by any orchestrator.
    pub(super) async fn until_ready(&mut self, number: usize) -> anyhow::Result<()> {
        let give_up_at = Instant::now() + READY_PATIENCE;
        while !self.is_ready(number).await {
            let worker = &mut self.running[number];
            if let Some(status) = worker.child.try_wait()? {
                let restarts = worker.restarts + 1;
                if restarts > RESTARTS_MAX {
                    bail!("a worker ended with {status}{}", self.tail(number));
                }
                self.start(number)?;
                self.running[number].restarts = restarts;
            }
            if Instant::now() > give_up_at {
                bail!("a worker was not ready within {READY_PATIENCE:?}{}", self.tail(number));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn is_ready(&self, number: usize) -> bool {
        let url = format!("http://{}/readyz", self.running[number].address);
        self.client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// kill -9, and waits until it is gone.
    pub(super) async fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        Ok(self.running[number].child.kill().await?)
    }

    /// SIGTERM, and waits for the end of the drain.
    pub(super) async fn terminate(&mut self, number: usize) -> anyhow::Result<()> {
        self.signal(number, Signal::TERM);
        let patience = self.grace.saturating_add(END_PATIENCE);
        match timeout(patience, self.running[number].child.wait()).await {
            Ok(ended) => ended.map(drop).map_err(Into::into),
            Err(_) => Err(anyhow!("a worker did not end within {patience:?} of SIGTERM{}", self.tail(number))),
        }
    }

    /// Sends a signal; one that has ended by itself gets none.
    pub(super) fn signal(&self, number: usize, signal: Signal) {
        let id = self.running[number].child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal); // fails only if it is gone
        }
    }

    /// Kills all, and waits until they are gone.
    pub(super) async fn end(mut self) {
        drop(self.leash.stdin.take());
        let _ = timeout(GONE_PATIENCE, self.leash.wait()).await;
        for worker in &mut self.running {
            let _ = timeout(GONE_PATIENCE, worker.child.kill()).await;
        }
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.join(format!("worker-{number}.log"))
    }

    /// The last words of a worker, if there are any.
    fn tail(&self, number: usize) -> String {
        let text = File::open(self.log(number)).and_then(std::io::read_to_string).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        if last.is_empty() { String::new() } else { format!("; its last words:\n  {}", last.join("\n  ")) }
    }
}
