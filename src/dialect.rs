//! Dialects: the wire contracts of hook systems, one file each. Pure: names only `domain` and `yaml`.
//!
//! A dialect encodes what a target gets and reads what it gives back; see [`crate::domain::contract`] for the shapes. Ours,
//! `native`, is the first.

use crate::domain::contract::{Dialect, Exchange, Question, Raw, Reply};
use crate::domain::hook::Hook;
use crate::domain::invocation::Invocation;
use crate::domain::outcome::Outcome;
use import::{Imported, Refused, Source, Wish};

pub mod import;
pub mod json_text;
pub mod kheish;
mod native;
mod yaml_text;

/// Hooks of ours that mean what the definitions of another system mean.
///
/// # Errors
/// [`Refused`]: everything that is wrong, or cannot be taken over. Nothing is imported then.
pub fn import(from: Source, wish: &Wish<'_>) -> Result<Imported, Refused> {
    match from {
        Source::Kheish => kheish::import::import(wish),
    }
}

/// What the target of a hook gets for one attempt. `key` is what the receiver tells repeats by.
///
/// # Errors
/// One sentence: why this event has no such form. It would be the same at every attempt.
pub fn encode<'a>(
    hook: &'a Hook,
    invocation: &'a Invocation,
    key: &'a str,
    question: Option<&Question<'_>>,
) -> Result<Exchange<'a>, String> {
    match hook.dialect {
        Dialect::Native => native::encode(hook, invocation, key, question),
    }
}

/// Reads what the target of a hook gave back. `asks`: the attempt was a question. `secrets` are what no error text may show.
///
/// # Errors
/// The attempt has failed, as the dialect has it. Never `Done`.
pub fn read(hook: &Hook, asks: bool, raw: Raw, secrets: impl FnOnce() -> Vec<String>) -> Result<Reply, Outcome> {
    match hook.dialect {
        Dialect::Native => native::read(hook, asks, raw, secrets),
    }
}
