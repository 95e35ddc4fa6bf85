//! The process between a worker and a program that a hook runs: `hookfleet exec-shim`.
//!
//! It starts the program in a process group of its own and stays until nothing of it is left: when the program has ended,
//! when the worker asks for its end, and when the worker is gone. What leaves the group or the session comes back to it,
//! since it is the reaper of all that the program started (Linux; elsewhere the group alone is ended).
//!
//! Its stdin is one end of a pair of sockets. The worker writes the payload and then nothing; the end of that stream is
//! the word to end the program. Reports go the other way, one a line. Its outputs are the program's.
//!
//! Fences are around the process that puts them up and all that it starts, for ever. So a program with fences is started
//! through a third process, which puts them up around itself and becomes the program.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};
use rustix::stdio::{dup2_stderr, dup2_stdout};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::domain::hook::Fences;

pub(super) mod family;
mod fence;

/// The first argument of a process that is one.
pub(super) const NAME: &str = "exec-shim";
/// The first argument of one that puts up fences, and becomes a program.
const INSIDE: &str = "exec-inside";
/// The exit code of one that could not, as shells have it, and how it says so.
pub(super) const CANNOT_RUN: u8 = 126;
pub(super) const CANNOT_RUN_SAID: &str = "hookfleet: cannot start the program: ";
/// How long the program has between SIGTERM and SIGKILL.
pub(super) const LINGER: Duration = Duration::from_millis(100);
/// Who kills for so long without anybody ending gives up: what is left is in the hands of the kernel.
const KILLING: Duration = Duration::from_secs(10);
/// A pipe takes this much at once whatever its size (POSIX: `PIPE_BUF` of Linux).
const PIPE_BYTES: usize = 4096;

/// Set in a process that can be started again as a shim.
static SERVES: OnceLock<()> = OnceLock::new();

/// What a shim is told, as its second argument.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Length of the payload.
    pub(super) payload: usize,
    pub(super) fences: Fences,
    /// What the program leaves behind goes on until the worker says so. The shim holds no end of its outputs then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) leaves_rest: bool,
}

/// What a shim says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The program runs, under this number, which is its group's too.
    Started(i32),
    /// There is none of this name.
    Missing,
    /// It cannot be started.
    Refused(String),
    /// Its exit code.
    Exited(i32),
    /// The signal that ended it.
    Killed(i32),
}

/// Acts as a shim if this process was started to be one, and answers its exit code then. The first thing that a program
/// does whose hooks run commands: its own executable is started again for each of them.
#[must_use]
pub fn serve() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().unwrap_or_default();
    if first == INSIDE {
        let error = fence::enter(arguments);
        let _ = writeln!(io::stderr(), "{CANNOT_RUN_SAID}{error}");
        return Some(CANNOT_RUN.into());
    }
    if first == NAME {
        return Some(match supervise(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(io::stderr(), "hookfleet: {error}"); // the worker sees it by the missing report
                ExitCode::FAILURE
            }
        });
    }
    let _ = SERVES.set(());
    None
}

/// The program that serves as shim of this process, if it does so itself.
pub(super) fn own() -> Option<OsString> {
    SERVES.get()?;
    this().ok()
}

fn this() -> io::Result<OsString> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into()); // there still when the file was replaced
    }
    std::env::current_exe().map(Into::into)
}

fn supervise(mut arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    let order: Order = arguments.next().and_then(|order| serde_json::from_slice(order.as_encoded_bytes()).ok()).ok_or(
        io::Error::new(io::ErrorKind::InvalidInput, "hookfleet starts this itself: there is nothing to run by hand"),
    )?;
    let mut worker = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut payload = vec![0; order.payload];
    worker.read_exact(&mut payload)?;
    if is_over(&mut worker)? {
        return Ok(()); // this process came too late
    }
    withstand()?;
    family::adopt();
    let life = Arc::new(Life::default());
    let (started, program) = mpsc::channel();
    let (asked, watched) = (worker.try_clone()?, Arc::clone(&life));
    let (asking, is_asked) = mpsc::channel();
    thread::Builder::new().spawn(move || end_when_asked(asked, asking, &program, &watched))?;
    let mut child = match start(arguments, &order.fences) {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return tell(&worker, &Report::Missing),
        Err(error) => return tell(&worker, &Report::Refused(error.to_string())),
    };
    let program = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let program = program.ok_or(io::Error::other("a process without a number"))?;
    let _ = started.send(program);
    let _ = tell(&worker, &Report::Started(program.as_raw_pid())); // who is gone is noticed by the other thread
    feed(&mut child, payload);
    if order.leaves_rest {
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        dup2_stdout(&nowhere)?;
        dup2_stderr(&nowhere)?;
    }
    let ended = outlive(program);
    life.is_over.store(true, Ordering::SeqCst);
    let asked_at = life.asked_at.get().copied();
    let _ = tell(&worker, &ended);
    if order.leaves_rest {
        let _ = is_asked.recv(); // an error: the other thread is over, and so is the worker's wait
    }
    end_rest(program, asked_at);
    Ok(())
}

