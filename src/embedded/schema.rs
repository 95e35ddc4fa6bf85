//! The tables, and how the file is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use url::Url;

use super::OpenError;

/// Marks the file as ours: "hkfl".
const APPLICATION_ID: i64 = 0x686b_666c;
/// The schema below. A file with a higher one was written by a newer version of this program.
const VERSION: i64 = 1;
/// Patience with whoever looks into the file by other means.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements kept prepared; there are fewer.
const STATEMENTS_MAX: usize = 64;

/// Times are milliseconds since 1970. A message is deleted when it is acked; what is in hand is known by the owner's
/// memory only. Claims of another owner than the current one have no lease left.
const TABLES: &str = "
    CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        owner INTEGER NOT NULL,   -- counts the processes that have owned the file
        pings INTEGER NOT NULL    -- counts the writes that only tested whether one can write
    );
    INSERT INTO meta VALUES (1, 0, 0);
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        queue TEXT NOT NULL,
        due_ms INTEGER NOT NULL,
        deliveries INTEGER NOT NULL,
        properties TEXT NOT NULL,
        headers TEXT NOT NULL,
        body BLOB NOT NULL
    );
    CREATE INDEX messages_by_due ON messages (queue, due_ms);
    CREATE TABLE claims (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL,
        expires_ms INTEGER NOT NULL,
        owner INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX claims_by_expiry ON claims (expires_ms);
    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        record BLOB NOT NULL
    );
";

/// Opens the file for its owner, whose number is the second value.
pub(super) fn open(path: &Path) -> Result<(Connection, i64), OpenError> {
    let failed = |error| OpenError::Database { path: PathBuf::from(path), error };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    settle_in(&conn).map_err(failed)?;
    create(&mut conn, path)?;
    let owner =
        conn.query_row("UPDATE meta SET owner = owner + 1 RETURNING owner", [], |row| row.get(0)).map_err(failed)?;
    Ok((conn, owner))
}

/// Opens the file to look at it while its owner writes. Nothing is created: a file that is not there, or has nothing in it
/// yet, is an empty one.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    if std::fs::metadata(path).map_or(true, |file| file.len() == 0) {
        let mut conn = Connection::open_in_memory()?;
        fill(&mut conn)?;
        return Ok(conn);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = if beside(path, "-wal").exists() {
        Connection::open_with_flags(path, flags)?
    } else {
        // Nobody writes: without this, SQLite would leave a log and an index of it beside the file.
        let uri = Url::from_file_path(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let uri = uri.map_err(|()| rusqlite::Error::InvalidPath(path.to_owned()))?;
        Connection::open_with_flags(format!("{uri}?immutable=1"), flags | OpenFlags::SQLITE_OPEN_URI)?
    };
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// A file that SQLite keeps beside the one at `path`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether a file holds what this program has written.
pub(super) fn is_ours(conn: &Connection) -> rusqlite::Result<bool> {
    conn.pragma_query_value(None, "application_id", |row| Ok(row.get::<_, i64>(0)? == APPLICATION_ID))
}

fn settle_in(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    conn.pragma_update(None, "synchronous", "FULL")?; // in WAL mode: one fsync a commit
    conn.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?; // a log once grown is cut again
    conn.pragma_update(None, "wal_autocheckpoint", 4000)?; // pages
    conn.pragma_update(None, "cache_size", -1024) // KiB; beyond that the system's own cache serves as well
}

fn create(conn: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::Database { path: PathBuf::from(path), error };
    let fresh = check(conn, path)?;
    // Only now: a file that is not ours stays as it is.
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::NoLog { path: PathBuf::from(path), mode });
    }
    if fresh { fill(conn).map_err(failed) } else { Ok(()) }
}

/// Whether the file is a new one.
///
/// # Errors
/// It is another program's, or a newer version's.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<bool, OpenError> {
    let failed = |error| OpenError::Database { path: PathBuf::from(path), error };
    let number = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    let fresh = application == 0 && version == 0 && tables == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: PathBuf::from(path) });
    }
    if version > VERSION {
        return Err(OpenError::Newer { path: PathBuf::from(path), found: version, known: VERSION });
    }
    Ok(fresh)
}

fn fill(conn: &mut Connection) -> rusqlite::Result<()> {
    let transaction = conn.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
