//! Runs a hook by starting a program with the payload on its stdin. The exit code decides.
//!
//! A run is over when the program itself has ended: what it leaves behind is killed, as it is when the deadline has
//! passed, when the run is dropped, and when this process is gone. The [`shim`] sees to it.

use std::ffi::OsString;
use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use futures_util::future::{join, maybe_done};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::error::Elapsed;
use tokio::time::{timeout, timeout_at};

use super::excerpt::{excerpt, with_excerpt};
use super::shim::{self, Order, Report};
use super::{Attempt, Said, answer, timed_out};
use crate::config;
use crate::domain::decision::Answer;
use crate::domain::failure::Class;
use crate::domain::hook::{CommandAction, Exit, ExitCodes, Fences};
use crate::domain::outcome::{Again, Failure, Outcome};
use crate::domain::redaction::Secrets;
use crate::domain::secret::Secret;

/// What is kept of each output; the rest is read and dropped, so that the program is never stopped by a full pipe.
const OUTPUT_BYTES_MAX: usize = 128 * 1024;
const CHUNK_BYTES: usize = 16 * 1024;
/// How long the shim has to end what is left of a program: [`shim::LINGER`], and a moment.
const END: Duration = Duration::from_millis(200);
/// The exit code of a program that refuses.
const REFUSES: i32 = 2;
/// The variable that names a run: no other run of any worker has the same.
const RUN: &str = "HOOKFLEET_RUN";
/// Shorter values of variables are words that hide nothing.
const SECRET_BYTES_MIN: usize = 4;

/// The command executor: what may be run, and what programs inherit.
#[derive(Debug)]
pub(super) struct Commands {
    allow: Vec<String>,
    inherited: Vec<(String, Secret<OsString>)>,
    /// The program that starts others; none: there is none.
    shim: Option<OsString>,
}

impl Commands {
    pub(super) fn new(settings: &config::Commands) -> Self {
        let inherit = |name: &String| std::env::var_os(name).map(|value| (name.clone(), Secret::new(value)));
        let shim = settings.shim.as_ref().map(Into::into).or_else(shim::own);
        Self { allow: settings.allow.clone(), inherited: settings.env.iter().filter_map(inherit).collect(), shim }
    }

    /// Runs the program. Ends at the attempt's deadline, or up to [`END`] after it if the program does not go.
    pub(super) async fn run(&self, action: &CommandAction, attempt: &Attempt<'_>) -> Result<Said, Outcome> {
        let program = action.argv.first().map_or("", String::as_str);
        if !self.allow.iter().any(|name| name == program) {
            return Err(Outcome::never(Class::TargetBlocked, self.refusal(program)));
        }
        let running = match self.start(action, attempt) {
            Ok(running) => running,
            Err(error) => return Err(Outcome::later(cannot_start(program, action, &error).await)),
        };
        let mut heard = Heard::default();
        let report = attend(running, attempt, &mut heard).await;
        let said = excerpt(heard.loudest(), self.secrets(action));
        let failed = match report {
            Err(_) => timed_out(attempt.hook.timeout, &said),
            Ok(Some(Report::Exited(code))) => {
                let unstarted =
                    said.strip_prefix(shim::CANNOT_RUN_SAID).filter(|_| code == i32::from(shim::CANNOT_RUN));
                match unstarted.filter(|_| *action.fences != Fences::default()) {
                    Some(why) => Outcome::later(format!("cannot start `{program}`: {why}")),
                    None if attempt.asks => return self.answered(code, action, &heard, &said),
                    None => return exited(code, &action.exit_codes, &said).map(|()| None),
                }
            }
            Ok(Some(Report::Killed(signal))) => {
                Outcome::later(with_excerpt(format!("killed by signal {signal}"), &said))
            }
            Ok(Some(Report::Missing)) => {
                Outcome::later(format!("the program `{program}` was not found on this worker"))
            }
            Ok(Some(Report::Refused(error))) => Outcome::later(format!("cannot start `{program}`: {error}")),
            Ok(Some(Report::Started(_)) | None) => {
                Outcome::later(with_excerpt("its watcher ended without a word".to_owned(), &said))
            }
        };
        Err(failed)
    }

