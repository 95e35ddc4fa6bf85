//! The thread that writes: jobs of a batch -> dispatch -> COMMIT -> answers.
//!
//! Every job runs in a savepoint, so that one that fails undoes only itself. A full disk or an I/O error may undo the
//! whole transaction: then every job of the batch failed, and is told so. From the first failure on the writer tries a
//! small write every [`PROBE_EVERY`], until one succeeds; listeners hear of both ends of the trouble.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Row};

use super::clock::Clock;
use super::job::{Batch, Job, Listener, Order, WriteError, execute, ping};
use super::queues::{Dispatch, Queues};

/// Jobs that share one fsync at most.
const JOBS_MAX: usize = 1024;
/// No job is added to a batch that has been running for longer, so that the first does not wait for the last.
const BATCH_TIME_MAX: Duration = Duration::from_millis(20);
/// What was written is brought from the log into the file itself within this, so that a copy of the file alone, though no
/// backup, is not empty. The log would wait for some 16 MB otherwise.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(5);
/// How often writing is tried while it fails.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The state of the thread.
pub(super) struct Writer {
    conn: Connection,
    owner: i64,
    clock: Clock,
    queues: Arc<Queues>,
    orders: Receiver<Order>,
    listeners: Listeners,
    /// Jobs received and not yet run.
    waiting: VecDeque<Box<dyn Job>>,
    dispatch: bool,
    stopping: bool,
    /// When the next message is due.
    wake: Option<Instant>,
    /// When the log is brought into the file; `None` while there is nothing in it.
    checkpoint_at: Option<Instant>,
    trouble: Option<Trouble>,
}

/// Writing fails.
struct Trouble {
    reason: String,
    probe_at: Instant,
}

/// A job that was run, and what it came to by itself.
type Ran = (Box<dyn Job>, Result<(), WriteError>);

impl Writer {
    pub(super) fn new(
        conn: Connection,
        owner: i64,
        clock: Clock,
        queues: Arc<Queues>,
        orders: Receiver<Order>,
    ) -> Self {
        Self {
            conn,
            owner,
            clock,
            queues,
            orders,
            listeners: Listeners::default(),
            waiting: VecDeque::new(),
            dispatch: false,
            stopping: false,
            wake: None,
            checkpoint_at: Some(Instant::now()), // what opening has written
            trouble: None,
        }
    }

    /// Runs until it is told to stop; the file is closed then.
    pub(super) fn run(mut self) {
        loop {
            if self.waiting.is_empty() && !self.dispatch {
                if self.stopping {
                    return;
                }
                self.wait();
            }
            while !self.stopping && self.waiting.len() < JOBS_MAX {
                let Ok(order) = self.orders.try_recv() else { break };
                self.take(order);
            }
            self.tick(Instant::now());
            if !self.waiting.is_empty() || self.dispatch {
                self.batch();
            }
        }
    }

    /// Waits for an order, or until the clock brings something.
    fn wait(&mut self) {
        let probe_at = self.trouble.as_ref().map(|trouble| trouble.probe_at);
        let received = match self.wake.into_iter().chain(probe_at).chain(self.checkpoint_at).min() {
            None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => self.orders.recv_timeout(until.saturating_duration_since(Instant::now())),
        };
        match received {
            Ok(order) => self.take(order),
            Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Job(job) => self.waiting.push_back(job),
            Order::Dispatch => self.dispatch = true,
            Order::Stop => self.stopping = true,
            Order::Listen(listener) => {
                if let Some(trouble) = &self.trouble {
                    listener(Some(&trouble.reason));
                }
                self.listeners.0.push(listener);
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.wake.is_some_and(|at| at <= now) {
            self.wake = None;
            self.dispatch = true;
        }
        if self.trouble.as_ref().is_some_and(|trouble| trouble.probe_at <= now) {
            self.probe(now);
        }
        if self.checkpoint_at.is_some_and(|at| at <= now) {
            self.checkpoint(now);
        }
    }

    /// Brings the log into the file, as far as readers let it. Where it fails, the log keeps everything.
    fn checkpoint(&mut self, now: Instant) {
        let counts = |row: &Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let done = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], counts);
        let is_whole = done.is_ok_and(|(in_log, brought)| in_log == brought);
        self.checkpoint_at = (!is_whole).then_some(now + CHECKPOINT_AFTER);
    }

