//! Runs a hook by starting a program with the payload on its stdin. The exit status decides.
//!
//! A run is over when the program itself has ended: what it leaves behind in its process group is killed, as it is when
//! the deadline has passed or the run is dropped.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::{join, join3, maybe_done};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{timeout, timeout_at};

use super::excerpt::{excerpt, with_excerpt};
use super::{Attempt, timed_out};
use crate::config;
use crate::domain::hook::{CommandAction, Secret};
use crate::domain::outcome::{Again, Failure, Outcome};
use crate::domain::settle::Class;

/// What is kept of each output; the rest is read and dropped, so that the program is never stopped by a full pipe.
const OUTPUT_BYTES_MAX: usize = 128 * 1024;
const CHUNK_BYTES: usize = 16 * 1024;
/// How long the group has between the program's end, or SIGTERM, and SIGKILL.
const LINGER: Duration = Duration::from_millis(100);
/// Shorter values of variables are words that hide nothing.
const SECRET_BYTES_MIN: usize = 4;

/// The command executor: what may be run, and what programs inherit.
#[derive(Debug)]
pub(super) struct Commands {
    allow: Vec<String>,
    inherited: Vec<(String, Secret<OsString>)>,
}

impl Commands {
    pub(super) fn new(settings: &config::Commands) -> Self {
        let inherit = |name: &String| std::env::var_os(name).map(|value| (name.clone(), Secret::new(value)));
        Self { allow: settings.allow.clone(), inherited: settings.env.iter().filter_map(inherit).collect() }
    }

    /// Runs the program. Ends at the attempt's deadline, or up to [`LINGER`] after it if the program does not go.
    pub(super) async fn run(&self, action: &CommandAction, attempt: &Attempt<'_>) -> Outcome {
        let program = action.argv.first().map_or("", String::as_str);
        if !self.allow.iter().any(|name| name == program) {
            return Outcome::never(Class::TargetBlocked, self.refusal(program));
        }
        let child = match self.command(program, action, attempt).spawn() {
            Ok(child) => child,
            Err(error) => return Outcome::later(cannot_start(program, action, &error).await),
        };
        let mut said = Said::default();
        let exit = attend(child, attempt, &mut said).await;
        let said = excerpt(said.loudest(), self.secrets(action));
        match exit {
            None => timed_out(attempt.hook.timeout, &said),
            Some(Ok(status)) => classify(status, &said),
            Some(Err(error)) => Outcome::later(format!("cannot wait for `{program}`: {error}")),
        }
    }

    /// What the program could repeat to us and no error may show. Most of what is inherited (`PATH`, `HOME`) is no secret
    /// and would only tear holes into paths.
    fn secrets(&self, action: &CommandAction) -> Vec<String> {
        let inherited = self.inherited.iter().filter(|(name, _)| names_a_secret(name));
        let inherited = inherited.map(|(_, value)| value.expose().to_string_lossy().into_owned());
        let own = action.env.values().map(|value| value.expose().clone());
        own.chain(inherited).filter(|value| value.len() >= SECRET_BYTES_MIN).collect()
    }

    fn refusal(&self, program: &str) -> String {
        if self.allow.is_empty() {
            format!("commands are off: to run `{program}`, set commands.allow / HOOKFLEET_COMMANDS_ALLOW")
        } else {
            format!("the program `{program}` is not named in commands.allow / HOOKFLEET_COMMANDS_ALLOW")
        }
    }

    fn command(&self, program: &str, action: &CommandAction, attempt: &Attempt<'_>) -> Command {
        let invocation = attempt.invocation;
        let mut command = Command::new(program);
        command
            .args(action.argv.iter().skip(1))
            .env_clear()
            .envs(self.inherited.iter().map(|(name, value)| (name, value.expose())))
            .envs(action.env.iter().map(|(name, value)| (name, value.expose())))
            .env("HOOKFLEET_EVENT_TYPE", variable(&invocation.event.kind))
            .env("HOOKFLEET_EVENT_ID", variable(&invocation.event.id))
            .env("HOOKFLEET_HOOK", attempt.hook.id.as_str())
            .env("HOOKFLEET_ATTEMPT", invocation.at.attempt.to_string())
            .env("HOOKFLEET_INVOCATION_KEY", &attempt.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(folder) = &action.cwd {
            command.current_dir(folder);
        }
        command
    }
}

/// Stays with the program until it has ended or its time is over (`None`), and leaves nothing of its group running.
async fn attend(mut child: Child, attempt: &Attempt<'_>, said: &mut Said) -> Option<io::Result<ExitStatus>> {
    let group = Group::of(&child);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let talk = join3(feed(stdin, &attempt.payload), hear(stdout, &mut said.out), hear(stderr, &mut said.err));
    let mut talk = pin!(maybe_done(talk));
    let ended = async {
        tokio::select! {
            exit = child.wait() => exit,
            () = &mut talk => child.wait().await,
        }
    };
    let exit = timeout_at(attempt.deadline, ended).await.ok();
    if exit.is_none() {
        group.signal(Signal::TERM);
    }
    // Whoever else holds the outputs may end by itself, but is not waited for: dropping the group kills it.
    let _ = timeout(LINGER, join(child.wait(), talk)).await;
    exit
}

/// The process group of a run. Nothing of it outlives this value.
struct Group(Option<Pid>);

impl Group {
    /// The group has the number of the program that it was made for.
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, signal); // fails only if nobody is left
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Writes the payload and closes the pipe. A program that does not read it has chosen so.
async fn feed(stdin: Option<ChildStdin>, payload: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(payload).await;
    }
}

