//! What it takes to run a program as hooks do, contained, beside starting it and nothing else.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use hookfleet::catalog::{self, Terms};
use hookfleet::config;
use hookfleet::domain::event::{Event, Reading};
use hookfleet::domain::hook::Hook;
use hookfleet::domain::invocation::Invocation;
use hookfleet::domain::message::Message;
use hookfleet::domain::outcome::Outcome;
use hookfleet::executor::callback::Callbacks;
use hookfleet::executor::{Execute as _, Executors};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::{Measured, median};

const PAIRS: usize = 3;
const AT_A_TIME: usize = 8;

/// Prints rate and CPU of so many runs of `true`, contained and not.
pub(crate) async fn run(runs: usize) {
    let commands = config::Commands {
        allow: vec!["true".into()],
        env: vec!["PATH".into()],
        shim: Some(env!("CARGO_BIN_EXE_hookfleet").into()),
    };
    let executors = Executors::new(&config::Egress::default(), &commands, Callbacks::default()).unwrap();
    for (what, fences) in [("", ""), (", with limits", ", limits: { memory: 1GiB }")] {
        let hook = hook(fences);
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            let bare = measure(runs, bare).await;
            let contained = measure(runs, || async {
                let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a"}"#;
                let event =
                    Event::decode(&Message { body: body.into(), ..Message::default() }, &Reading::default()).unwrap();
                let invocation = Invocation::first(Arc::new(event), hook.id.clone(), "r1".into());
                assert_eq!(executors.run(&hook, &invocation).await, Outcome::Done);
            })
            .await;
            println!(
                "{runs} runs of true{what}: bare {:.0}/s, {:.0} us; contained {:.0}/s, {:.0} us",
                bare.rate, bare.cpu_us, contained.rate, contained.cpu_us
            );
            pairs.push((bare, contained));
        }
        let cpu = median(pairs.iter().map(|(bare, contained)| contained.cpu_us / bare.cpu_us));
        let rate = median(pairs.iter().map(|(bare, contained)| contained.rate / bare.rate));
        println!("medians{what}: cpu x{cpu:.2}, rate x{rate:.2}");
    }
}

fn hook(fences: &str) -> Arc<Hook> {
    let text = format!("version: 1\nhooks: [{{ id: h, on: a, run: {{ command: {{ argv: [\"true\"]{fences} }} }} }}]\n");
    let terms = Terms { hint_max: Duration::ZERO, env: &|_| None, egress: &[], callbacks: None };
    Arc::clone(&catalog::parse(&text, "hooks.yaml", &terms).unwrap().hooks.hooks()[0])
}

/// The same payload, the same pipes.
async fn bare() {
    let pipes = |command: &mut Command| {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = pipes(&mut Command::new("true"));
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(&[b'x'; 200]).await; // it may be gone already
    drop(stdin);
    assert!(child.wait_with_output().await.unwrap().status.success());
}

async fn measure<F: Future<Output = ()>>(runs: usize, run: impl Fn() -> F) -> Measured {
    let (cpu_from, began) = (cpu(), Instant::now());
    stream::iter(0..runs).map(|_| run()).buffer_unordered(AT_A_TIME).collect::<()>().await;
    let (cpu, elapsed) = (cpu().saturating_sub(cpu_from), began.elapsed());
    Measured { cpu_us: cpu.as_secs_f64() * 1e6 / runs as f64, rate: runs as f64 / elapsed.as_secs_f64() }
}

/// User and system time of this process and of all that it has waited for.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
