//! The log: it never delays or stops a worker, whatever becomes of its reader.

use std::io::{BufRead as _, BufReader};
use std::process::{ChildStderr, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, hook, site};
use crate::publishing::{Publisher, event};
use crate::servers::{Leashed, shared};
use crate::sink::Sink;

/// A worker whose log is a pipe, and the end from which it is read.
fn piped(site: &Site, place: Place) -> (Worker, ChildStderr) {
    let port = site.port();
    let mut command = site.command();
    command.arg(if place == Place::File { "up" } else { "worker" });
    command.env("HOOKFLEET_HTTP_BIND", format!("127.0.0.1:{port}")).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Leashed::start(&mut command);
    let read = process.child.stderr.take().unwrap();
    let log = site.folder.path().join("none.log");
    (Worker { process, port, log, _folder: Arc::clone(&site.folder) }, read)
}

async fn publisher(place: Place, site: &Site, port: u16) -> Publisher {
    match place {
        Place::Servers => Publisher::amqp(&shared().await.0, site).await,
        Place::File => Publisher::http(port),
    }
}

/// Case C2: `worker 2>&1 | head -2`.
async fn the_reader_has_gone(place: Place) {
    let sink = Sink::start().await;
    let site = site(place).await.hooks(&hook(&sink, "h", "a", "")).set("HOOKFLEET_LOG", "debug");
    let (mut worker, read) = piped(&site, place);
    let head: Vec<String> = BufReader::new(read).lines().take(2).map(Result::unwrap).collect();
    assert!(head.iter().all(|line| !line.contains('\u{1b}')), "escape codes in a pipe: {head:?}");
    worker.until_ready().await;
    publisher(place, &site, worker.port).await.send_all((0..50).map(|i| event("a", &format!("e{i}")))).await;
    sink.until("all events", Duration::from_secs(30), |calls| calls.len() == 50).await;
    worker.until_metric("hookfleet_log_lines_dropped_total", "", 1.0).await;
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.calls().len(), 50);
}

/// The same with a reader that is there and does not read: a pager, a container runtime that hangs.
async fn the_reader_does_not_read(place: Place) {
    let sink = Sink::start().await;
    // More lines than the pipe and the queue have room for.
    let site = site(place).await.hooks(&hook(&sink, "h", "a", "")).set("HOOKFLEET_LOG", "trace");
    let (mut worker, _unread) = piped(&site, place);
    worker.until_ready().await;
    publisher(place, &site, worker.port).await.send_all((0..3000).map(|i| event("a", &format!("e{i}")))).await;
    sink.until("all events", Duration::from_secs(60), |calls| calls.len() == 3000).await;
    worker.until_metric("hookfleet_log_lines_dropped_total", "", 1.0).await;
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn the_reader_of_a_worker_has_gone() {
    the_reader_has_gone(Place::Servers).await;
}

#[tokio::test]
async fn the_reader_of_a_file_has_gone() {
    the_reader_has_gone(Place::File).await;
}

#[tokio::test]
async fn the_reader_of_a_worker_does_not_read() {
    the_reader_does_not_read(Place::Servers).await;
}

#[tokio::test]
async fn the_reader_of_a_file_does_not_read() {
    the_reader_does_not_read(Place::File).await;
}

/// An error that ends a process is not waited for either, once nobody reads it.
#[tokio::test]
async fn a_second_owner_ends_although_nobody_reads() {
    let site = Site::embedded().hooks("");
    let mut first = site.worker().await;
    let (reader, writer) = std::io::pipe().unwrap();
    fill(&writer);
    let mut command = site.command();
    command.args(["up", "--http-bind", "127.0.0.1:0"]).stderr(writer);
    let mut second = Leashed::start(&mut command);
    drop(command);
    let code = tokio::task::spawn_blocking(move || second.child.wait().unwrap().code()).await.unwrap();
    assert_eq!(code, Some(1));
    drop(reader);
    assert_eq!(first.stop().await, Some(0));
}

/// Fills a pipe to its last byte.
fn fill(pipe: &std::io::PipeWriter) {
    use std::io::Write as _;
    rustix::fs::fcntl_setfl(pipe, rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut writer = pipe;
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    rustix::fs::fcntl_setfl(pipe, rustix::fs::OFlags::empty()).unwrap();
}