/// Reads an output to its end and keeps the beginning.
async fn hear(output: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = output.read(&mut chunk).await {
        let room = OUTPUT_BYTES_MAX - kept.len();
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
}

/// What a program wrote.
#[derive(Default)]
struct Said {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Said {
    /// What explains a failure best.
    fn loudest(&self) -> &[u8] {
        if self.err.trim_ascii().is_empty() { &self.out } else { &self.err }
    }
}

/// Only the program can say whether trying again helps, and it has no word for no.
fn classify(status: ExitStatus, said: &str) -> Outcome {
    if status.success() {
        return Outcome::Done;
    }
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended in a way that has no name".to_owned(),
    };
    Outcome::Failed(Failure { again: Again::Later(None), status: status.code(), error: with_excerpt(end, said) })
}

async fn cannot_start(program: &str, action: &CommandAction, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::NotFound {
        return format!("cannot start `{program}`: {error}");
    }
    match &action.cwd {
        Some(folder) if !tokio::fs::try_exists(folder).await.unwrap_or(false) => {
            format!("the working folder {} does not exist on this worker", folder.display())
        }
        _ => format!("the program `{program}` was not found on this worker"),
    }
}

fn names_a_secret(variable: &str) -> bool {
    let name = variable.to_ascii_uppercase();
    ["AUTH", "CREDENTIAL", "KEY", "PASS", "PRIVATE", "SECRET", "TOKEN"].iter().any(|part| name.contains(part))
}

/// A variable ends at a NUL, which an event's JSON may well hold.
fn variable(text: &str) -> String {
    text.replace('\0', "")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Instant;

    use super::super::Execute as _;
    use super::super::fixture::{executors, hook, invocation, line};
    use super::*;
    use crate::domain::hook::Action;

    fn script(text: &str, folder: &Path) -> CommandAction {
        let env = BTreeMap::from([("TOKEN".to_owned(), Secret::new("s3cret".to_owned()))]);
        let argv = ["sh", "-c", text].map(str::to_owned).to_vec();
        CommandAction { argv, env, cwd: Some(folder.to_owned()) }
    }

    /// Runs a script in `folder` and returns what it came to.
    async fn run_in(folder: &Path, text: &str, timeout_ms: u64) -> String {
        let hook = hook(Action::Command(script(text, folder)), timeout_ms);
        line(&executors().run(&hook, &invocation("{}")).await)
    }

    async fn check(text: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(run_in(folder.path(), text, 10_000).await, expected, "{text}");
    }

    /// Waits until the process whose number is in `file` is gone or a zombie.
    async fn gone(file: &Path) -> bool {
        let pid = std::fs::read_to_string(file).unwrap();
        for _ in 0..100 {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            if stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z")) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    async fn appears(file: &Path) {
        while std::fs::read_to_string(file).unwrap_or_default().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn the_exit_status_decides() {
        check("exit 0", "done").await;
        check("echo fine; echo noise >&2", "done").await;
        check("exit 3", "later [3]: exit 3").await;
        check("echo first >&2; echo second >&2; echo out; exit 1", "later [1]: exit 1: first second").await;
        check("echo only out; echo >&2; exit 2", "later [2]: exit 2: only out").await;
        check("kill -9 $$", "later: killed by signal 9").await;
        check("echo using $TOKEN >&2; exit 1", "later [1]: exit 1: using [REDACTED]").await;
        check("exec >&- 2>&- <&-; exit 4", "later [4]: exit 4").await;
    }

    #[tokio::test]
    async fn only_what_is_allowed_runs() {
        let folder = tempfile::tempdir().unwrap();
        let run = async |commands: &Commands, program: &str| {
            let hook = hook(Action::Command(script("exit 0", folder.path())), 1_000);
            let Action::Command(mut action) = hook.action.clone() else { unreachable!() };
            program.clone_into(&mut action.argv[0]);
            let deadline = tokio::time::Instant::now() + hook.timeout;
            let invocation = invocation("{}");
            let attempt =
                Attempt { hook: &hook, invocation: &invocation, payload: "{}".into(), key: String::new(), deadline };
            line(&commands.run(&action, &attempt).await)
        };
        let off = Commands::new(&config::Commands::default());
        let expected =
            "never TargetBlocked: commands are off: to run `sh`, set commands.allow / HOOKFLEET_COMMANDS_ALLOW";
        assert_eq!(run(&off, "sh").await, expected);
        let some = Commands::new(&config::Commands { allow: vec!["sh".into(), "nothing-here".into()], env: vec![] });
        let found = run(&some, "/bin/sh").await;
        assert!(
            found.starts_with("never TargetBlocked: the program `/bin/sh` is not named in commands.allow"),
            "{found}"
        );
        assert_eq!(run(&some, "nothing-here").await, "later: the program `nothing-here` was not found on this worker");
    }

    #[test]
    fn inherited_secrets_are_not_shown() {
        let inherited = [("GITHUB_TOKEN", "inherited-1"), ("HOME", "/home/me"), ("MyApiKey", "inherited-2")];
        let inherited = inherited.map(|(name, value)| (name.to_owned(), Secret::new(OsString::from(value)))).to_vec();
        let commands = Commands { allow: vec![], inherited };
        let secrets = commands.secrets(&script("", Path::new("/")));
        assert_eq!(secrets, ["s3cret", "inherited-1", "inherited-2"]);
        assert!(!format!("{commands:?}").contains("inherited-1"));
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_said() {
        let found = run_in(Path::new("/no/such/folder"), "exit 0", 1_000).await;
        assert_eq!(found, "later: the working folder /no/such/folder does not exist on this worker");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("here"), "no program").unwrap();
        let action = CommandAction { argv: vec!["./here".into()], ..script("", folder.path()) };
        let found = line(&executors().run(&hook(Action::Command(action), 1_000), &invocation("{}")).await);
        assert!(found.starts_with("later: cannot start `./here`: Permission denied"), "{found}");
    }

    #[tokio::test]
    async fn the_program_gets_the_payload_and_few_variables() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(run_in(folder.path(), "cat > body; env > env", 10_000).await, "done");
        let invocation = invocation("{}");
        let payload = super::super::payload(
            &hook(Action::Command(script("", folder.path())), 1),
            &invocation,
            &invocation.idempotency_key(),
        );
        assert_eq!(std::fs::read(folder.path().join("body")).unwrap(), payload);
        let env = std::fs::read_to_string(folder.path().join("env")).unwrap();
        let mut env: Vec<&str> = env.lines().filter(|line| !line.starts_with("PATH=")).collect();
        env.retain(|line| !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own))); // the shell's
        env.sort_unstable();
        let key = format!("HOOKFLEET_INVOCATION_KEY={}", invocation.idempotency_key());
        let expected = [
            "HOOKFLEET_ATTEMPT=1",
            "HOOKFLEET_EVENT_ID=e1", // its NUL is gone
            "HOOKFLEET_EVENT_TYPE=a.b",
            "HOOKFLEET_HOOK=h-1",
            &key,
            "TOKEN=s3cret",
        ];
        assert_eq!(env, expected);
    }

    #[tokio::test]
    async fn a_large_payload_need_not_be_read_and_output_need_not_end() {
        let folder = tempfile::tempdir().unwrap();
        let large = format!("\"{}\"", "x".repeat(1_000_000));
        for (text, expected) in [
            ("exit 0", "done"),
            ("exec <&-; sleep 0.1", "done"),
            ("sleep 0.1", "done"),
            ("cat; cat >&2", "done"), // back through a pipe that is smaller than it
            (
                "head -c 3000000 /dev/zero | tr '\\0' e >&2; exit 5",
                &*format!("later [5]: exit 5: {}…", "e".repeat(200)),
            ),
        ] {
            let hook = hook(Action::Command(script(text, folder.path())), 10_000);
            assert_eq!(line(&executors().run(&hook, &invocation(&large)).await), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn the_deadline_ends_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let text = "trap '' TERM; (trap '' TERM; echo said >&2; sleep 60) & echo $! > pid; while :; do sleep 1; done";
        let start = Instant::now();
        assert_eq!(run_in(folder.path(), text, 800).await, "later: timed out after 800ms: said");
        assert!((800..4_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        assert!(gone(&folder.path().join("pid")).await);
    }

    #[tokio::test]
    async fn the_deadline_asks_before_it_kills() {
        let folder = tempfile::tempdir().unwrap();
        let text = "trap 'echo asked > asked; exit 0' TERM; while :; do sleep 0.01; done";
        let found = run_in(folder.path(), text, 800).await;
        assert!(found.starts_with("later: timed out after 800ms"), "{found}");
        assert_eq!(std::fs::read_to_string(folder.path().join("asked")).unwrap(), "asked\n");
    }

    #[tokio::test]
    async fn what_is_left_behind_does_not_keep_the_run_alive_nor_itself() {
        let folder = tempfile::tempdir().unwrap();
        let start = Instant::now();
        assert_eq!(run_in(folder.path(), "sleep 60 & echo $! > pid", 20_000).await, "done");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(gone(&folder.path().join("pid")).await);
    }

    #[tokio::test]
    async fn what_left_the_group_does_not_keep_the_run_alive() {
        let folder = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let text = "setsid sleep 3 & sleep 0.2; exit 6"; // holds the outputs open in a session of its own
        assert_eq!(run_in(folder.path(), text, 20_000).await, "later [6]: exit 6");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_dropped_run_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let text = "trap '' TERM; (trap '' TERM; sleep 60) & echo $! > pid; sleep 60";
        tokio::select! {
            outcome = run_in(folder.path(), text, 60_000) => panic!("{outcome}"),
            () = appears(&pid) => {}
        }
        assert!(gone(&pid).await);
    }
}
