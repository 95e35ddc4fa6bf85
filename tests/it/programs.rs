//! Programs that hooks run, started as workers start them: what their ends mean, and that nothing of them is left.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookfleet::catalog::{Document, Terms, read};
use hookfleet::config;
use hookfleet::domain::decision::{Decision, Merge};
use hookfleet::domain::event::{Event, Reading};
use hookfleet::domain::hook::Hook;
use hookfleet::domain::id::HookId;
use hookfleet::domain::invocation::Invocation;
use hookfleet::domain::message::{Message, Properties};
use hookfleet::domain::outcome::{Again, Outcome};
use hookfleet::executor::callback::Callbacks;
use hookfleet::executor::{Execute as _, Executors};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::fleet::{HOOKFLEET, Site};
use crate::pipeline::{Place, Stage, site, stage};
use crate::publishing::event;
use crate::servers::{free_port, slots};

/// The only thing that a hook runs, in a folder of its own; all of its processes are marked.
struct Run {
    command: Value,
    timeout: Duration,
    data: Value,
    folder: TempDir,
    mark: String,
}

impl Run {
    fn of(script: &str) -> Self {
        slots::take();
        let folder = tempfile::tempdir().unwrap();
        let mark = format!("mark-{:016x}", fastrand::u64(..));
        let env = json!({ "MARK": mark, "TOKEN": "s3cret" });
        let command = json!({ "shell": script, "env": env, "cwd": folder.path() });
        Self { command, timeout: Duration::from_secs(20), data: Value::Null, folder, mark }
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.command[name] = value;
        self
    }

    fn within(self, timeout_ms: u64) -> Self {
        Self { timeout: Duration::from_millis(timeout_ms), ..self }
    }

    fn hook(&self) -> Arc<Hook> {
        let timeout = format!("{}ms", self.timeout.as_millis());
        let hook = json!({ "id": "h-1", "on": "a.b", "timeout": timeout, "run": { "command": self.command } });
        let text = json!({ "version": 1, "hooks": [hook] }).to_string();
        let terms = Terms { hint_max: Duration::ZERO, env: &|_| None, egress: &[], callbacks: None };
        let catalog = read(&[Document::native("hooks.yaml", text)], &terms).unwrap();
        Arc::clone(&catalog.hooks.hooks()[0])
    }

    fn invocation(&self) -> Invocation {
        let properties =
            Properties { kind: Some("a.b".into()), message_id: Some("e\u{0}1".into()), ..Properties::default() };
        let message = Message { body: self.data.to_string().into(), properties, ..Message::default() };
        let event = Event::decode(&message, &Reading::default()).unwrap();
        Invocation::first(Arc::new(event), HookId::new("h-1").unwrap(), "r1".into())
    }

