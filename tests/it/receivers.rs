//! Receivers as they are: they close connections when they like, and some answer before they have read a request. What they
//! answer counts, at the first attempt; a gate's answer is its receiver's.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, Stage, site, stage};
use crate::publishing::{Publisher, with_data};
use crate::servers::client;
use distance::distance;
use raw::{Habit, Receiver};
use real::{Kind, Real};

mod distance;
mod raw;
mod real;

/// There and back, between a worker and its receivers.
const ROUND_TRIP: Duration = Duration::from_millis(80);
/// What every receiver here says to a gate.
const REFUSED: &str = r#""deny" "closed today""#;

/// Hooks and gates that go to one receiver, so many of each at the same time.
struct Lanes {
    name: String,
    count: usize,
    /// Bytes of data in an event.
    bytes: usize,
}

impl Lanes {
    /// In YAML. They fail at their first failure.
    fn hooks(&self, port: u16) -> String {
        let lane = |lane| {
            let hook = |id: &str, on: &str, more: &str| {
                let id = format!("{id}-{}-{lane}", self.name);
                let run = format!("run: {{ http: {{ url: \"http://127.0.0.1:{port}/{id}\" }} }}");
                format!("  - {{ id: {id}, on: {on}-{}-{lane}, retry: {{ attempts: 1 }}, {run}{more} }}\n", self.name)
            };
            hook("gate", "asked", ", mode: gate") + &hook("hook", "told", "")
        };
        (0..self.count).map(lane).collect()
    }

    /// Asks every gate and tells every hook, at the same time; answers the verdicts.
    async fn round(&self, round: usize, worker: &Worker, publisher: &Publisher) -> Vec<String> {
        let data = json!({ "pad": "x".repeat(self.bytes) });
        let event = |on: &str, lane: usize| {
            let kind = format!("{on}-{}-{lane}", self.name);
            with_data(&kind, &format!("{kind}-{round}"), &data)
        };
        let asked = (0..self.count).map(async |lane| {
            let asked = client().post(worker.url("/v1/gates?deadline=30s")).header("content-type", "application/json");
            let answer: Value = asked.body(event("asked", lane)).send().await.unwrap().json().await.unwrap();
            format!("{} {}", answer["verdict"], answer["reason"])
        });
        let told = (0..self.count).map(|lane| publisher.send(event("told", lane)));
        tokio::join!(join_all(asked), join_all(told)).0
    }

    /// Waits until as many attempts as rounds of every lane are over, and checks that they and the verdicts are good.
    async fn check(&self, worker: &Worker, verdicts: &[String], rounds: usize) {
        let wrong: Vec<_> = verdicts.iter().filter(|verdict| *verdict != REFUSED).collect();
        let (name, all) = (&self.name, verdicts.len());
        assert!(wrong.is_empty(), "{name}: {} of {all} gates: {wrong:?}\n{}", wrong.len(), worker.log());
        let mut done = 0.0;
        for lane in 0..self.count {
            let of_hook = format!("hook=\"hook-{name}-{lane}\"");
            worker.until_metric("hookfleet_attempts_total", &of_hook, rounds as f64).await;
            let text = client().get(worker.url("/metrics")).send().await.unwrap().text().await.unwrap();
            let good: String =
                text.lines().filter(|line| line.contains("outcome=\"done\"")).flat_map(|line| [line, "\n"]).collect();
            done += crate::fleet::metric(&good, "hookfleet_attempts_total", &of_hook);
        }
        let all = (self.count * rounds) as f64;
        assert!((done - all).abs() < 0.5, "{name}: {done} of {all}: first attempts that were good\n{}", worker.log());
    }
}

/// A worker whose hooks go to one receiver, far away.
struct Far {
    receiver: Receiver,
    lanes: Lanes,
    site: Site,
    worker: Worker,
    publisher: Publisher,
    verdicts: Vec<String>,
    rounds: usize,
}

impl Far {
    async fn start(habit: Habit, bytes: usize) -> Self {
        let receiver = Receiver::start(habit).await;
        let port = distance(receiver.port, ROUND_TRIP).await;
        let lanes = Lanes { name: "raw".to_owned(), count: 6, bytes };
        let site = site(Place::File).await.hooks(&lanes.hooks(port));
        let Stage { site, worker, publisher } = stage(Place::File, site).await;
        Self { receiver, lanes, site, worker, publisher, verdicts: Vec::new(), rounds: 0 }
    }

    async fn round(&mut self) {
        self.verdicts.extend(self.lanes.round(self.rounds, &self.worker, &self.publisher).await);
        self.rounds += 1;
    }

    /// Requests that went out again.
    async fn resent(&self) -> f64 {
        self.worker.metric("hookfleet_http_resent_total", "").await
    }

