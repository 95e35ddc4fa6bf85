//! The thread that writes: jobs of a batch -> hand-out -> COMMIT -> answers.
//!
//! Every job runs in a savepoint, so that one that fails undoes only itself. A full disk or an I/O error may undo the
//! whole transaction: then every job of the batch failed, and is told so. From the first failure on the writer tries a
//! small write every [`PROBE_EVERY`], until one succeeds; listeners hear of both ends of the trouble.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, ErrorCode};
use tokio::sync::oneshot;

use super::clock::Clock;
use super::desk::{Desk, HandOut};

/// Jobs that share one fsync at most.
const JOBS_MAX: usize = 1024;
/// No job is added to a batch that has been running for longer, so that the first does not wait for the last.
const BATCH_TIME_MAX: Duration = Duration::from_millis(20);
/// How often writing is tried while it fails.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Why something was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the disk is full: {0}")]
    Full(Arc<rusqlite::Error>),
    #[error("too large for the SQLite file: {0}")]
    TooLarge(Arc<rusqlite::Error>),
    #[error("cannot write to the SQLite file: {0}")]
    Failed(Arc<rusqlite::Error>),
    #[error("the SQLite file is closed")]
    Closed,
}

impl WriteError {
    /// Whether other writes are likely to fail too.
    fn is_trouble(&self) -> bool {
        match self {
            Self::Full(_) | Self::Failed(_) => true,
            Self::TooLarge(_) | Self::Closed => false,
        }
    }
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error_code();
        let error = Arc::new(error);
        match code {
            Some(ErrorCode::DiskFull) => Self::Full(error),
            Some(ErrorCode::TooBig) => Self::TooLarge(error),
            Some(_) | None => Self::Failed(error),
        }
    }
}

/// Something to be written.
pub(super) trait Job: Send {
    /// Does it, inside a savepoint.
    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()>;

    /// Hears, after the commit, whether it is on disk. Called once, perhaps without a run.
    fn answer(self: Box<Self>, outcome: Result<(), WriteError>);
}

/// What the thread is told.
pub(super) enum Order {
    Job(Box<dyn Job>),
    /// See whether messages can be handed out.
    HandOut,
    Listen(Listener),
    Stop,
}

/// Hears the reason when writing begins to fail, and nothing when it works again.
pub(crate) type Listener = Box<dyn Fn(Option<&str>) + Send>;

/// The transaction under way, as jobs see it.
pub(crate) struct Batch<'a> {
    conn: &'a Connection,
    clock: Clock,
    owner: i64,
    /// Whether messages may have to be handed out before the commit.
    pub(super) hand_out: bool,
    /// When the next message is due that could be handed out then.
    pub(super) next_due_ms: Option<i64>,
}

impl Batch<'_> {
    /// The statement, prepared once.
    pub(crate) fn prepare(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.conn.prepare_cached(sql)
    }

    /// Now, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// The number of the process that owns the file.
    pub(crate) fn owner(&self) -> i64 {
        self.owner
    }

    pub(super) fn ping(&self) -> rusqlite::Result<()> {
        ping(self.conn)
    }
}

/// Sends `work` to the writer and awaits what it came to. A caller that stops waiting does not stop the work.
pub(super) async fn call<T, F>(orders: &Sender<Order>, work: F) -> Result<T, WriteError>
where
    T: Send + 'static,
    F: FnOnce(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    let job = Call { work: Some(work), result: None, answer };
    // A writer that has ended drops the job, and with it the other end of the answer.
    let _ = orders.send(Order::Job(Box::new(job)));
    answered.await.unwrap_or(Err(WriteError::Closed))
}

/// A closure as a job.
struct Call<T, F> {
    work: Option<F>,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, WriteError>>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnOnce(&mut Batch<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.result = Some(work(batch)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), WriteError>) {
        let Self { result, answer, .. } = *self;
        let _ = answer.send(outcome.and_then(|()| result.ok_or(WriteError::Closed))); // perhaps nobody waits
    }
}

/// The state of the thread.
pub(super) struct Writer {
    conn: Connection,
    owner: i64,
    clock: Clock,
    desk: Arc<Desk>,
    orders: Receiver<Order>,
    listeners: Listeners,
    /// Jobs received and not yet run.
    waiting: VecDeque<Box<dyn Job>>,
    hand_out: bool,
    stopping: bool,
    /// When the next message is due.
    wake: Option<Instant>,
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
    pub(super) fn new(conn: Connection, owner: i64, clock: Clock, desk: Arc<Desk>, orders: Receiver<Order>) -> Self {
        Self {
            conn,
            owner,
            clock,
            desk,
            orders,
            listeners: Listeners::default(),
            waiting: VecDeque::new(),
            hand_out: false,
            stopping: false,
            wake: None,
            trouble: None,
        }
    }

    /// Runs until it is told to stop; the file is closed then.
    pub(super) fn run(mut self) {
        loop {
            if self.waiting.is_empty() && !self.hand_out {
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
            if !self.waiting.is_empty() || self.hand_out {
                self.batch();
            }
        }
    }

    /// Waits for an order, or until the clock brings something.
    fn wait(&mut self) {
        let probe_at = self.trouble.as_ref().map(|trouble| trouble.probe_at);
        let received = match self.wake.into_iter().chain(probe_at).min() {
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
            Order::HandOut => self.hand_out = true,
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
            self.hand_out = true;
        }
        if self.trouble.as_ref().is_some_and(|trouble| trouble.probe_at <= now) {
            self.probe(now);
        }
    }

    /// Tries a small write; if it succeeds, what failed meanwhile is done again.
    fn probe(&mut self, now: Instant) {
        match ping(&self.conn) {
            Ok(()) => {
                self.trouble = None;
                self.listeners.tell(None);
                self.hand_out = true;
                self.waiting.extend(self.desk.acks_to_write());
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

    /// Runs the jobs that wait, then hands messages out. An error undoes everything, for every job in `ran`.
    fn transaction(&mut self, ran: &mut Vec<Ran>) -> Result<(), WriteError> {
        let hand_out = mem::take(&mut self.hand_out);
        if let Err(error) = execute(&self.conn, "BEGIN IMMEDIATE") {
            ran.extend(self.waiting.drain(..).map(|job| (job, Ok(()))));
            return Err(error.into());
        }
        let mut batch = Batch { conn: &self.conn, clock: self.clock, owner: self.owner, hand_out, next_due_ms: None };
        let started = Instant::now();
        while let Some(job) = self.waiting.pop_front() {
            attempt(&mut batch, job, ran)?;
            if started.elapsed() > BATCH_TIME_MAX {
                break;
            }
        }
        if batch.hand_out {
            attempt(&mut batch, Box::new(HandOut::new(&self.desk)), ran)?;
            self.wake = batch.next_due_ms.map(|due_ms| self.clock.instant(due_ms));
        }
        Ok(execute(&self.conn, "COMMIT")?)
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

fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

fn ping(conn: &Connection) -> rusqlite::Result<()> {
    execute(conn, "UPDATE meta SET pings = pings + 1")
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