    async fn outcome(&self) -> String {
        line(&executors(&["sh"]).run(&self.hook(), &self.invocation()).await)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    async fn appears(&self, name: &str) {
        while self.read(name).is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until no process of it is left; answers how long that took.
    async fn gone(&self) -> Duration {
        gone(&self.mark).await
    }
}

async fn gone(mark: &str) -> Duration {
    let start = Instant::now();
    loop {
        let left = marked(mark);
        if left.is_empty() {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{} processes are left: {left:?}", left.len());
        sleep(Duration::from_millis(10)).await;
    }
}

/// The processes that have this mark in their environment.
fn marked(mark: &str) -> Vec<String> {
    if !Path::new("/proc/self/environ").exists() {
        let shown = std::process::Command::new("ps").args(["-Eww", "-ax"]).output().unwrap(); // macOS
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        return shown.lines().filter(|line| line.contains(mark)).map(str::to_owned).collect();
    }
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let marked = all.filter(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.windows(mark.len()).any(|window| window == mark.as_bytes())
    });
    let shown = |entry: std::fs::DirEntry| {
        let words = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        format!("{} {}", entry.file_name().to_string_lossy(), words.replace('\0', " "))
    };
    marked.map(shown).collect()
}

fn executors(allow: &[&str]) -> Executors {
    let commands = config::Commands {
        allow: allow.iter().map(|&name| name.to_owned()).collect(),
        env: vec!["PATH".into()],
        shim: Some(HOOKFLEET.into()),
    };
    Executors::new(&config::Egress::default(), &commands, Callbacks::default()).unwrap()
}

/// An outcome on one line: how it failed, its status, its error.
fn line(outcome: &Outcome) -> String {
    let Outcome::Failed(failure) = outcome else {
        return if *outcome == Outcome::Done { "done" } else { "interrupted" }.to_owned();
    };
    let again = match failure.again {
        Again::Never(class) => format!("never {class:?}"),
        Again::Later(_) => "later".to_owned(),
    };
    let status = failure.status.map(|status| format!(" [{status}]")).unwrap_or_default();
    format!("{again}{status}: {}", failure.error)
}

async fn check(script: &str, expected: &str) {
    let run = Run::of(script);
    assert_eq!(run.outcome().await, expected, "{script}");
    run.gone().await;
}

#[tokio::test]
async fn the_exit_code_decides() {
    check("exit 0", "done").await;
    check("echo fine; echo noise >&2", "done").await;
    check("exit 3", "later [3]: exit 3").await;
    check("exit 75", "later [75]: exit 75").await;
    check("echo first >&2; echo second >&2; echo out; exit 1", "later [1]: exit 1: first second").await;
    check("echo only out; echo >&2; exit 2", "later [2]: exit 2: only out").await;
    check("kill -9 $$", "later: killed by signal 9").await;
    check("echo using $TOKEN >&2; exit 1", "later [1]: exit 1: using [REDACTED]").await;
    check("exec >&- 2>&- <&-; exit 4", "later [4]: exit 4").await;
    let codes = json!({ "3": "done", "64-78": "fail", "other": "retry" });
    for (code, expected) in [
        (3, "done"),
        (64, "never Rejected [64]: exit 64"),
        (75, "never Rejected [75]: exit 75"),
        (79, "later [79]: exit 79"),
    ] {
        let run = Run::of(&format!("exit {code}")).with("exit_codes", codes.clone());
        assert_eq!(run.outcome().await, expected);
    }
}

/// What programs say that are asked: of an answer its verdict and reason, of a failure its line.
#[tokio::test]
async fn programs_that_decide() {
    let asked = async |run: Run| {
        let input = serde_json::from_str("{\"changed\":1.0}").unwrap();
        match executors(&["sh"]).ask(&run.hook(), &run.invocation(), Some(&input)).await {
            Err(outcome) => line(&outcome),
            Ok(answer) => {
                let mut merge = Merge::default();
                merge.add(&HookId::new("h").unwrap(), answer, 1, 0);
                let Decision { verdict, reason, .. } = merge.done();
                format!("{verdict:?}: {}", reason.unwrap_or_default()).to_lowercase()
            }
        }
    };
    for (script, expected) in [
        (":", "allow: "),
        ("echo '{\"decision\": \"block\", \"stop_reason\": \"no\"}'", "deny: no"),
        ("echo 'so: {\"permission\": \"ask\"}'; echo noise >&2", "ask: "),
        ("exit 2", "deny: the hook's program refused"),
        ("echo it would harm >&2; echo '{}'; exit 2", "deny: it would harm"),
        ("echo using $TOKEN >&2; exit 2", "deny: using [redacted]"),
        ("grep -q '\"updated_input\":{\"changed\":1.0}}' || exit 3; exit 2", "deny: the hook's program refused"),
        ("echo '{\"decision\": \"block\"}'; exit 3", "later [3]: exit 3: {\"decision\": \"block\"}"),
        ("echo no", "never Rejected: expected a JSON object, or nothing, as the answer; found other text"),
        ("yes | head -c 200000", "never Rejected: the answer has more than 131072 bytes"),
        ("printf '\\377'", "never Rejected: expected an answer in UTF-8"),
    ] {
        assert_eq!(asked(Run::of(script)).await, expected, "{script}");
    }
    let named = Run::of("exit 2").with("exit_codes", json!({ "2": "retry" }));
    assert_eq!(asked(named).await, "later [2]: exit 2");
    assert!(asked(Run::of("sleep 9").within(300)).await.starts_with("later: timed out after 300ms"));
}

#[tokio::test]
async fn only_what_is_allowed_runs() {
    let run = async |allow: &[&str], program: &str| {
        let mut run = Run::of("");
        run.command.as_object_mut().unwrap().remove("shell");
        let run = run.with("argv", json!([program, "-c", "exit 0"]));
        line(&executors(allow).run(&run.hook(), &run.invocation()).await)
    };
    let off = "never TargetBlocked: commands are off: to run `sh`, set commands.allow / HOOKFLEET_COMMANDS_ALLOW";
    assert_eq!(run(&[], "sh").await, off);
    let found = run(&["sh"], "/bin/sh").await;
    assert!(found.starts_with("never TargetBlocked: the program `/bin/sh` is not named in commands.allow"), "{found}");
    let missing = "later: the program `nothing-here` was not found on this worker";
    assert_eq!(run(&["nothing-here"], "nothing-here").await, missing);
}

#[tokio::test]
async fn what_cannot_be_started_is_said() {
    let run = Run::of("exit 0").with("cwd", json!("/no/such/folder"));
    assert_eq!(run.outcome().await, "later: the working folder /no/such/folder does not exist on this worker");
    let mut run = Run::of("");
    std::fs::write(run.folder.path().join("here"), "no program").unwrap();
    run.command.as_object_mut().unwrap().remove("shell");
    let run = run.with("argv", json!(["./here"]));
    let found = line(&executors(&["./here"]).run(&run.hook(), &run.invocation()).await);
    assert!(found.starts_with("later: cannot start `./here`: Permission denied"), "{found}");
    let nobody = config::Commands { allow: vec!["sh".into()], env: vec![], shim: None };
    let nobody = Executors::new(&config::Egress::default(), &nobody, Callbacks::default()).unwrap();
    let found = line(&nobody.run(&run.hook(), &run.invocation()).await);
    assert!(found.starts_with("never TargetBlocked: the program `./here`"), "{found}");
    let run = Run::of("exit 0");
    let found = line(&nobody.run(&run.hook(), &run.invocation()).await);
    assert!(found.starts_with("later: cannot start `sh`: set commands.shim"), "{found}");
}

#[tokio::test]
async fn the_program_gets_the_payload_and_few_variables() {
    let run = Run::of("cat > body; env > env");
    assert_eq!(run.outcome().await, "done");
    let payload: Value = serde_json::from_str(&run.read("body")).unwrap();
    let key = payload["invocation_key"].as_str().unwrap();
    assert_eq!(key, run.invocation().idempotency_key());
    assert_eq!(payload["hook"], "h-1");
    let env = run.read("env");
    let mut env: Vec<&str> = env.lines().filter(|line| !line.starts_with("PATH=")).collect();
    env.retain(|line| !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own))); // the shell's
    env.sort_unstable();
    let named = |line: &&str| line.strip_prefix("HOOKFLEET_RUN=").is_some_and(|run| run.len() == 32);
    assert_eq!(env.extract_if(.., |line| named(&&**line)).count(), 1, "a name of this run");
    let (key, mark) = (format!("HOOKFLEET_INVOCATION_KEY={key}"), format!("MARK={}", run.mark));
    let expected = [
        "HOOKFLEET_ATTEMPT=1",
        "HOOKFLEET_EVENT_ID=e1", // its NUL is gone
        "HOOKFLEET_EVENT_TYPE=a.b",
        "HOOKFLEET_HOOK=h-1",
        &key,
        &mark,
        "TOKEN=s3cret",
    ];
    assert_eq!(env, expected);
}

