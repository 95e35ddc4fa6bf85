//! One SQLite file for everything that must survive: messages, claims and dead letters of a fleet of one process.
//!
//! Guarantees, which [`crate::broker::embedded`], [`crate::idempotency::embedded`] and
//! [`crate::dead_letters::embedded`] pass on:
//! - one process owns the file at a time, by a lock that ends with the process;
//! - what was answered `Ok` is on disk: answers come after the fsync of the commit (WAL, `synchronous=FULL`);
//! - what could not be written was not written at all, and the store goes on when there is space again.
//!
//! All writing is done by one thread, which takes the jobs that have gathered during the last fsync, runs them in one
//! transaction, commits, and answers. So an fsync is shared by all that wait, and no runtime thread ever waits for the
//! disk. A store waits as long as the disk does: there are no time-outs here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::{fs, io};

use rusqlite::Connection;
use tokio::sync::watch;

pub(crate) use self::job::{Batch, WriteError};
pub(crate) use self::queues::{Credit, Dispatched, Queues};

pub use self::backup::{BackupError, backup};
use self::clock::Clock;
use self::job::{Listener, Order, call};
pub use self::lock::Owner;
use self::lock::{Lock, Refused};
pub use self::search::Queued;
use self::writer::Writer;

mod backup;
mod clock;
mod job;
pub(crate) mod letters;
mod lock;
mod queues;
mod schema;
mod search;
mod writer;

/// Why a file could not be opened. Nothing of it was changed, unless the step that failed was SQLite's.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder that it should lie in is not there and cannot be made.
    #[error("cannot create the folder {}", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// The lock file beside it cannot be opened or locked, for other reasons than an owner.
    #[error("cannot lock {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// Another process has it, and is to be asked instead: at this address, if it has announced one.
    #[error("{} is owned by another process{}", path.display(), at(*owner))]
    Owned { path: PathBuf, owner: Option<Owner> },
    /// SQLite cannot open it, or it is no SQLite file.
    #[error("cannot open the SQLite file {}", path.display())]
    Database {
        path: PathBuf,
        #[source]
        error: rusqlite::Error,
    },
    /// It holds the tables of something else.
    #[error("{} is a SQLite file of another program: choose another path", path.display())]
    Foreign { path: PathBuf },
    /// It was written by a newer version of this program.
    #[error("{} has schema {found}, this version knows {known}: use a newer hookfleet", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    /// Its file system lacks what a write-ahead log needs, as network file systems do.
    #[error("SQLite keeps no write-ahead log for {} (journal mode {mode}): use a local disk", path.display())]
    NoLog { path: PathBuf, mode: String },
    /// The operating system has no thread left.
    #[error("cannot start the thread that writes")]
    Thread(#[source] io::Error),
}

fn at(owner: Option<Owner>) -> String {
    owner.map(|owner| format!(", which answers at {owner}")).unwrap_or_default()
}

/// Where the owner of the file at `path` said that it is spoken to, if the file has an owner now. May block for as long as
/// reading a small file takes.
#[must_use]
pub fn owner(path: &Path) -> Option<Owner> {
    lock::owner(path)
}

/// An open file; clones share it. The last one to be dropped writes what was asked for, closes the file and waits for
/// that.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// None in a store that only reads.
    lock: Option<Arc<Lock>>,
    orders: mpsc::Sender<Order>,
    queues: Arc<Queues>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Its sender goes when the file is closed and unlocked.
    ended: watch::Receiver<()>,
}

