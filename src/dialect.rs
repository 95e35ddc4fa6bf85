//! Dialects: the wire contracts of hook systems, one file each. Pure: names only `domain` and `yaml`.
//!
//! A dialect reads the messages of its system as events, encodes what a target gets, reads what that gives back, and says how
//! the answers of many gates become one; see [`crate::domain::contract`] for the shapes. Ours, `native`, is the first.
//!
//! A hook has a dialect, and an event has one; they need not be the same. The hook's says what its target gets and how its
//! answer is read. The event's says how gates are asked, how their answers are joined, and in whose words who asked is
//! answered. Every answer is read into the same [`Answer`](crate::domain::decision::Answer).

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::aggregation::{Aggregation, Order, StopAt};
use crate::domain::contract::{About, Exchange, Question, Raw, Reply};
use crate::domain::dead_letter::ForeignHook;
use crate::domain::decision::{Answer, Decision, Json};
use crate::domain::dialect::Dialect;
use crate::domain::event::{Event, ForeignEvent, Malformed};
use crate::domain::failure::Class;
use crate::domain::hook::{Action, Hook, Matcher, ToolFilter};
use crate::domain::invocation::Invocation;
use crate::domain::message::Message;
use crate::domain::outcome::Outcome;
use crate::domain::pattern::Pattern;
use crate::domain::retry::RetryPolicy;
use import::{Imported, Refused, Source, Wish};

mod aether;
pub mod bernstein;
mod ids;
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
        Source::Aether => aether::import::import(wish),
        Source::Bernstein => bernstein::import::import(wish),
    }
}

/// What a message of this dialect says of its event. `named`: what the message calls it beside its body.
///
/// # Errors
/// [`Malformed`]: what was expected and what was found.
pub fn decode(dialect: Dialect, named: Option<&str>, body: &[u8]) -> Result<ForeignEvent, Malformed> {
    let invalid = |error| Malformed::new(Class::Invalid, error);
    match dialect {
        Dialect::Native => Err(invalid("an event of this project's own is CloudEvents".to_owned())),
        Dialect::Kheish => kheish::decode(body).map_err(invalid),
        Dialect::Aether => aether::decode(body).map_err(invalid),
        Dialect::Bernstein => bernstein::decode(body, named).map_err(invalid),
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
        Dialect::Kheish => kheish::encode(hook, invocation),
        Dialect::Aether => aether::encode(hook, invocation, key, question),
        Dialect::Bernstein => bernstein::encode(hook, invocation, key, question),
    }
}

/// What a gate says without its target being asked. `None`: the target is asked.
#[must_use]
pub fn prejudged(hook: &Hook, event: &Event, input: Option<&Json>) -> Option<Answer> {
    match hook.dialect {
        Dialect::Native | Dialect::Kheish | Dialect::Aether => None,
        Dialect::Bernstein => bernstein::prejudged(hook, event, input),
    }
}

/// Reads what the target of a hook gave back. `secrets` are what no error text may show.
///
/// # Errors
/// The attempt has failed, as the dialect has it. Never `Done`.
pub fn read(hook: &Hook, about: &About<'_>, raw: Raw, secrets: impl FnOnce() -> Vec<String>) -> Result<Reply, Outcome> {
    match hook.dialect {
        Dialect::Native | Dialect::Aether => native::read(hook, about, raw, secrets),
        Dialect::Bernstein => bernstein::read(hook, about, raw, secrets),
        Dialect::Kheish => kheish::read(raw, secrets),
    }
}

/// How the gates of an event are asked, and their answers merged.
#[must_use]
pub fn aggregation(event: &Event) -> Aggregation {
    match event.dialect {
        Dialect::Native | Dialect::Aether => Aggregation { order: Order::InTurn(StopAt::Denial), passes_input: true },
        Dialect::Kheish => kheish::aggregation(event),
        Dialect::Bernstein => bernstein::aggregation(),
    }
}

/// A hook in the words of its own system, for the letter of its failure; `None`: those of letters are its own.
#[must_use]
pub fn foreign_hook(hook: &Hook) -> Option<Box<ForeignHook>> {
    match hook.dialect {
        Dialect::Native | Dialect::Aether | Dialect::Bernstein => None,
        Dialect::Kheish => Some(Box::new(kheish::record::foreign_hook(hook))),
    }
}

/// A hook as its own system speaks of it: the event, its name, its matcher, and what runs it. `None`: it is one of ours.
#[must_use]
pub fn words(hook: &Hook) -> Option<String> {
    match hook.dialect {
        Dialect::Native => None,
        Dialect::Kheish => Some(kheish::words(hook)),
        Dialect::Aether => Some(aether::words(hook)),
        Dialect::Bernstein => Some(bernstein::words(hook)),
    }
}

/// A decision as who has asked in this dialect reads it. `kept` is the decision as JSON.
#[must_use]
pub fn answer(dialect: Dialect, kept: &str) -> String {
    match dialect {
        Dialect::Native | Dialect::Aether | Dialect::Bernstein => kept.to_owned(),
        Dialect::Kheish => kheish::outcome(&serde_json::from_str::<Decision>(kept).unwrap_or_default()),
    }
}

/// How long a hook of this dialect may take that does not say so. `None`: as hooks of ours.
#[must_use]
pub fn timeout(dialect: Dialect, action: &Action) -> Option<Duration> {
    match dialect {
        Dialect::Native | Dialect::Aether | Dialect::Bernstein => None,
        Dialect::Kheish => Some(kheish::timeout(action)),
    }
}

/// How many hooks of this dialect that do such a thing run at a time in one process. `None`: as many as may.
#[must_use]
pub fn concurrency(dialect: Dialect, action: &Action) -> Option<usize> {
    match dialect {
        Dialect::Native | Dialect::Aether | Dialect::Bernstein => None,
        Dialect::Kheish => kheish::concurrency(action),
    }
}

/// How a hook of this dialect for such events is tried again that does not say so. `None`: as hooks of ours.
#[must_use]
pub fn retry(dialect: Dialect, on: &[Pattern]) -> Option<RetryPolicy> {
    match dialect {
        Dialect::Native => None,
        Dialect::Kheish => Some(kheish::retry()),
        Dialect::Aether => Some(aether::retry()),
        Dialect::Bernstein => Some(bernstein::retry(on)),
    }
}

/// The matcher that a hook of this dialect writes so; `None`: every event matches.
///
/// # Errors
/// One sentence: the dialect has none, or not such a one.
pub fn matcher(dialect: Dialect, text: &str) -> Result<Option<Matcher>, String> {
    match dialect {
        Dialect::Bernstein => ToolFilter::read(text).map(|filter| Some(Matcher::Tool(filter))),
        Dialect::Native | Dialect::Aether => {
            Err(format!("expected `matcher` with another dialect than {}, which has `subject`", dialect.name()))
        }
        Dialect::Kheish => Ok((!text.is_empty()).then(|| Matcher::Wildcards(text.to_owned()))),
    }
}

/// The event by which the system of a hook hears that it has failed for good; `None`: it hears of it from letters alone.
#[must_use]
pub fn warning(hook: &Hook, invocation: &Invocation, error: &str) -> Option<Message> {
    match hook.dialect {
        Dialect::Native | Dialect::Kheish | Dialect::Bernstein => None,
        Dialect::Aether => aether::warning(hook, invocation, error),
    }
}

/// The data of an event in structured JSON, as they were written; `None`: it has none, or cannot be read.
fn data(body: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    serde_json::from_slice::<Whole<'_>>(body).ok()?.data
}