#[tokio::test]
async fn a_large_payload_need_not_be_read_and_output_need_not_end() {
    let cut = format!("later [5]: exit 5: {}…", "e".repeat(200));
    for (script, expected) in [
        ("exit 0", "done"),
        ("exec <&-; sleep 0.1", "done"),
        ("sleep 0.1", "done"),
        ("cat; cat >&2", "done"), // back through a pipe that is smaller than it
        ("test $(wc -c) -gt 900000", "done"),
        ("head -c 3000000 /dev/zero | tr '\\0' e >&2; exit 5", cut.as_str()),
    ] {
        let run = Run { data: Value::from("x".repeat(900_000)), ..Run::of(script) };
        assert_eq!(run.outcome().await, expected, "{script}");
    }
}

#[tokio::test]
async fn the_deadline_asks_before_it_kills() {
    let asked = "trap 'echo asked > asked; exit 0' TERM; while :; do sleep 0.01; done";
    // Of a child too whose parent goes at once.
    for script in [asked.to_owned(), format!("({asked}) & wait")] {
        let run = Run::of(&script).within(1_500);
        let found = run.outcome().await;
        assert!(found.starts_with("later: timed out after 1.5s"), "{found}");
        assert_eq!(run.read("asked"), "asked\n", "{script}");
        run.gone().await;
    }
}