impl Store {
    /// Opens the file at `path`, creating it and its folder where they are missing, and owns it until closed or
    /// dropped. Blocks: for the lock (a tenth of a second at most) and for SQLite.
    ///
    /// Leases of earlier owners are over, and what was in flight is delivered again, its count raised by one.
    ///
    /// # Errors
    /// [`OpenError::Owned`] if another process owns the file; otherwise the step that failed.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|error| OpenError::Folder { path: folder.into(), error })?;
        }
        let lock = Lock::take(path).map_err(|refused| match refused {
            Refused::Owned(owner) => OpenError::Owned { path: path.into(), owner },
            Refused::Io(error) => OpenError::Lock { path: path.into(), error },
        })?;
        let (conn, owner) = schema::open(path)?;
        let (orders, received) = mpsc::channel();
        let failed = |error| OpenError::Database { path: path.into(), error };
        let queues = Arc::new(Queues::new(&conn, owner, orders.clone()).map_err(failed)?);
        let lock = Arc::new(lock);
        let (ending, ended) = watch::channel(());
        let writer = Writer::new(conn, owner, Clock::start(), Arc::clone(&queues), received);
        let farewell = Farewell { queues: Arc::clone(&queues), lock: Arc::clone(&lock), _ending: ending };
        let thread = thread::Builder::new().name("hookfleet-sqlite".to_owned());
        let thread = thread.spawn(move || {
            let _last = farewell; // dropped after the writer has closed the file, also if it panics
            writer.run();
        });
        let thread = Mutex::new(Some(thread.map_err(OpenError::Thread)?));
        let lock = Some(lock);
        Ok(Self { inner: Arc::new(Inner { path: path.into(), lock, orders, queues, thread, ended }) })
    }

    /// Opens the file at `path` to look at it, whether it has an owner or not. Nothing is created or changed, and writing is
    /// refused. A file that is not there is an empty one.
    ///
    /// # Errors
    /// It is no file of this program, or of a newer version.
    pub fn open_to_read(path: &Path) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Database { path: path.into(), error };
        let conn = schema::open_to_read(path).map_err(failed)?;
        schema::check(&conn, path)?;
        let (orders, _) = mpsc::channel(); // nobody takes them
        let queues = Arc::new(Queues::new(&conn, 0, orders.clone()).map_err(failed)?);
        let (_, ended) = watch::channel(());
        let inner = Inner { path: path.into(), lock: None, orders, queues, thread: Mutex::default(), ended };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Tells other processes where the owner is spoken to over HTTP; [`owner`] and [`OpenError::Owned`] repeat it.
    ///
    /// # Errors
    /// The lock file could not be written.
    pub fn announce(&self, owner: Owner) -> io::Result<()> {
        self.inner.lock.as_ref().map_or(Ok(()), |lock| lock.announce(owner))
    }

    /// Writes what was asked for so far, closes the file and gives it up. What is asked for later is refused.
    pub async fn close(&self) {
        let _ = self.inner.orders.send(Order::Stop); // gone: closed already
        let _ = self.inner.ended.clone().changed().await; // an error says that the sender is gone
        self.inner.join();
    }

    /// Runs `work` in the next transaction; the answer comes after the commit. If it fails, nothing of it is written.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, WriteError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        call(&self.inner.orders, work).await
    }

    /// Runs `work` on a connection that sees what is committed, beside the writer.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let read = move || work(&schema::open_to_read(&inner.path).map_err(ReadError::Open)?).map_err(ReadError::Query);
        tokio::task::spawn_blocking(read).await.map_err(|_| ReadError::Stopped)?
    }

    /// How many messages are queued, delayed or in flight.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn messages(&self) -> Result<u64, ReadError> {
        let count = |conn: &Connection| conn.query_row("SELECT COUNT(*) FROM messages", [], |row| row.get::<_, i64>(0));
        self.read(count).await.map(i64::unsigned_abs)
    }

    /// Of each queue, how many messages are due at this moment (milliseconds since 1970), and since when the first of them is.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn backlogs(&self, now_ms: u64) -> Result<Vec<(String, u64, u64)>, ReadError> {
        let sql = "SELECT queue, count(*), min(due_ms) FROM messages WHERE due_ms <= ?1 GROUP BY queue ORDER BY queue";
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let query = move |conn: &Connection| {
            let mut statement = conn.prepare(sql)?;
            let rows = statement.query_map([now_ms], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs(), row.get::<_, i64>(2)?.unsigned_abs()))
            })?;
            rows.collect()
        };
        self.read(query).await
    }

    /// Writes for the sake of writing.
    pub(crate) async fn ping(&self) -> Result<(), WriteError> {
        self.write(|batch| batch.ping()).await
    }

    /// Calls `listener` from now on whenever writing begins to fail, with the reason, and when it works again.
    pub(crate) fn listen(&self, listener: Listener) {
        let _ = self.inner.orders.send(Order::Listen(listener)); // gone: nothing will change any more
    }

    /// The messages.
    pub(crate) fn queues(&self) -> &Arc<Queues> {
        &self.inner.queues
    }
}

/// Why the file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot open the SQLite file: {0}")]
    Open(rusqlite::Error),
    #[error("cannot query the SQLite file: {0}")]
    Query(rusqlite::Error),
    #[error("the process is stopping")]
    Stopped,
}

impl Inner {
    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A job may hold the last store; the writer cannot wait for itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
            let _ = thread.join(); // a panic was reported when it happened
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        self.join();
    }
}

/// Gives the file up when the thread that writes is at its end.
struct Farewell {
    queues: Arc<Queues>,
    lock: Arc<Lock>,
    _ending: watch::Sender<()>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.queues.end(); // nothing would be dispatched
        self.lock.release();
    }
}

#[cfg(test)]
mod tests;
