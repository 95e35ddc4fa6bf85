//! The event as templates see it: parsed as far as they look, and printed as it was written.
//!
//! A number is one to compare and to count with; where it is printed, its digits are those that the publisher wrote, which
//! a 64-bit number may not have. Objects and arrays are printed byte for byte. Each level is parsed when it is first
//! looked at, by the JSON library, whose raw values keep the text.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use minijinja::{Error, ErrorKind};
use serde_json::value::RawValue;

/// Deeper events are not read, as the JSON library does not read them: their comparison or removal would take the stack.
const DEPTH_MAX: usize = 128;

/// An object or an array of the event.
pub(super) struct Node {
    raw: Bytes,
    level: OnceLock<Level>,
    spellings: Arc<Spellings>,
}

/// What stands in it, one level deep.
enum Level {
    Members(BTreeMap<String, Child>),
    Items(Vec<Child>),
    /// A name or a text that nobody can read, such as half of a surrogate pair.
    Unreadable,
}

struct Child {
    raw: Bytes,
    value: OnceLock<Value>,
}

/// How numbers are written that would be printed otherwise, by the bits of the number: that which was looked at last.
///
/// Two numbers of an event may be equal as 64-bit numbers and be written in two ways. The one that is printed is then the
/// one that was looked at last, which is the same in all templates but those that keep the other one in a loop's variable.
#[derive(Default)]
pub(super) struct Spellings(Mutex<HashMap<u64, Option<Bytes>>>);

impl Spellings {
    /// How this number is written in the event; `None`: as it is printed anyway.
    pub(super) fn of(&self, number: f64) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spelling = all.get(&number.to_bits())?.as_ref()?;
        Some(String::from_utf8_lossy(spelling).into_owned())
    }

    fn looked_at(&self, number: f64, raw: &Bytes) {
        let is_usual = serde_json::to_vec(&number).is_ok_and(|printed| printed == raw[..]);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_usual {
            all.entry(number.to_bits()).and_modify(|spelling| *spelling = None);
        } else {
            all.insert(number.to_bits(), Some(raw.clone()));
        }
    }
}

impl Node {
    /// The whole event; `None`: it is no JSON object, or nested too deeply.
    pub(super) fn root(event: &Bytes) -> Option<Value> {
        let is_readable = std::str::from_utf8(event).is_ok() && depth(event) <= DEPTH_MAX;
        let event = event.slice_ref(event.trim_ascii());
        let node = Self { raw: event, level: OnceLock::new(), spellings: Arc::default() };
        let node = Some(node).filter(|node| is_readable && matches!(node.level(), Level::Members(_)))?;
        Some(Value::from_object(node))
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.raw).unwrap_or_default() // checked as a whole
    }

    pub(super) fn spellings(&self) -> &Spellings {
        &self.spellings
    }

    fn level(&self) -> &Level {
        self.level.get_or_init(|| {
            let child =
                |raw: &RawValue| Child { raw: self.raw.slice_ref(raw.get().as_bytes()), value: OnceLock::new() };
            if self.raw.starts_with(b"[") {
                let items = serde_json::from_slice::<Vec<&RawValue>>(&self.raw);
                return items.map_or(Level::Unreadable, |items| Level::Items(items.into_iter().map(child).collect()));
            }
            let members = serde_json::from_slice::<BTreeMap<String, &RawValue>>(&self.raw);
            members.map_or(Level::Unreadable, |members| {
                Level::Members(members.into_iter().map(|(name, raw)| (name, child(raw))).collect())
            })
        })
    }

    fn value(&self, child: &Child) -> Value {
        let value = child.value.get_or_init(|| self.read(&child.raw)).clone();
        if value.is_number()
            && !value.is_integer()
            && let Ok(number) = f64::try_from(value.clone())
        {
            self.spellings.looked_at(number, &child.raw);
        }
        value
    }

    fn read(&self, raw: &Bytes) -> Value {
        match raw.first() {
            Some(b'{' | b'[') => {
                let spellings = Arc::clone(&self.spellings);
                Value::from_object(Self { raw: raw.clone(), level: OnceLock::new(), spellings })
            }
            Some(b'"') => serde_json::from_slice::<String>(raw).map_or_else(|_| unreadable(), Value::from),
            Some(b'-' | b'0'..=b'9') => number(raw),
            Some(b't') => Value::from(true),
            Some(b'f') => Value::from(false),
            _ => Value::from(()),
        }
    }
}

/// A whole number is kept whole, up to 128 bits; minus zero is none.
fn number(raw: &[u8]) -> Value {
    let text = std::str::from_utf8(raw).unwrap_or_default();
    let is_whole = text != "-0";
    if let Some(number) = text.parse::<i64>().ok().filter(|_| is_whole) {
        return Value::from(number);
    }
    if let Some(number) = text.parse::<i128>().ok().filter(|_| is_whole) {
        return Value::from(number);
    }
    match text.parse::<u128>() {
        Ok(number) => Value::from(number),
        Err(_) => text.parse::<f64>().map_or_else(|_| unreadable(), Value::from),
    }
}

fn unreadable() -> Value {
    Value::from(Error::new(ErrorKind::BadSerialization, "the event holds a value that cannot be read"))
}

/// How deeply objects and arrays are nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Object for Node {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.raw.starts_with(b"[") { ObjectRepr::Seq } else { ObjectRepr::Map }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match self.level() {
            Level::Members(members) => members.get(key.as_str()?).map(|child| self.value(child)),
            Level::Items(items) => items.get(key.as_usize()?).map(|child| self.value(child)),
            Level::Unreadable => Some(unreadable()),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.level() {
            Level::Members(members) => {
                Enumerator::Values(members.keys().map(|name| Value::from(name.as_str())).collect())
            }
            Level::Items(items) => Enumerator::Seq(items.len()),
            Level::Unreadable => Enumerator::NonEnumerable,
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        match self.level() {
            Level::Members(members) => Some(members.len()),
            Level::Items(items) => Some(items.len()),
            Level::Unreadable => None,
        }
    }
}
