//! The last good catalog of Redis in a file, for a worker that starts while Redis is away.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalog::revisions::Stored;
use crate::telemetry::now_ms;

/// Where it is, and how long ago Redis may have confirmed what is there.
#[derive(Debug, Clone)]
pub struct Cache {
    pub path: PathBuf,
    /// Whose catalog it is: that of another fleet is of no use.
    pub namespace: String,
    pub max_age: Duration,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    namespace: String,
    /// When Redis last said that this is the current one, in milliseconds since 1970.
    confirmed_ms: u64,
    #[serde(flatten)]
    stored: Stored,
}

impl Cache {
    /// What is kept, if it is young enough.
    ///
    /// # Errors
    /// One sentence: why it is of no use.
    pub(super) fn load(&self) -> Result<Stored, String> {
        let shown = self.path.display();
        let text = std::fs::read_to_string(&self.path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        let kept: Kept = serde_json::from_str(&text).map_err(|error| format!("{shown} holds no catalog: {error}"))?;
        if kept.namespace != self.namespace {
            let (found, expected) = (kept.namespace, &self.namespace);
            return Err(format!(
                "expected {shown} to hold the catalog of namespace {expected:?}, found that of {found:?}"
            ));
        }
        let age = Duration::from_millis(now_ms().saturating_sub(kept.confirmed_ms));
        if age > self.max_age {
            let (age, max_age) = (Duration::from_secs(age.as_secs()), self.max_age);
            return Err(format!("what {shown} holds was confirmed {age:?} ago; catalog.max_age is {max_age:?}"));
        }
        Ok(kept.stored)
    }

    /// Keeps a catalog that Redis has just confirmed. Readers see the old file or the new one.
    pub(super) fn store(&self, stored: &Stored) -> std::io::Result<()> {
        let (namespace, confirmed_ms) = (self.namespace.clone(), now_ms());
        let kept = serde_json::to_vec(&Kept { namespace, confirmed_ms, stored: stored.clone() })?;
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:08x}.new", fastrand::u32(..)));
        let new = self.path.with_file_name(name);
        let write = || {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&kept)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        };
        write().inspect_err(|_| {
            let _ = std::fs::remove_file(&new); // there may be none
        })
    }
}
