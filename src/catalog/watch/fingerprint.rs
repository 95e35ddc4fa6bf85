//! A fingerprint of files: it tells that they have changed, without reading them.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::catalog::files::Files;

/// Every file with its stamp. Links are followed: Kubernetes changes what a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<(PathBuf, Option<Stamp>)>);

/// Size, place and times of a file; whoever writes or replaces it changes one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    place: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Of hooks files, and of others.
    pub(super) fn of(hooks: Option<&Files>, others: &BTreeSet<PathBuf>) -> Self {
        let hooks = hooks.map(Files::paths).unwrap_or_default();
        let stamp = |path: PathBuf| {
            let stamp = std::fs::metadata(&path).ok().map(|found| Stamp {
                size: found.size(),
                place: (found.dev(), found.ino()),
                modified: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
            });
            (path, stamp)
        };
        Self(hooks.into_iter().chain(others.iter().cloned()).map(stamp).collect())
    }
}