/// What the threads know of a program.
#[derive(Default)]
struct Life {
    /// When it was asked to end.
    asked_at: OnceLock<Instant>,
    /// It has ended, and its number may be another's.
    is_over: AtomicBool,
}

/// Whether the worker has gone on without waiting.
fn is_over(worker: &mut UnixStream) -> io::Result<bool> {
    worker.set_nonblocking(true)?;
    let is_over = !worker.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    worker.set_nonblocking(false)?;
    Ok(is_over)
}

/// What is sent to all processes of a service, or of a terminal, is for the worker, who says what is to be done. A program
/// does not inherit this, as it would if these were ignored.
fn withstand() -> io::Result<()> {
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(())
}

fn start(mut arguments: impl Iterator<Item = OsString>, fences: &Fences) -> io::Result<Child> {
    let program = arguments.next().unwrap_or_default();
    let mut command = if *fences == Fences::default() {
        Command::new(program)
    } else {
        fence::find(&program)?; // by the one who can tell
        let mut command = Command::new(this()?);
        command.arg(INSIDE).arg(serde_json::to_string(fences)?).arg(program);
        command
    };
    command.args(arguments).stdin(Stdio::piped()).process_group(0).spawn()
}

/// Hands over the payload. A program that does not read it has chosen so.
fn feed(child: &mut Child, payload: Vec<u8>) {
    let Some(mut stdin) = child.stdin.take() else { return };
    if payload.len() <= PIPE_BYTES {
        let _ = stdin.write_all(&payload);
    } else {
        let _ = thread::Builder::new().spawn(move || stdin.write_all(&payload)); // else it gets none
    }
}

fn tell(mut worker: &UnixStream, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    worker.write_all(&line)
}

/// Waits for the worker to say so, or to be gone.
fn end_when_asked(mut worker: UnixStream, asking: Sender<()>, program: &Receiver<Pid>, life: &Life) {
    let mut said = [0; 64];
    loop {
        match worker.read(&mut said) {
            Ok(1..) => {} // nothing that it could say
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
        }
    }
    drop(asking);
    let Ok(program) = program.recv() else { return };
    for what in [Signal::TERM, Signal::KILL] {
        if life.is_over.load(Ordering::SeqCst) {
            return;
        }
        let _ = life.asked_at.set(Instant::now());
        signal(program, what);
        thread::sleep(LINGER);
    }
}

fn signal(program: Pid, signal: Signal) {
    let _ = kill_process_group(program, signal); // fails only if nobody is left
    if signal == Signal::KILL {
        let _ = kill_process(program, signal); // it may have gone over to another group
    }
}

/// Waits for the end of the program, and buries whatever of its family ends before.
fn outlive(program: Pid) -> Report {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => return ended(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Report::Refused(format!("cannot wait for it: {error}")),
        }
    }
}

fn ended(status: WaitStatus) -> Report {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Report::Exited(code),
        (None, signal) => Report::Killed(signal.unwrap_or_default()),
    }
}

/// Kills what the program has left behind, until nothing is. What was asked to end has its time for that.
fn end_rest(program: Pid, asked_at: Option<Instant>) {
    let grace_until = asked_at.map(|asked| asked + LINGER);
    let mut killing_since = Instant::now();
    let mut is_killed = false;
    while killing_since.elapsed() < KILLING {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => killing_since = Instant::now(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return, // no child is left
            Ok(None) => {
                if grace_until.is_none_or(|until| Instant::now() >= until) {
                    if !is_killed {
                        let _ = kill_process_group(program, Signal::KILL);
                        is_killed = true;
                    }
                    family::kill();
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// The other end of a shim's stdin, and what the shim gets as that.
pub(super) fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs.into()))
}
