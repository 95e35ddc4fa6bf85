//! The log, which goes to stderr and never delays or stops the work.
//!
//! A thread of its own writes the lines (`tracing-appender`). Lines that nobody reads fill a bounded queue. Then further
//! lines are dropped and counted. A reader that has gone costs every line from then on; they are counted too.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Stderr, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tracing::field;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::Metric;
use crate::config;

/// Lines that wait to be written: seconds of a busy worker, and at most some megabytes.
const QUEUE_LINES_MAX: usize = 4_096;
/// How long the end of a process waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(1_500);

/// The log of this process. Dropping it writes the last lines, for at most a second and a half.
#[must_use]
#[derive(Debug)]
pub struct Logs {
    writer: Option<WorkerGuard>,
}

impl Drop for Logs {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        within(LAST_LINES, move || drop(writer)); // it may wait for a reader that does not read
    }
}

/// Starts logging to stderr. What panics is logged too.
///
/// # Errors
/// The filter is none that `tracing` reads, or logging is started already.
pub fn start(log: &config::Log) -> anyhow::Result<Logs> {
    // The library logs an error at every goodbye; what matters of a connection is told by its supervisor here.
    let filter = EnvFilter::try_new(format!("lapin=off,{}", log.filter))?;
    let (lines, writer) = Lines::new(io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines)
        .with_ansi(is_coloured(&io::stderr()))
        .log_internal_errors(false); // it would print to the stderr that cannot be written to, and panic
    let started = if log.json { builder.json().try_init() } else { builder.try_init() };
    started.map_err(|error| anyhow::anyhow!("{error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let is_wanted = backtrace.status() == BacktraceStatus::Captured;
        tracing::error!(backtrace = is_wanted.then(|| field::display(&backtrace)), "{panic}");
    }));
    Ok(Logs { writer: Some(writer) })
}

/// Whether escape codes are wanted on a stream: it is a terminal, and neither `NO_COLOR` nor `TERM=dumb` is set.
#[must_use]
pub fn is_coloured(stream: &impl IsTerminal) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Does something on a thread of its own and waits for it, but not for longer than this.
pub fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let started = thread::Builder::new().spawn(move || {
        work();
        drop(done);
    });
    if started.is_ok() {
        let _ = ended.recv_timeout(limit); // the process ends either way
    }
}

/// Where the log's lines go.
#[derive(Clone)]
struct Lines {
    queue: NonBlocking,
    /// Lines for which the queue had no room.
    refused: ErrorCounter,
    /// Lines that could not be written.
    unwritten: Arc<AtomicU64>,
}

impl Lines {
    fn new(to: impl Write + Send + 'static) -> (Self, WorkerGuard) {
        let unwritten = Arc::<AtomicU64>::default();
        let sink = Sink { to, unwritten: Arc::clone(&unwritten) };
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE_LINES_MAX);
        let (queue, writer) = builder.thread_name("hookfleet-log").finish(sink);
        (Self { refused: queue.error_counter(), queue, unwritten }, writer)
    }

    fn dropped(&self) -> u64 {
        self.unwritten.load(Ordering::Relaxed) + u64::try_from(self.refused.dropped_lines()).unwrap_or(u64::MAX)
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.queue.write(line);
        let dropped = self.dropped();
        if dropped > 0 {
            Metric::LogLinesDropped.counter(&[]).absolute(dropped);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Writes lines and counts those that it cannot write. It answers no error: the thread that writes goes on.
struct Sink<W> {
    to: W,
    unwritten: Arc<AtomicU64>,
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.to.write_all(line).is_err() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.to.flush(); // what it cannot flush it could not write
        Ok(())
    }
}

/// Writes an error's sentence to stderr, for as long as the last lines of a log may take: nobody may be reading.
pub fn last_words(text: String) {
    within(LAST_LINES, move || {
        let mut stderr: Stderr = io::stderr();
        let _ = writeln!(stderr, "{}", text.trim_end_matches('\n'));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that has gone.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    /// A reader that does not read until its gate is dropped.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_without_a_reader_are_counted() {
        let (mut lines, writer) = Lines::new(Gone);
        for _ in 0..10 {
            assert_eq!(lines.write(b"a line\n").unwrap(), 7);
        }
        drop(writer); // everything is written, or was tried to be
        assert_eq!(lines.dropped(), 10);
    }

    #[test]
    fn lines_that_nobody_reads_are_dropped_when_the_queue_is_full() {
        let (gate, closed) = mpsc::channel();
        let (mut lines, writer) = Lines::new(Stuck(closed));
        let count = QUEUE_LINES_MAX + 100;
        for _ in 0..count {
            assert_eq!(lines.write(b"a line\n").unwrap(), 7);
        }
        // The writer may have one in hand beside those in the queue.
        assert!((99..=100).contains(&lines.dropped()), "{}", lines.dropped());
        drop(Logs { writer: Some(writer) }); // ends although nobody reads
        drop(gate);
    }
}
