//! The process between a worker and a program that a hook runs: `hookfleet exec-shim`.
//!
//! It starts the program in a process group of its own and stays until nothing of it is left: when the program has ended,
//! when the worker asks for its end, and when the worker is gone. What leaves the group or the
//! session comes back to it, since it is the reaper of all that the program started (Linux; elsewhere the group alone is
//! ended).
//!
//! Its stdin is one end of a pair of sockets. The worker writes the payload and then nothing; the end of that stream is
//! the word to end the program. [`Report`]s go the other way, one a line. Its outputs are the program's.
//!
//! Fences are around the process that puts them up and all that it starts, for ever. So a program with fences is started
//! through a third process, which puts them up around itself and becomes the program.

use std::ffi::OsString;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};
use serde::{Deserialize, Serialize};

use crate::domain::hook::Fences;

mod family;
mod fence;

/// The first argument of a process that is one.
pub(super) const NAME: &str = "exec-shim";
/// The first argument of one that puts up fences, and becomes a program.
const INSIDE: &str = "exec-inside";
/// The exit code of one that could not, as shells have it.
const CANNOT_RUN: u8 = 126;
/// How long the program has between SIGTERM and SIGKILL.
pub(super) const LINGER: Duration = Duration::from_millis(100);
/// A process that cannot be killed for so long is in the hands of the kernel.
const KILLING: Duration = Duration::from_secs(2);
/// A pipe takes this much at once whatever its size (POSIX: `PIPE_BUF` of Linux).
const PIPE_BYTES: usize = 4096;

/// Set in a process that can be started again as a shim.
static SERVES: OnceLock<()> = OnceLock::new();

/// What a shim is told, as its second argument.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Length of the payload.
    pub(super) payload: usize,
    pub(super) fences: Fences,
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
        let _ = writeln!(io::stderr(), "hookfleet: cannot start the program: {error}");
        return Some(CANNOT_RUN.into());
    }
    if first == NAME {
        // The worker sees a failure by the missing report.
        return Some(if supervise(arguments).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
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
    family::adopt();
    let mut child = match start(arguments, &order.fences) {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return tell(&worker, &Report::Missing),
        Err(error) => return tell(&worker, &Report::Refused(error.to_string())),
    };
    let Some(program) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Err(io::Error::other("a process without a number"));
    };
    let told = tell(&worker, &Report::Started(program.as_raw_pid()));
    feed(&mut child, payload);
    let asked = worker.try_clone()?;
    thread::spawn(move || end_when_asked(asked, program));
    if told.is_err() {
        signal(program, Signal::KILL); // nobody is there any more
    }
    let ended = outlive(program);
    let _ = tell(&worker, &ended);
    end_rest(program);
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
        thread::spawn(move || stdin.write_all(&payload));
    }
}

fn tell(mut worker: &UnixStream, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    worker.write_all(&line)
}

/// Waits for the worker to say so, or to be gone.
fn end_when_asked(worker: UnixStream, program: Pid) {
    let mut worker = io::BufReader::new(worker);
    while worker.fill_buf().is_ok_and(|said| !said.is_empty()) {
        let said = worker.buffer().len();
        worker.consume(said); // nothing that it could say
    }
    signal(program, Signal::TERM);
    thread::sleep(LINGER);
    signal(program, Signal::KILL);
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

/// Kills what the program has left behind, until nothing is.
fn end_rest(program: Pid) {
    let _ = kill_process_group(program, Signal::KILL);
    let start = Instant::now();
    while start.elapsed() < KILLING {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => {
                family::kill();
                thread::sleep(Duration::from_millis(1));
            }
            Err(_) => return, // no child is left
        }
    }
}

/// The other end of a shim's stdin, and what the shim gets as that.
pub(super) fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs.into()))
}