    /// Everything was answered by the receiver at its first attempt, and nothing is taken to be broken.
    async fn check(mut self) {
        self.lanes.check(&self.worker, &self.verdicts, self.rounds).await;
        let status = self.worker.ask("/v1/status").await;
        assert_eq!(status["broken_targets"], json!([]), "{status:#}");
        assert_eq!(self.worker.stop().await, Some(0));
        let answered = self.receiver.answered();
        let others: Vec<_> = answered.iter().filter(|answered| answered.attempt != "1").collect();
        assert!(others.is_empty(), "{others:?}");
        let keys: HashSet<_> = answered.iter().map(|answered| (&answered.path, &answered.key)).collect();
        let all = 2 * self.lanes.count * self.rounds;
        assert_eq!((keys.len(), answered.len()), (all, all), "each was answered once");
        assert_eq!(self.site.letters(), Vec::<Value>::new());
    }
}

/// Pauses around the receiver's own idle time, so that requests and closings meet on their way.
#[tokio::test]
async fn idle_connections_are_closed_on_the_way() {
    let mut far = Far::start(Habit::Idle(Duration::from_millis(400)), 10).await;
    for pause in [260, 300, 320, 340, 360, 380, 400, 440] {
        far.round().await;
        sleep(Duration::from_millis(pause)).await;
    }
    let resent = far.resent().await;
    assert!(resent > 0.0, "no request has met a closing: this test shows nothing");
    println!("{resent} of {} requests went out again", 2 * far.lanes.count * far.rounds);
    far.check().await;
}

#[tokio::test]
async fn every_second_request_ends_its_connection() {
    let mut far = Far::start(Habit::SecondRequest, 10).await;
    for _ in 0..8 {
        far.round().await;
    }
    assert!(far.resent().await > 0.0, "no request was a second one: this test shows nothing");
    far.check().await;
}

/// What a receiver says of its idle time is kept, so that nothing has to go out again.
#[tokio::test]
async fn receivers_that_say_when_they_close_are_believed() {
    let mut far = Far::start(Habit::IdleAndSaysSo(Duration::from_secs(2)), 10).await;
    far.round().await;
    sleep(Duration::from_millis(1_930)).await; // within the race, if the connections were still used
    far.round().await;
    let resent = far.resent().await;
    assert!(resent < 0.5, "{resent}");
    far.check().await;
}

#[tokio::test]
async fn an_answer_to_a_head_counts_whatever_becomes_of_the_body() {
    for (habit, bytes) in [(Habit::Head, 200_000), (Habit::Head, 900_000), (Habit::HeadOfSecond, 200_000)] {
        let mut far = Far::start(habit, bytes).await;
        for _ in 0..6 {
            far.round().await;
        }
        far.check().await;
    }
}

/// Rounds and lanes of a real receiver: 200 hooks are run and 200 gates asked.
const ROUNDS: usize = 20;
const LANES: usize = 10;

/// One real receiver, with pauses at its idle time.
async fn at_its_idle_time(lanes: &Lanes, seconds: u64, worker: &Worker, publisher: &Publisher) {
    let mut verdicts = Vec::new();
    for round in 0..ROUNDS {
        verdicts.extend(lanes.round(round, worker, publisher).await);
        // From a tenth before to a tenth behind: some of the rounds meet the closing on its way.
        sleep(Duration::from_millis(seconds * 1_000 - 100 + 10 * round as u64)).await;
    }
    lanes.check(worker, &verdicts, ROUNDS).await;
}

/// With the idle time that each has by itself, as far as that is short, and with three seconds, which is less than what
/// connections may be idle here.
#[tokio::test]
#[ignore = "left to tests/run --all"]
async fn real_receivers_at_their_idle_times() {
    let (installed, left_out) = real::install();
    print!("left out here:\n{left_out}");
    let (mut receivers, mut hooks) = (Vec::new(), String::new());
    for kind in Kind::ALL {
        if !kind.is_installed(&installed) {
            println!("left out: {kind:?}");
            assert!(!left_out.is_empty(), "{kind:?} is not there, and nothing says why");
            continue;
        }
        for (seconds, bytes) in [(kind.usual(), 10), (3, 10), (3, 200_000)] {
            if seconds > 6 {
                continue;
            }
            let real = Real::start(kind, &installed, seconds).await;
            let port = distance(real.port, ROUND_TRIP).await;
            let name = format!("{kind:?}-{seconds}-{bytes}").to_lowercase();
            let lanes = Lanes { name, count: LANES, bytes };
            hooks.push_str(&lanes.hooks(port));
            receivers.push((real, lanes, seconds));
        }
    }
    let site = site(Place::File).await.hooks(&hooks);
    let Stage { site, mut worker, publisher } = stage(Place::File, site).await;
    let running = receivers.iter().map(|(_, lanes, seconds)| at_its_idle_time(lanes, *seconds, &worker, &publisher));
    join_all(running).await;
    for (_, lanes, _) in &receivers {
        let resent = worker.metric("hookfleet_http_resent_total", &format!("-{}-", lanes.name)).await as u32;
        let all = ROUNDS * LANES;
        println!(
            "{}: {all} of {all} at the first attempt, {resent} of {} requests went out again",
            lanes.name,
            2 * all
        );
    }
    let status = worker.ask("/v1/status").await;
    assert_eq!(status["broken_targets"], json!([]), "{status:#}");
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(site.letters(), Vec::<Value>::new());
}
