//! A job for the thread that writes: work inside a transaction, and the answer after its commit.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use rusqlite::{CachedStatement, Connection, ErrorCode};
use tokio::sync::oneshot;

use super::clock::Clock;

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
    pub(super) fn is_trouble(&self) -> bool {
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
    /// See whether messages can be dispatched.
    Dispatch,
    Listen(Listener),
    Stop,
}

/// Hears the reason when writing begins to fail, and nothing when it works again.
pub(crate) type Listener = Box<dyn Fn(Option<&str>) + Send>;

/// The transaction under way, as jobs see it.
pub(crate) struct Batch<'a> {
    pub(super) conn: &'a Connection,
    pub(super) clock: Clock,
    pub(super) owner: i64,
    /// Whether messages may have to be dispatched before the commit.
    pub(super) dispatch: bool,
    /// When the next message is due that could be dispatched then.
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

pub(super) fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

pub(super) fn ping(conn: &Connection) -> rusqlite::Result<()> {
    execute(conn, "UPDATE meta SET pings = pings + 1")
}