    /// What a program that decides has said: with exit 2 that it refuses, and why; else what it wrote.
    fn answered(&self, code: i32, action: &CommandAction, heard: &Heard, said: &str) -> Result<Said, Outcome> {
        if code == REFUSES && !action.exit_codes.names(code) {
            let reason = String::from_utf8_lossy(heard.loudest());
            let reason = if said.is_empty() { "the hook's program refused" } else { reason.trim() };
            return Ok(Some(Box::new(Answer::refusal(reason).redacted(&Secrets::new(self.secrets(action))))));
        }
        exited(code, &action.exit_codes, said)?;
        if heard.out.len() >= OUTPUT_BYTES_MAX {
            let error = format!("the answer has more than {OUTPUT_BYTES_MAX} bytes");
            return Err(Outcome::never(Class::Rejected, error));
        }
        answer(&heard.out, || self.secrets(action))
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

    fn start(&self, action: &CommandAction, attempt: &Attempt<'_>) -> io::Result<Running> {
        let Some(shim) = &self.shim else {
            let missing = "set commands.shim / HOOKFLEET_COMMANDS_SHIM to a hookfleet program: it starts them";
            return Err(io::Error::new(io::ErrorKind::Unsupported, missing));
        };
        let (ours, theirs) = shim::pair()?;
        let run = format!("{:032x}", fastrand::u128(..));
        let order = Order { payload: attempt.payload.len(), fences: (*action.fences).clone() };
        let invocation = attempt.invocation;
        let mut command = Command::new(shim);
        command
            .arg(shim::NAME)
            .arg(serde_json::to_string(&order)?)
            .args(&action.argv)
            .env_clear()
            .envs(self.inherited.iter().map(|(name, value)| (name, value.expose())))
            .envs(action.env.iter().map(|(name, value)| (name, value.expose())))
            .env("HOOKFLEET_EVENT_TYPE", variable(&invocation.event.kind))
            .env("HOOKFLEET_EVENT_ID", variable(&invocation.event.id))
            .env("HOOKFLEET_HOOK", attempt.hook.id.as_str())
            .env("HOOKFLEET_ATTEMPT", invocation.at.attempt.to_string())
            .env("HOOKFLEET_INVOCATION_KEY", &attempt.key)
            .env(RUN, &run)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0); // what a terminal sends to this process is not for programs
        if let Some(folder) = &action.cwd {
            command.current_dir(folder);
        }
        Ok(Running { shim: command.spawn()?, control: UnixStream::from_std(ours)?, run })
    }
}

/// A program that runs, or is about to. Dropping this ends it.
struct Running {
    shim: Child,
    /// The shim takes its end for the word to end the program.
    control: UnixStream,
    /// Its name.
    run: String,
}

/// Stays with the program until it has ended or its time is over (an error). `None`: the shim went without a word.
async fn attend(running: Running, attempt: &Attempt<'_>, said: &mut Heard) -> Result<Option<Report>, Elapsed> {
    let Running { mut shim, control, run } = running;
    let hold = Hold::of(&shim);
    let (stdout, stderr) = (shim.stdout.take(), shim.stderr.take());
    let mut heard = pin!(maybe_done(join(hear(stdout, &mut said.out), hear(stderr, &mut said.err))));
    let report = {
        let mut report = pin!(end(control, &attempt.payload, &hold));
        let ended = async {
            tokio::select! {
                report = &mut report => report,
                () = &mut heard => report.await,
            }
        };
        timeout_at(attempt.deadline, ended).await
    }; // here the shim is told, if it is not over
    match join(timeout(END, shim.wait()), timeout(END, heard)).await {
        (Ok(Ok(status)), _) if status.success() => hold.release(), // nothing is left of the program
        _ => {
            // A program that kills its shim at once may be quicker than the word that it runs, and under which number.
            let is_unknown = hold.group.load(Ordering::Relaxed) == 0;
            hold.kill();
            if is_unknown {
                let mark = format!("{RUN}={run}");
                let _ = tokio::task::spawn_blocking(move || shim::family::kill_marked(&mark)).await;
            }
        }
    }
    report
}

