//! The catalog: reads hooks from a file into a [`HookSet`], or reports everything that is wrong with it.
//!
//! Invariant: a set of hooks comes from here complete and checked, or not at all; so nothing becomes active while any
//! problem exists, and nobody checks a hook again.

use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::domain::matching::HookSet;
use crate::yaml;
use crate::yaml::problem::{At, Problems};
use crate::yaml::report::Report;
use crate::yaml::value::Value;

mod action;
mod hooks;
mod secret;

/// Looks up an environment variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Hex digits of a revision: enough to tell the files of one fleet apart, few enough to be read aloud.
const REVISION_CHARS: usize = 12;

/// Reads a hooks file. `hint_max` is the longest `Retry-After` that its hooks honour.
///
/// # Errors
/// Every problem of the file.
pub fn load(path: &Path, hint_max: Duration, env: Lookup<'_>) -> Result<HookSet, Problems> {
    let name = path.display().to_string();
    match yaml::read_file(path, yaml::BYTES_MAX) {
        Ok(text) => parse(&text, &name, hint_max, env),
        Err(mismatch) => {
            let report = Report::new(&name, "");
            report.push(At::File, "", mismatch);
            report.into_result(None)
        }
    }
}

/// Reads hooks from a text. `file` is the name that problems show.
///
/// # Errors
/// Every problem of the text.
pub fn parse(text: &str, file: &str, hint_max: Duration, env: Lookup<'_>) -> Result<HookSet, Problems> {
    let report = Report::new(file, text);
    let root = yaml::parse(&report);
    let hooks = root.as_ref().and_then(|root| hooks::read(&Value::root(&report, root), hint_max, env));
    report.into_result(hooks.map(|hooks| HookSet::new(revision(text), hooks)))
}

/// Names a text: the beginning of its SHA-256.
fn revision(text: &str) -> String {
    let mut digits = hex::encode(Sha256::digest(text));
    digits.truncate(REVISION_CHARS);
    digits
}

#[cfg(test)]
mod tests;
