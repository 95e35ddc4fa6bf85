//! A contained process: a program that is started through the [`shim`], and of which nothing is left when its run is over.
//!
//! A run is over when the program itself has ended; where a dialect has it so, when all that write to its outputs have. What is
//! left behind is killed then, and also when the deadline has passed, when the run is dropped, and when this process is gone.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use futures_util::future::{join, maybe_done};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

use super::shim::{self, Order, Report};
use crate::domain::hook::Fences;

/// How long the shim has to end what is left of a program: [`shim::LINGER`], and a moment.
pub(super) const END: Duration = Duration::from_millis(200);
const CHUNK_BYTES: usize = 16 * 1024;
/// The variable that names a run: no other run of any worker has the same.
const RUN: &str = "HOOKFLEET_RUN";

/// A program that is about to be started.
pub(super) struct Program<'a> {
    command: Command,
    arguments: Vec<&'a str>,
    fences: &'a Fences,
    leaves_rest: bool,
    run: String,
}

impl<'a> Program<'a> {
    /// Through this shim, within these fences, in this folder. It inherits no variables.
    pub(super) fn new(shim: &OsStr, fences: &'a Fences, cwd: Option<&Path>) -> Self {
        let mut command = Command::new(shim);
        command.arg(shim::NAME).env_clear();
        if let Some(folder) = cwd {
            command.current_dir(folder);
        }
        Self { command, arguments: Vec::new(), fences, leaves_rest: false, run: format!("{:032x}", fastrand::u128(..)) }
    }

    /// The program's name, and its arguments.
    pub(super) fn args<T: AsRef<str> + ?Sized + 'a>(
        &mut self,
        arguments: impl IntoIterator<Item = &'a T>,
    ) -> &mut Self {
        self.arguments.extend(arguments.into_iter().map(AsRef::as_ref));
        self
    }

    /// Variables, over those of the same names before.
    pub(super) fn envs(
        &mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Self {
        self.command.envs(variables);
        self
    }

    /// Its run is over when nothing writes to its outputs any more: what it leaves behind may go on until then.
    pub(super) fn ends_with_output(&mut self, ends_with_output: bool) {
        self.leaves_rest = ends_with_output;
    }

    /// Starts it. It gets so many bytes on its stdin, which [`Running::finish`] hands over.
    pub(super) fn start(mut self, stdin_bytes: usize) -> io::Result<Running> {
        let (ours, theirs) = shim::pair()?;
        let leaves_rest = self.leaves_rest;
        let order = Order { payload: stdin_bytes, fences: self.fences.clone(), leaves_rest };
        self.command
            .arg(serde_json::to_string(&order)?)
            .args(self.arguments)
            .env(RUN, &self.run)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0); // what a terminal sends to this process is not for programs
        Ok(Running { shim: self.command.spawn()?, control: UnixStream::from_std(ours)?, leaves_rest, run: self.run })
    }
}

/// How a run came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// There is no program of this name.
    Missing,
    /// It could not be started.
    Refused(String),
    /// Its time was over.
    TimedOut,
    /// The shim went without a report.
    Unwatched,
}

/// A run that is over.
pub(super) struct Finished {
    pub(super) ended: Ended,
    /// The beginnings of its outputs.
    pub(super) out: Vec<u8>,
    pub(super) err: Vec<u8>,
}

/// A program that runs, or is about to. Dropping this ends it.
pub(super) struct Running {
    shim: Child,
    /// The shim takes its end for the word to end the program.
    control: UnixStream,
    /// The shim waits for that word before it ends what the program has left behind.
    leaves_rest: bool,
    /// Its name.
    run: String,
}

impl Running {
    /// Hands over what the program gets on its stdin, reads its outputs, of which so many bytes are kept each, and stays until
    /// it has ended or the deadline has passed.
    pub(super) async fn finish(self, stdin: &[u8], deadline: Instant, bytes_max: usize) -> Finished {
        let Self { mut shim, mut control, leaves_rest, run } = self;
        let hold = Hold::of(&shim);
        let mut out = Vec::new();
        let mut err = Vec::new();
        let report = {
            let (stdout, stderr) = (shim.stdout.take(), shim.stderr.take());
            let mut heard =
                pin!(maybe_done(join(hear(stdout, &mut out, bytes_max), hear(stderr, &mut err, bytes_max))));
            let report = {
                let mut report = pin!(end(&mut control, stdin, &hold));
                let ended = async {
                    let report = tokio::select! {
                        report = &mut report => report,
                        () = &mut heard => report.await,
                    };
                    if leaves_rest {
                        heard.as_mut().await;
                    }
                    report
                };
                timeout_at(deadline, ended).await
            };
            drop(control); // which ends what is not over
            match join(timeout(END, shim.wait()), timeout(END, heard)).await {
                (Ok(Ok(status)), _) if status.success() => hold.release(), // nothing is left of the program
                _ => hold.end_by_force(&run).await,
            }
            report
        };
        let ended = match report {
            Err(_) => Ended::TimedOut,
            Ok(Some(Report::Exited(code))) => Ended::Exited(code),
            Ok(Some(Report::Killed(signal))) => Ended::Killed(signal),
            Ok(Some(Report::Missing)) => Ended::Missing,
            Ok(Some(Report::Refused(error))) => Ended::Refused(error),
            Ok(Some(Report::Started(_)) | None) => Ended::Unwatched,
        };
        Finished { ended, out, err }
    }
}

/// Hands over the payload and waits for the report of the end.
async fn end(control: &mut UnixStream, payload: &[u8], hold: &Hold) -> Option<Report> {
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

/// Numbers of a shim and its program, for when the shim fails: when the program has stopped or killed it, say.
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

    /// Nothing is left to hold.
    fn release(&self) {
        self.shim.store(0, Ordering::Relaxed);
        self.group.store(0, Ordering::Relaxed);
    }

    /// Kills what the shim has left.
    async fn end_by_force(&self, run: &str) {
        // A program that kills its shim at once may be quicker than the report that it runs, and under which number.
        let is_unknown = self.group.load(Ordering::Relaxed) == 0;
        self.signal(Signal::KILL);
        self.release();
        if is_unknown {
            let mark = format!("{RUN}={run}");
            let _ = tokio::task::spawn_blocking(move || shim::family::kill_marked(&mark)).await;
        }
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
async fn hear(output: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, bytes_max: usize) {
    let Some(mut output) = output else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = output.read(&mut chunk).await {
        let room = bytes_max - kept.len();
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
}
