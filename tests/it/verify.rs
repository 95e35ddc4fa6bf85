//! `hookfleet verify`: nothing is lost while workers are killed, restarted and stopped, and nothing of it is left.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::fleet::Site;
use crate::pipeline::{Place, site};
use crate::servers::shared;
use crate::servers::slots::alone;

/// One at a time on the shared servers: each looks for what any of them left.
static ALONE: Mutex<()> = Mutex::const_new(());
const PATIENCE: Duration = Duration::from_secs(60);

/// A site with a folder of its own for temporary files.
async fn place(place: Place) -> (Site, PathBuf) {
    let site = site(place).await;
    let folder = site.folder.path().join("temporary");
    fs::create_dir(&folder).unwrap();
    let site = site.set("TMPDIR", folder.to_str().unwrap());
    (site, folder)
}

/// The rows of a short run, checked.
fn verify(site: &Site, more: &[&str]) -> Value {
    let arguments = ["verify", "--events", "150", "--rate", "75", "--json"];
    let output = site.run(&[&arguments[..], more].concat());
    let (shown, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{shown}{error}");
    let report: Value = serde_json::from_str(&shown).unwrap_or_else(|_| panic!("{shown}{error}"));
    let rows = report.get("phases").and_then(Value::as_array).unwrap();
    let texts: Vec<&str> = rows.iter().filter_map(|row| row.get("fault")?.as_str()).collect();
    assert_eq!(texts, ["quiet", "kill", "restart", "stop"]);
    for row in rows {
        let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("{name}: {row}"));
        assert_eq!((number("events"), number("lost"), number("letters")), (150, 0, 0), "{row}");
        assert_eq!(row.get("same_key"), Some(&true.into()), "{row}");
        // Every third is refused at first; of those that were under way at a kill, the first attempt is repeated.
        assert!(number("retried") >= 30, "{row}");
        let fault = row.get("fault").unwrap();
        assert_eq!(number("times") > 0, fault != "quiet", "{row}");
        assert!(number("duplicated") == 0 || fault == "kill" || fault == "stop", "{row}");
    }
    assert_eq!((report.get("passed"), output.status.code()), (Some(&true.into()), Some(0)), "{shown}");
    report
}

/// No queue, no exchange and no key of any run.
async fn assert_nothing_on_servers() {
    let (rabbit, redis) = shared().await;
    for what in ["list_queues", "list_exchanges"] {
        assert!(!rabbit.ctl(&[what, "name"]).contains("verify-"), "{what}");
    }
    assert!(!rabbit.ctl(&["list_policies"]).contains("verify-"));
    let mut connection = ::redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let left: Vec<String> = ::redis::cmd("KEYS").arg("verify-*").query_async(&mut connection).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

fn assert_empty(folder: &Path) {
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "{}", folder.display());
}

/// A long run in the background.
fn begin(site: &Site) -> Child {
    let mut command: Command = site.command();
    command.args(["verify", "--events", "5000", "--rate", "100"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

/// Waits until a run that was told to end has ended.
async fn ended(mut child: Child) -> Output {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < PATIENCE, "it did not end");
        sleep(Duration::from_millis(50)).await;
    }
    child.wait_with_output().unwrap()
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "waited for {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether a process owns the file of a run in this folder.
fn is_owned(folder: &Path) -> bool {
    let mut runs = fs::read_dir(folder).unwrap().filter_map(Result::ok);
    let lock = runs.next().map(|run| run.path().join("hookfleet.db.lock"));
    let Some(Ok(file)) = lock.map(File::open) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

#[tokio::test]
async fn nothing_is_lost_on_servers_and_nothing_left() {
    let _alone = alone(&ALONE).await;
    let (site, folder) = place(Place::Servers).await;
    // What was said as flags is handed to the workers too, but for what has to be their own.
    let site = site.set("HOOKFLEET_BROKER_URL", "").set("HOOKFLEET_LOG", "hookfleet=error");
    let broker = format!("broker.url={}", shared().await.0.urls());
    let report = verify(&site, &["--set", &broker, "--namespace", "theirs", "--workers", "2"]);
    assert_eq!((report.get("broker").unwrap(), report.get("workers").unwrap()), (&"servers".into(), &2.into()));
    assert_nothing_on_servers().await;
    assert_empty(&folder);
}

#[tokio::test]
async fn nothing_is_lost_in_a_file_and_nothing_left() {
    let (site, folder) = place(Place::File).await;
    let report = verify(&site, &[]);
    assert_eq!((report.get("broker").unwrap(), report.get("workers").unwrap()), (&"file".into(), &1.into()));
    assert_empty(&folder);
    assert!(!site.folder.path().join("hookfleet.db").exists(), "the user's own file is left alone");
}

#[tokio::test]
async fn an_interrupted_run_removes_everything() {
    let _alone = alone(&ALONE).await;
    let (site, folder) = place(Place::Servers).await;
    let run = begin(&site);
    let (rabbit, _) = shared().await;
    until("workers", || rabbit.ctl(&["-q", "list_consumers", "queue_name"]).contains("verify-")).await;
    sleep(Duration::from_secs(1)).await;
    signal(&run, "INT");
    let output = ended(run).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), error.lines().last()), (Some(1), Some("error: interrupted")));
    assert_nothing_on_servers().await;
    assert!(!rabbit.ctl(&["-q", "list_connections", "client_properties"]).contains("verify-"));
    assert_empty(&folder);
}

#[tokio::test]
async fn no_worker_outlives_a_run() {
    let (site, folder) = place(Place::File).await;
    let mut run = begin(&site);
    until("the worker", || is_owned(&folder)).await;
    run.kill().unwrap();
    run.wait().unwrap();
    until("the end of the worker", || !is_owned(&folder)).await;
}

#[tokio::test]
async fn what_cannot_work_is_said_at_once() {
    let _alone = alone(&ALONE).await;
    let (site, folder) = place(Place::File).await;
    let check = |site: &Site, arguments: &[&str], code: i32, expected: &str| {
        let output = site.run(&[&["verify"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            error.lines().any(|line| line.starts_with("error: ")) && error.contains(expected),
            "{arguments:?}: {error}"
        );
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert_empty(&folder);
    };
    check(
        &site,
        &["--events", "1000", "--rate", "10", "--limit", "100"],
        64,
        "expected --limit to be more than the 100 s",
    );
    check(&site, &["--workers", "3"], 64, "a file has one owner");
    let refused = "amqp://guest:guest@127.0.0.1:1";
    let (rabbit, _) = shared().await;
    let on_servers =
        |broker: &str, redis: &str| site.clone().set("HOOKFLEET_BROKER_URL", broker).set("HOOKFLEET_REDIS_URL", redis);
    check(&on_servers(refused, "redis://127.0.0.1:1"), &[], 69, "127.0.0.1:1");
    check(&on_servers(&rabbit.url(), "redis://127.0.0.1:1"), &[], 69, "cannot use the Redis of redis.url");
    let names = rabbit.ctl(&["list_queues", "name"]);
    assert!(!names.contains("verify-"), "what was declared before is gone: {names}");
}
