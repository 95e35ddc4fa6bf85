//! A program in Python that speaks Kheish's contract only, and has a model of it (`tests/kheish`), plays its daemon: it writes
//! hooks, raises all of their events, and compares what comes of each with the model, field by field. It must find five faults
//! that are planted in the hooks, as an implementation could have them.

use std::path::Path;
use std::process::Output;

use tokio::process::Command;

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, site};
use crate::servers::{free_port, shared};

/// The host in the settings. Kheish takes no loopback address, and no more does the import.
const HOST: &str = "hooks.daemon.example";

async fn daemon(arguments: &[&str]) -> Output {
    let python = std::env::var("HOOKFLEET_TEST_PYTHON").expect("set by tests/run: a python with pika");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kheish/daemon.py");
    Command::new(python).args(["-B", script]).args(arguments).output().await.unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn ok(arguments: &[&str]) -> String {
    let output = daemon(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A site whose hooks are those of the daemon, as they are imported.
struct Stage {
    site: Site,
    folder: String,
    port: String,
}

async fn stage(place: Place) -> Stage {
    let site = site(place).await.with_gateway();
    // Hooks run in login shells: what the files of a home say would be among what they say.
    let home = site.folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let site = site.set("HOME", home.to_str().unwrap()).set("HOOKFLEET_COMMANDS_ALLOW", "/bin/bash");
    let site = site.set("HOOKFLEET_HTTP_KHEISH_API", "true");
    let (folder, port) = (site.folder.path().join("kheish"), free_port().to_string());
    let folder = folder.to_str().unwrap().to_owned();
    ok(&["settings", "--dir", &folder, "--port", &port]).await;
    let hooks = site.ok(&["hooks", "import", "--from", "kheish", &format!("{folder}/hooks.json")]);
    std::fs::write(site.hooks_file(), hooks.replace(HOST, &format!("127.0.0.1:{port}"))).unwrap();
    Stage { site, folder, port }
}

impl Stage {
    /// All of its events. The outcome of events that Kheish ignores the outcome of is none here: their hooks observe.
    async fn play(&self, worker: &Worker, more: &[&str]) -> Output {
        let url = worker.url("");
        let arguments = ["play", "--dir", &self.folder, "--port", &self.port, "--url", &url, "--observers"];
        daemon(&[&arguments, more].concat()).await
    }
}

fn nothing_differs(played: &Output) {
    let said = text(played);
    assert!(played.status.success(), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("324 trials, ") && last.ends_with(", 0 mismatches"), "{said}");
}

#[tokio::test]
async fn the_model_is_right_about_the_vectors() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/kheish.json");
    crate::servers::slots::take();
    let said = ok(&["vectors", vectors.to_str().unwrap()]).await;
    assert!(said.contains(", 0 mismatches"), "{said}");
}

#[tokio::test]
async fn nothing_differs_in_a_file() {
    let stage = stage(Place::File).await;
    let mut worker = stage.site.worker().await;
    nothing_differs(&stage.play(&worker, &[]).await);
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn nothing_differs_on_servers() {
    let stage = stage(Place::Servers).await;
    let mut worker = stage.site.worker().await;
    nothing_differs(&stage.play(&worker, &[]).await);
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn nothing_differs_over_amqp() {
    let stage = stage(Place::Servers).await;
    let mut worker = stage.site.worker().await;
    let url = shared().await.0.url();
    nothing_differs(&stage.play(&worker, &["--amqp", &url, "--namespace", &stage.site.namespace]).await);
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn planted_faults_are_found() {
    for fault in 1..=5 {
        let stage = stage(Place::File).await;
        let hooks = stage.site.hooks_file();
        let planted = ok(&["plant", &fault.to_string(), "--catalog", hooks.to_str().unwrap()]).await;
        std::fs::write(&hooks, planted).unwrap();
        let mut worker = stage.site.worker().await;
        let played = stage.play(&worker, &[]).await;
        assert_eq!(played.status.code(), Some(1), "fault {fault}: {}", text(&played));
        assert_eq!(worker.stop().await, Some(0));
    }
}