    /// Tries a small write; if it succeeds, what failed meanwhile is done again.
    fn probe(&mut self, now: Instant) {
        match ping(&self.conn) {
            Ok(()) => {
                self.trouble = None;
                self.listeners.tell(None);
                self.dispatch = true;
                self.waiting.extend(self.queues.acks_to_write());
            }
            Err(error) => self.trouble = Some(Trouble { reason: error.to_string(), probe_at: now + PROBE_EVERY }),
        }
    }

    /// One transaction, and the answers.
    fn batch(&mut self) {
        let mut ran = Vec::with_capacity(self.waiting.len() + 1);
        let fate = self.transaction(&mut ran);
        if fate.is_err() && !self.conn.is_autocommit() {
            let _ = execute(&self.conn, "ROLLBACK"); // if this fails too, the next BEGIN will say so
        }
        let outcomes = std::iter::once(&fate).chain(ran.iter().map(|(_, outcome)| outcome));
        if let Some(error) = outcomes.filter_map(|outcome| outcome.as_ref().err()).find(|error| error.is_trouble()) {
            self.failed(error.to_string());
        }
        for (job, outcome) in ran {
            job.answer(fate.clone().and(outcome));
        }
    }

    /// Runs the jobs that wait, then dispatches messages. An error undoes everything, for every job in `ran`.
    fn transaction(&mut self, ran: &mut Vec<Ran>) -> Result<(), WriteError> {
        let dispatch = mem::take(&mut self.dispatch);
        if let Err(error) = execute(&self.conn, "BEGIN IMMEDIATE") {
            ran.extend(self.waiting.drain(..).map(|job| (job, Ok(()))));
            return Err(error.into());
        }
        let mut batch = Batch { conn: &self.conn, clock: self.clock, owner: self.owner, dispatch, next_due_ms: None };
        let started = Instant::now();
        while let Some(job) = self.waiting.pop_front() {
            attempt(&mut batch, job, ran)?;
            if started.elapsed() > BATCH_TIME_MAX {
                break;
            }
        }
        if batch.dispatch {
            attempt(&mut batch, Box::new(Dispatch::new(&self.queues)), ran)?;
            self.wake = batch.next_due_ms.map(|due_ms| self.clock.instant(due_ms));
        }
        execute(&self.conn, "COMMIT")?;
        self.checkpoint_at.get_or_insert_with(|| Instant::now() + CHECKPOINT_AFTER);
        Ok(())
    }

    fn failed(&mut self, reason: String) {
        if self.trouble.is_none() {
            self.listeners.tell(Some(&reason));
            self.trouble = Some(Trouble { reason, probe_at: Instant::now() + PROBE_EVERY });
        }
    }
}

/// Runs one job in a savepoint. An error says that the savepoint could not be closed: the whole transaction is gone, or
/// has to go.
fn attempt(batch: &mut Batch<'_>, mut job: Box<dyn Job>, ran: &mut Vec<Ran>) -> Result<(), WriteError> {
    let outcome = execute(batch.conn, "SAVEPOINT job").and_then(|()| job.run(batch)).map_err(WriteError::from);
    let undone = if outcome.is_err() { execute(batch.conn, "ROLLBACK TO job") } else { Ok(()) };
    let closed = undone.and_then(|()| execute(batch.conn, "RELEASE job"));
    ran.push((job, outcome.clone()));
    // The first error is the cause: after it SQLite may only know that there is no savepoint any more.
    closed.or_else(|error| outcome.and(Err(error.into())))
}

/// Those who want to know whether writing works.
#[derive(Default)]
struct Listeners(Vec<Listener>);

impl Listeners {
    fn tell(&self, trouble: Option<&str>) {
        for listener in &self.0 {
            listener(trouble);
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.tell(Some("the SQLite file is closed"));
    }
}
