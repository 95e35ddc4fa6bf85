//! Expressions in CEL over an event: conditions, and keys.
//!
//! Compiled once, when the catalog is read; names that cannot exist are found then. An evaluation is bounded: its text is
//! short and not nested deeply, and whatever can take long with much data (`check` marks it) is paid for from a budget
//! of steps, so that no event holds up a worker.

use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{IdedExpr, SourceInfo};
use cel::common::types::{CelBool, CelDouble, CelInt, CelString, CelUInt};
use cel::{Env, ExecutionError, ParseErrors};

use super::escape;
use super::text_error::Refusal;
pub use facts::Facts;

mod check;
mod facts;

/// Longest expression.
const BYTES_MAX: usize = 4096;
/// How deeply an expression may be nested, as its author counts it.
const NESTING_MAX: u16 = 24;
/// What the parser says of one that is nested deeper.
const TOO_DEEP: &str = "recursion limit";
/// Signs of an error of the library that is shown as a value of Rust.
const INTERNAL: [&str; 3] = ["Error(", "Error {", "Exceeded {"];
/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 4096;
/// Longest sentence about a failure.
const ERROR_CHARS_MAX: usize = 200;

/// The functions and types of CEL's standard library: made once, for all expressions.
static LIBRARY: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(facts::library(Env::stdlib())));

/// An expression, ready to be evaluated.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    root: Arc<IdedExpr>,
}

impl Expression {
    /// Compiles a text.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn new(text: &str) -> Result<Self, Refusal> {
        if text.trim().is_empty() {
            return Err(Refusal::new(
                "an expression in CEL, such as event.data.severity == \"error\"",
                "an empty text",
            ));
        }
        if text.len() > BYTES_MAX {
            let found = format!("one of {} bytes", text.len());
            return Err(Refusal::new(format!("an expression of at most {BYTES_MAX} bytes"), found));
        }
        let parser = LIBRARY.parser().enable_optional_syntax(false).max_recursion_depth(NESTING_MAX);
        let (mut root, source) = parser.parse_with_source_info(text).map_err(|errors| syntax(text, &errors))?;
        check::expression(&mut root, &Source { text, info: &source })?;
        Ok(Self { text: text.into(), root: Arc::new(root) })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is true of an event.
    ///
    /// # Errors
    /// It cannot be evaluated, or is no truth value. The sentence shows no value of the event.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, String> {
        facts.evaluate(&self.root, |value| match value.downcast_ref::<CelBool>() {
            Some(value) => Ok(*value.inner()),
            None => Err(format!("expected true or false, found {}", value.get_type().name())),
        })
    }

    /// What it says of an event, as a key: a text, a number, or true or false.
    ///
    /// # Errors
    /// It cannot be evaluated, or is no key. The sentence shows no value of the event.
    pub fn key(&self, facts: &Facts<'_>) -> Result<String, String> {
        let key = facts.evaluate(&self.root, |value| {
            let text = value.downcast_ref::<CelString>().map(|value| value.inner().to_owned());
            let number = || value.downcast_ref::<CelInt>().map(|value| value.inner().to_string());
            let unsigned = || value.downcast_ref::<CelUInt>().map(|value| value.inner().to_string());
            let float = || value.downcast_ref::<CelDouble>().map(|value| value.inner().to_string());
            let truth = || value.downcast_ref::<CelBool>().map(|value| value.inner().to_string());
            let key = text.or_else(number).or_else(unsigned).or_else(float).or_else(truth);
            key.ok_or_else(|| format!("expected a text, a number, true or false, found {}", value.get_type().name()))
        })?;
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("expected a key of at most {KEY_BYTES_MAX} bytes, found one of {}", key.len()));
        }
        Ok(key)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// A text, and where in it each part of its expression stands.
struct Source<'a> {
    text: &'a str,
    info: &'a SourceInfo,
}

impl Source<'_> {
    /// A part of the text, shown; the whole where its place is not known.
    fn of(&self, id: u64) -> String {
        let part = self.info.offset_for(id).and_then(|(first, last)| {
            let (first, last) = (usize::try_from(first).ok()?, usize::try_from(last).ok()?);
            Some(self.text.chars().skip(first).take(last.checked_sub(first)? + 1).collect::<String>())
        });
        escape::quoted(part.as_deref().filter(|part| !part.is_empty()).unwrap_or(self.text))
    }
}

fn syntax(text: &str, errors: &ParseErrors) -> Refusal {
    let expected = "an expression in CEL";
    let Some(error) = errors.errors.first() else { return Refusal::new(expected, escape::quoted(text)) };
    if errors.errors.iter().any(|error| error.msg.to_ascii_lowercase().contains(TOO_DEEP)) {
        return Refusal::new(format!("an expression of at most {NESTING_MAX} levels"), "one that is nested deeper");
    }
    // The library shows what went wrong inside of its parser as Rust has it, which is for nobody here.
    let is_internal = |message: &str| INTERNAL.iter().any(|sign| message.contains(sign));
    let message = error.msg.trim_start_matches("Syntax error: ");
    let message = if is_internal(message) { "it cannot be read" } else { message };
    let (line, column) = (error.pos.0.max(1), error.pos.1.max(1));
    let place = if text.contains('\n') { format!("line {line}, column {column}") } else { format!("column {column}") };
    let sentence = escape::sentence(&format!("{message} at {place} of it"), ERROR_CHARS_MAX);
    Refusal::new(expected, format!("one with a mistake: {sentence}"))
}

/// What went wrong, without any value of the event: an error of the library may show all of it.
fn failure(error: &ExecutionError) -> String {
    let sentence = match error {
        ExecutionError::NoSuchKey(name) => format!("the event has no `{}`", escape::name(name)),
        ExecutionError::NoSuchOverload(error) => error.to_string(),
        ExecutionError::UndeclaredReference(name) => format!("`{}` does not exist", escape::name(name)),
        ExecutionError::FunctionError { function, .. } => format!("`{}` failed", escape::name(function)),
        ExecutionError::UnexpectedType { want, .. } => {
            format!("a value is of another type than {}", escape::name(want))
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "a division by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number grows too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "an index is beyond the end of its list".to_owned(),
        ExecutionError::ValuesNotComparable(..) => "two values cannot be compared".to_owned(),
        ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
            format!("two values are of types that `{operator}` does not take")
        }
        _ => "it cannot be evaluated for this event".to_owned(),
    };
    escape::sentence(&sentence, ERROR_CHARS_MAX)
}

#[cfg(test)]
mod tests;
