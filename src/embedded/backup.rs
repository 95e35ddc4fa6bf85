//! A copy of the file as it is at one moment, beside its owner's work.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::schema;

/// Why there is no copy. A file that was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is nothing to copy.
    #[error("there is no file {}: is embedded.path right, and has `hookfleet up` run here?", path.display())]
    Missing { path: PathBuf },
    /// What it would be written to is there already.
    #[error("{} is there already: choose another name", path.display())]
    Exists { path: PathBuf },
    /// It cannot be read, is no file of ours, or there is no room for the copy.
    #[error("cannot copy {} to {}", from.display(), to.display())]
    Database {
        from: PathBuf,
        to: PathBuf,
        #[source]
        error: rusqlite::Error,
    },
    /// The copy is not in order, and the file neither, most likely.
    #[error("the copy of {} is damaged, as the file seems to be: {found}", path.display())]
    Damaged { path: PathBuf, found: String },
    /// The file holds the tables of something else.
    #[error("{} is a SQLite file of another program", path.display())]
    Foreign { path: PathBuf },
    /// The copy cannot be brought to the disk or to its name.
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

/// Copies the file at `from` to a new file at `to`: one file without a log, checked, and on the disk when this returns.
/// Answers its size in bytes. The owner of the file goes on meanwhile. Blocks.
///
/// # Errors
/// [`BackupError`]; then there is no file at `to` that was not there before.
pub fn backup(from: &Path, to: &Path) -> Result<u64, BackupError> {
    if !from.is_file() {
        return Err(BackupError::Missing { path: from.into() });
    }
    if to.exists() {
        return Err(BackupError::Exists { path: to.into() });
    }
    let mut partial = OsString::from(to);
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = copy(from, to, &partial).and_then(|()| finish(from, to, &partial));
    if written.is_err() {
        let _ = fs::remove_file(&partial); // there may be none
    }
    written
}

fn copy(from: &Path, to: &Path, partial: &Path) -> Result<(), BackupError> {
    let failed = |error| BackupError::Database { from: from.into(), to: to.into(), error };
    let _ = fs::remove_file(partial); // of one that was broken off
    let conn = schema::open_to_read(from).map_err(failed)?;
    if !schema::is_ours(&conn).map_err(failed)? {
        return Err(BackupError::Foreign { path: from.into() });
    }
    let name = partial.to_str().ok_or_else(|| failed(rusqlite::Error::InvalidPath(partial.into())))?;
    conn.execute("VACUUM INTO ?1", [name]).map_err(failed)?;
    let copied = schema::open_to_read(partial).map_err(failed)?;
    let check: String = copied.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if check == "ok" { Ok(()) } else { Err(BackupError::Damaged { path: from.into(), found: check }) }
}

fn finish(from: &Path, to: &Path, partial: &Path) -> Result<u64, BackupError> {
    let done = || {
        fs::set_permissions(partial, fs::metadata(from)?.permissions())?; // who may read events may read them here
        let file = File::open(partial)?;
        file.sync_all()?;
        fs::hard_link(partial, to)?; // fails where somebody else has made one meanwhile
        fs::remove_file(partial)?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok(file.metadata()?.len())
    };
    done().map_err(|error| BackupError::Write { path: to.into(), error })
}