/// Hands over the payload and waits for the report of the end.
async fn end(mut control: UnixStream, payload: &[u8], hold: &Hold) -> Option<Report> {
    let (reports, mut payloads) = control.split();
    let _ = payloads.write_all(payload).await; // a shim that does not take it has no more to say
    let mut reports = BufReader::new(reports).lines();
    while let Ok(Some(line)) = reports.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Report::Started(group)) => hold.group.store(group, Ordering::Relaxed),
            Ok(report) => return Some(report),
            Err(_) => break,
        }
    }
    None
}

/// What this process can do about a program whose shim fails: one that the program has stopped or killed, say.
struct Hold {
    /// 0: none.
    shim: AtomicI32,
    group: AtomicI32,
}

impl Hold {
    fn of(shim: &Child) -> Self {
        let number = shim.id().and_then(|id| i32::try_from(id).ok());
        Self { shim: number.unwrap_or_default().into(), group: 0.into() }
    }

    /// There is nobody left to hold.
    fn release(&self) {
        self.shim.store(0, Ordering::Relaxed);
        self.group.store(0, Ordering::Relaxed);
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
        self.release();
    }

    /// A shim that was stopped goes on with its work.
    fn signal(&self, signal: Signal) {
        if let Some(shim) = Pid::from_raw(self.shim.load(Ordering::Relaxed)) {
            let _ = kill_process(shim, Signal::CONT);
        }
        if let Some(group) = Pid::from_raw(self.group.load(Ordering::Relaxed)) {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Hold {
    /// The run is dropped: its shim does the same now, if it can.
    fn drop(&mut self) {
        self.signal(Signal::TERM);
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
struct Heard {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Heard {
    /// What explains a failure best.
    fn loudest(&self) -> &[u8] {
        if self.err.trim_ascii().is_empty() { &self.out } else { &self.err }
    }
}

/// What an exit code says, to the hook that the program is run for.
fn exited(code: i32, codes: &ExitCodes, said: &str) -> Result<(), Outcome> {
    let again = match codes.meaning(code) {
        Exit::Done => return Ok(()),
        Exit::Retry => Again::Later(None),
        Exit::Fail => Again::Never(Class::Rejected),
    };
    Err(Outcome::Failed(Failure { again, status: Some(code), error: with_excerpt(format!("exit {code}"), said) }))
}

async fn cannot_start(program: &str, action: &CommandAction, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::NotFound {
        return format!("cannot start `{program}`: {error}");
    }
    match &action.cwd {
        Some(folder) if !tokio::fs::try_exists(folder).await.unwrap_or(false) => {
            format!("the working folder {} does not exist on this worker", folder.display())
        }
        _ => format!("the program of commands.shim, which starts `{program}`, was not found on this worker"),
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
    use super::*;

    #[test]
    fn inherited_secrets_are_not_shown() {
        let inherited = [("GITHUB_TOKEN", "inherited-1"), ("HOME", "/home/me"), ("MyApiKey", "inherited-2")];
        let inherited = inherited.map(|(name, value)| (name.to_owned(), Secret::new(OsString::from(value)))).to_vec();
        let commands = Commands { allow: vec![], inherited, shim: None };
        let mut action = CommandAction::plain(&["sh"]);
        action.env.insert("TOKEN".to_owned(), Secret::new("s3cret".to_owned()));
        assert_eq!(commands.secrets(&action), ["s3cret", "inherited-1", "inherited-2"]);
        assert!(!format!("{commands:?}").contains("inherited-1"));
    }
}