#[tokio::test]
async fn a_dropped_run_is_killed() {
    let run = Run::of("trap '' TERM; (trap '' TERM; setsid sleep 60) & echo $! > pid; sleep 60").within(60_000);
    tokio::select! {
        outcome = run.outcome() => panic!("{outcome}"),
        () = run.appears("pid") => {}
    }
    run.gone().await;
}

/// What it comes to, and that it ends by its deadline with nothing left.
async fn contained(script: &str, expected: &str, change: impl FnOnce(Run) -> Run) {
    let run = change(Run::of(script).within(if expected.starts_with("later: timed out") { 1_500 } else { 15_000 }));
    let start = Instant::now();
    let found = run.outcome().await;
    let (took, left) = (start.elapsed(), marked(&run.mark).len());
    let gone = run.gone().await;
    println!("{script}: {took:?}, {left} processes then, none {gone:?} later");
    assert!(found.starts_with(expected), "{script}: {found}");
    assert!(took < run.timeout + Duration::from_secs(5), "{script}: {took:?}");
}

#[tokio::test]
async fn nothing_is_left_of_programs_that_mean_harm() {
    let plain = |run| run;
    contained("sleep 60 & sleep 60 & exit 0", "done", plain).await;
    contained("setsid sleep 60 & sleep 0.2; exit 6", "later [6]: exit 6", plain).await;
    let daemon = "(setsid sh -c \"trap '' TERM HUP; while :; do sleep 60; done\" </dev/null >/dev/null 2>&1 &)";
    contained(daemon, "done", plain).await;
    contained("trap '' TERM; (trap '' TERM; sleep 60) & while :; do sleep 1; done", "later: timed out", plain).await;
    contained("kill -STOP $$", "later: timed out", plain).await;
    contained("exec yes", "later: timed out after 1.5s: y y y", plain).await;
    contained("exec yes >&2", "later: timed out after 1.5s: y y y", plain).await;
    contained("while :; do sleep 60 & done", "later: timed out", plain).await;
    contained("while :; do setsid sleep 60 & done", "later: timed out", plain).await;
    // What is sent to a whole service is not for what watches over programs.
    let all = "kill -TERM $PPID; kill -INT $PPID; kill -HUP $PPID; sleep 0.3; exit 7";
    contained(all, "later [7]: exit 7", plain).await;
    // What watches over it is stopped, and killed: the worker knows its group.
    contained("trap '' TERM; kill -STOP $PPID; sleep 100", "later: timed out", plain).await;
    contained("trap '' TERM; sleep 100 & kill -9 $PPID; sleep 100", "later: its watcher ended", plain).await;
    let hydra = |run: Run| {
        std::fs::write(run.folder.path().join("hydra.sh"), "setsid sh hydra.sh & exit 0\n").unwrap();
        run
    };
    contained("sh hydra.sh; sleep 0.3; exit 0", "done", hydra).await;
    contained("sh hydra.sh; sleep 60", "later: timed out", hydra).await;
}

/// As another user, if this one is root, to whom the number of processes has no limit.
fn as_a_user(script: &str) -> String {
    if rustix::process::getuid().is_root() {
        format!("exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c {}", quoted(script))
    } else {
        script.to_owned()
    }
}

fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', "'\\''"))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn limits_are_kept() {
    let limited = |script: &str, limits: Value| Run::of(script).with("limits", limits).within(10_000);
    let script = "{ ulimit -t; ulimit -v; ulimit -n; } > limits";
    let shown = limited(script, json!({ "cpu": "7s", "memory": "512MiB", "files": 50 }));
    assert_eq!(shown.outcome().await, "done");
    assert_eq!(shown.read("limits"), "7\n524288\n50\n");
    let eats = limited("head -c 2000000000 /dev/zero | tail -n 1", json!({ "memory": "64MiB" }));
    assert_eq!(eats.outcome().await, "later [1]: exit 1: tail: memory exhausted");
    let spins = limited("while :; do :; done", json!({ "cpu": "1s" }));
    let found = spins.outcome().await;
    assert!(found.starts_with("later: killed by signal "), "{found}");
    let forks = as_a_user("while :; do sleep 100 & done");
    let forks = limited(&forks, json!({ "processes": 40 })).within(60_000);
    let found = forks.outcome().await;
    assert!(found.starts_with("later [2]: exit 2: sh: ") && found.contains("Cannot fork"), "{found}");
    forks.gone().await;
    // Each starts two others.
    let bomb = as_a_user("b() { b | b & }; b; sleep 100");
    let bomb = limited(&bomb, json!({ "processes": 40 })).within(1_500);
    let found = bomb.outcome().await;
    println!("a fork bomb: {found}; none left {:?} later", bomb.gone().await);
    assert!(found.starts_with("later"), "{found}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn fences_of_files_are_kept() {
    const CANNOT_START: &str = "later: cannot start `sh`: its fence of files: ";
    let everything = json!({ "read": ["/usr", "/lib", "/lib64", "/bin", "/etc", "/dev"], "write": ["/dev/null"] });
    let script =
        "echo in > in; cat /etc/hostname > /dev/null || exit 3; echo out > ../out && exit 4; ls / && exit 5; exit 0";
    let run = Run::of(script);
    let mut files = everything.clone();
    files["write"].as_array_mut().unwrap().push(json!(run.folder.path()));
    let read = files["read"].as_array_mut().unwrap();
    read.retain(|path| Path::new(path.as_str().unwrap()).exists());
    let run = run.with("files", files).with("no_new_privileges", json!(true));
    let found = run.outcome().await;
    if !has_landlock() {
        assert!(found.starts_with(CANNOT_START), "{found}");
        assert_eq!(run.read("in"), "", "it is not started");
        return;
    }
    assert_eq!((found.as_str(), run.read("in").as_str()), ("done", "in\n"));
    let missing = Run::of("exit 0").with("files", json!({ "read": ["/no/such/folder"] }));
    let missing = missing.with("exit_codes", json!({ "other": "done" })); // it was not run, whatever that says
    let found = missing.outcome().await;
    assert!(found.starts_with(CANNOT_START), "{found}");
    let rights = Run::of("grep -q '^NoNewPrivs:.*1' /proc/self/status").with("no_new_privileges", json!(true));
    assert_eq!(rights.outcome().await, "done");
}

#[cfg(target_os = "linux")]
fn has_landlock() -> bool {
    use landlock::{ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _};
    let strict = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    strict.handle_access(AccessFs::from_all(ABI::V3)).and_then(Ruleset::create).is_ok()
}

/// The worker is killed while a program runs: nothing of that is left, and another worker takes the run over, once.
#[tokio::test]
async fn programs_die_with_their_worker() {
    let mark = format!("mark-{:016x}", fastrand::u64(..));
    let script = "echo x >> runs; [ $(wc -l < runs) = 1 ] || exit 0; \
                  (setsid sh -c \"trap '' TERM HUP; sleep 100\" &); trap '' TERM; sleep 100 & echo $! > pid; wait; sleep 100";
    let hooks = format!(
        "  - id: long\n    on: a\n    timeout: 60s\n    run: {{ command: {{ shell: {}, env: {{ MARK: {mark} }} }} }}",
        json!(script)
    );
    let site = site(Place::Servers).await.hooks(&hooks).set("HOOKFLEET_COMMANDS_ALLOW", "sh");
    let site = site.set("HOOKFLEET_IDEMPOTENCY_LEASE", "5s");
    let Stage { site, mut worker, publisher } = stage(Place::Servers, site).await;
    publisher.send(event("a", "1")).await;
    let file = |name: &str| std::fs::read_to_string(site.folder.path().join(name)).unwrap_or_default();
    while file("pid").is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(marked(&mark).len() >= 4, "{:?}", marked(&mark));
    worker.process.kill();
    println!("nothing was left {:?} after the worker was killed", gone(&mark).await);
    let other = site.worker().await;
    while other.metric("hookfleet_attempts_total", "outcome=\"done\"").await < 1.0 {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(file("runs"), "x\nx\n");
    assert_eq!(marked(&mark), [] as [&str; 0]);
}

#[path = "../../examples/callback.rs"]
#[allow(dead_code, reason = "an example has a `main` too")]
mod example;

#[tokio::test]
async fn the_example_of_callbacks_runs() {
    let folder = tempfile::tempdir().unwrap();
    let address = ([127, 0, 0, 1], free_port()).into();
    assert_eq!(example::run(folder.path(), address).await.unwrap(), "order 17: 1990 cents, attempt 1");
}

/// A worker that has no such callback does not start.
#[tokio::test]
async fn callbacks_that_are_not_there_are_told_at_the_start() {
    let site = Site::embedded().hooks("  - { id: a, on: a, run: { callback: audit } }");
    let output = site.run(&["up"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("expected the name of a callback that this program has, found \"audit\""), "{said}");
    let checked = site.ok(&["hooks", "check"]);
    println!("{checked}");
}
