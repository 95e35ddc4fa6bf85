//! What may happen to the one process that owns a file, and to the disk under it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{Expect, LEAD, hooks, row};
use crate::fleet::{Site, Worker};
use crate::load::Load;
use crate::publishing::Publisher;
use crate::tiers::sizes::FAULT_SECONDS;

/// Events a second: every one is written to the disk more than once.
const RATE: u64 = 100;

/// The owner of a file under load.
struct Trial {
    fault: &'static str,
    load: Load,
    site: Site,
    worker: Worker,
    publishing: JoinHandle<()>,
}

impl Trial {
    /// Starts the load; returns in the middle of it.
    async fn begin(fault: &'static str, settings: impl FnOnce(Site) -> Site) -> Self {
        let load = Load::new(FAULT_SECONDS.get(), RATE).await;
        let site = Site::embedded()
            .set("HOOKFLEET_IDEMPOTENCY_LEASE", "3s")
            .set("HOOKFLEET_LOG", "hookfleet=warn")
            .hooks(&hooks(&load))
            .on_one_port();
        let site = settings(site);
        let worker = site.worker().await;
        let publishing = load.publish(Publisher::http(site.port()));
        sleep(LEAD).await;
        Self { fault, load, site, worker, publishing }
    }

    async fn end(mut self, expect: Expect) {
        self.load.may_repeat = expect == Expect::Again && self.load.kills.is_empty();
        self.publishing.await.unwrap();
        self.load.until_all_done(|| self.worker.log()).await;
        let outcome = self.load.outcome();
        row(self.fault, &outcome, &[]);
        assert!(expect == Expect::Again || outcome.duplicates == 0, "{outcome:?}");
        assert!(self.site.letters().is_empty());
        let file = self.site.folder.path().join("hookfleet.db");
        until_nothing_waits(&file).await;
        assert_eq!(self.worker.stop().await, Some(0), "{}", self.worker.log());
        nothing_is_left(&file);
    }
}

/// Waits for what still comes round when all is done: copies of what a process that was killed had in hand, and guards.
async fn until_nothing_waits(file: &Path) {
    let conn = rusqlite::Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let began = Instant::now();
    loop {
        let waiting: i64 = conn.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).unwrap();
        if waiting == 0 {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{waiting} messages wait a minute after all was done");
        sleep(Duration::from_millis(100)).await;
    }
}

/// No message waits, and no claim is unfinished, once the process has ended in order.
fn nothing_is_left(file: &Path) {
    let conn = rusqlite::Connection::open(file).unwrap();
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM messages"), 0, "messages are left");
    assert!(count("SELECT count(*) FROM claims") > 0);
    assert_eq!(
        count("SELECT count(*) FROM claims WHERE substr(value, 1, 1) NOT IN ('d', 'b')"),
        0,
        "unfinished claims"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_killed() {
    let mut trial = Trial::begin("(file) the process killed with -9, five times", |site| site).await;
    for _ in 0..5 {
        trial.worker.process.kill();
        trial.load.kills.push(Instant::now());
        trial.worker = trial.site.worker().await;
        sleep(Duration::from_secs(1)).await;
    }
    trial.end(Expect::Again).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn the_owner_is_restarted() {
    let mut trial = Trial::begin("(file) the process restarted (SIGTERM), 20 times", |site| site).await;
    for _ in 0..20 {
        assert_eq!(trial.worker.stop().await, Some(0), "{}", trial.worker.log());
        trial.worker = trial.site.worker().await;
    }
    trial.end(Expect::Once).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn the_owner_stands_still() {
    let trial = Trial::begin("(file) the process stopped (SIGSTOP) for 10 s", |site| site).await;
    trial.worker.process.signal("STOP");
    sleep(Duration::from_secs(10)).await;
    trial.worker.process.signal("CONT");
    trial.end(Expect::Again).await; // its leases have ended
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn the_clock_jumps() {
    let trial = Trial::begin("(file) the clock jumps by an hour, forth and back", Site::with_clock).await;
    for offset in ["+3600", "-3600", "+0"] {
        trial.site.set_clock(offset);
        sleep(Duration::from_secs(3)).await;
    }
    trial.end(Expect::Once).await;
}

/// Runs a command of the system that has to succeed.
fn system(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A small file system of its own; it goes with the value.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        system("mount", &["-t", "tmpfs", "-o", "size=24m", "tmpfs", folder.path().to_str().unwrap()]);
        Self(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let file = format!("of={}", self.path("filler").display());
        let _ = Command::new("dd").args(["if=/dev/zero", &file, "bs=64k"]).output(); // it fails: that is what it is for
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", self.0.path().to_str().unwrap()]).status();
    }
}

/// It mounts a small file system, which takes root.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn the_disk_is_full() {
    let disk = Disk::new();
    let file = disk.path("hookfleet.db");
    let trial = Trial::begin("(file) the disk full for 5 s", |site| {
        site.set("HOOKFLEET_EMBEDDED_PATH", file.to_str().unwrap())
    })
    .await;
    disk.fill();
    sleep(Duration::from_secs(5)).await;
    std::fs::remove_file(disk.path("filler")).unwrap();
    let Trial { fault, mut load, site, mut worker, publishing } = trial;
    load.may_repeat = true; // leases end meanwhile, so that runs are interrupted
    publishing.await.unwrap();
    load.until_all_done(|| worker.log()).await;
    row(fault, &load.outcome(), &[]);
    assert!(site.letters().is_empty());
    assert_eq!(worker.stop().await, Some(0), "{}", worker.log());
    nothing_is_left(&file);
}
