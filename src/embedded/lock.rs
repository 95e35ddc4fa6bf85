//! Who owns the file: an exclusive lock on a second file beside it, which holds the owner's address.
//!
//! The lock goes with the process, however it ends. What stands in the lock file counts only while it is locked.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, thread};

/// Whoever asks for the owner's address holds the lock for a moment; an owner to be tries a few times before it believes
/// that the file is owned.
const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// The lock, until it is released.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

/// Where the owner of a file is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub address: SocketAddr,
    /// It speaks TLS there.
    pub is_tls: bool,
}

/// As a URL without a path.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }
}

impl Owner {
    /// As it stands in the lock file. Without TLS it is the address alone, as earlier versions have it.
    fn written(self) -> String {
        if self.is_tls { format!("{self}\n") } else { format!("{}\n", self.address) }
    }

    fn read(line: &str) -> Option<Self> {
        let (address, is_tls) = line.strip_prefix("https://").map_or((line, false), |address| (address, true));
        Some(Self { address: address.parse().ok()?, is_tls })
    }
}

/// Why the lock was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// Another process holds it; this is what it announced.
    Owned(Option<Owner>),
    Io(io::Error),
}

impl Lock {
    /// Takes the lock of the SQLite file at `path`.
    pub(super) fn take(path: &Path) -> Result<Self, Refused> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(beside(path));
        let file = file.map_err(Refused::Io)?;
        for left in (0..TRIES).rev() {
            match file.try_lock() {
                Ok(()) => {
                    file.set_len(0).map_err(Refused::Io)?; // an earlier owner's address
                    return Ok(Self { file });
                }
                Err(TryLockError::Error(error)) => return Err(Refused::Io(error)),
                Err(TryLockError::WouldBlock) if left > 0 => thread::sleep(BETWEEN_TRIES),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        Err(Refused::Owned(announced(&file)))
    }

    /// Writes where the owner is spoken to.
    pub(super) fn announce(&self, owner: Owner) -> io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(owner.written().as_bytes())
    }

    /// Lets go, whoever else still has this value.
    pub(super) fn release(&self) {
        // Neither can be helped, and the end of the process does both.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

/// What the owner of `path` announced; none if nobody owns it, or nothing was announced yet.
pub(super) fn owner(path: &Path) -> Option<Owner> {
    let file = File::open(beside(path)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => announced(&file),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn announced(mut file: &File) -> Option<Owner> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(256).read_to_string(&mut text).ok()?;
    Owner::read(text.strip_suffix('\n')?) // without the line end it is only half written
}

/// `<file>.lock`, beside the file itself if `path` is a link to it.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.canonicalize().map_or_else(|_| path.as_os_str().to_owned(), OsString::from);
    name.push(".lock");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_held_lock_has_an_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let at = |address: &str, is_tls| Owner { address: address.parse().unwrap(), is_tls };
        let (plain, secured) = (at("127.0.0.1:8080", false), at("[::1]:65535", true));
        assert_eq!(owner(&path), None);
        let lock = Lock::take(&path).unwrap();
        assert_eq!(owner(&path), None);
        for announced in [secured, plain] {
            lock.announce(announced).unwrap();
            assert_eq!(owner(&path), Some(announced));
        }
        assert_eq!(std::fs::read_to_string(beside(&path)).unwrap(), "127.0.0.1:8080\n", "as earlier versions read it");
        assert!(matches!(Lock::take(&path), Err(Refused::Owned(Some(found))) if found == plain));
        lock.release();
        assert_eq!(owner(&path), None);
        assert!(Lock::take(&path).is_ok());
    }

    #[test]
    fn a_dead_owner_leaves_no_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        std::fs::write(beside(&path), "127.0.0.1:1\n").unwrap();
        assert_eq!(owner(&path), None);
        let _lock = Lock::take(&path).unwrap();
        assert_eq!(owner(&path), None);
    }

    #[test]
    fn a_link_has_the_lock_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("db"), folder.path().join("link"));
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let _lock = Lock::take(&path).unwrap();
        assert!(matches!(Lock::take(&link), Err(Refused::Owned(None))));
    }
}
