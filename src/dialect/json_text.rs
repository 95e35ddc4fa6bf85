//! JSON with places: what settings of other systems are read from, so that a mistake is shown at its line.

use std::fmt;

use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::escape;
use crate::yaml::value::{field_path, item_path};

/// To find a place costs a reading of the text: of more mistakes than these, a report has the ways only.
pub const SPOTS_MAX: usize = 100;

/// A line and a column of a text, both from 1. Columns are counted in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    pub line: usize,
    pub column: usize,
}

/// One step of the way to a part of a JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Field(String),
    Item(usize),
}

/// The way from the top of a JSON text to one of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Way(Vec<Step>);

impl Way {
    /// The way to a field of this object.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.then(Step::Field(name.to_owned()))
    }

    /// The way to an item of this array, from 0.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        self.then(Step::Item(index))
    }

    /// How many steps it has; 0 at the top.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no way is empty but the one to the top")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Way {
    /// Such as `hooks.stop[0].name`; empty at the top. Fit for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.iter().fold(String::new(), |path, step| match step {
            Step::Field(name) => field_path(&path, name),
            Step::Item(index) => item_path(&path, *index),
        });
        f.write_str(&escape::path(&path))
    }
}

/// Why a text is no JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotJson {
    pub reason: String,
    pub spot: Option<Spot>,
}

/// A text that is JSON. A byte order mark before it makes it none (RFC 8259, 8.1), as it is for `serde_json`.
#[derive(Debug, Clone, Copy)]
pub struct JsonText<'t>(&'t str);

impl<'t> JsonText<'t> {
    /// Reads a whole text.
    ///
    /// # Errors
    /// [`NotJson`]: why, and where if that is known.
    pub fn read(bytes: &'t [u8]) -> Result<(Self, Value), NotJson> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default()).into_owned();
            NotJson { reason: "it is not UTF-8".to_owned(), spot: Some(spot(&before, before.len())) }
        })?;
        if text.starts_with('\u{feff}') {
            let reason = "it begins with a byte order mark, which JSON does not have".to_owned();
            return Err(NotJson { reason, spot: Some(Spot { line: 1, column: 1 }) });
        }
        match serde_json::from_str(text) {
            Ok(value) => Ok((Self(text), value)),
            Err(_) if text.trim().is_empty() => Err(NotJson { reason: "it is empty".to_owned(), spot: None }),
            Err(error) => Err(NotJson { reason: bare(&error), spot: of_error(&error) }),
        }
    }

    /// Where a part stands. Of one that is not there: where the last part stands that is on the way to it.
    #[must_use]
    pub fn spot(&self, way: &Way) -> Spot {
        let mut here = self.0.trim_start();
        for step in &way.0 {
            let Some(next) = child(here, step) else { break };
            here = next;
        }
        spot(self.0, self.offset(here))
    }

    /// The keys that their objects have had before, at the later of both places: the first [`SPOTS_MAX`] of them.
    #[must_use]
    pub fn repeated_keys(&self) -> Vec<(Way, Spot)> {
        let mut found = Vec::new();
        self.repeated_in(self.0.trim_start(), &Way::default(), &mut found);
        found
    }

    fn repeated_in(&self, json: &str, way: &Way, found: &mut Vec<(Way, Spot)>) {
        match parts(json) {
            Parts::Object(fields) => {
                let mut seen = std::collections::HashSet::new();
                for (name, value) in fields {
                    let way = way.field(&name);
                    if found.len() >= SPOTS_MAX {
                        return;
                    }
                    if !seen.insert(name) {
                        found.push((way.clone(), spot(self.0, self.offset(value))));
                    }
                    self.repeated_in(value, &way, found);
                }
            }
            Parts::Array(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    self.repeated_in(item, &way.item(index), found);
                }
            }
            Parts::None => {}
        }
    }

    /// How many bytes of the text stand before a part of it.
    fn offset(&self, part: &str) -> usize {
        part.as_ptr().addr().saturating_sub(self.0.as_ptr().addr())
    }
}

/// What `serde_json` says, without the place, which is shown in another form.
fn bare(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

fn of_error(error: &serde_json::Error) -> Option<Spot> {
    (error.line() > 0).then(|| Spot { line: error.line(), column: error.column().max(1) })
}

fn spot(text: &str, offset: usize) -> Spot {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Spot { line, column }
}

/// The part of an object or array that a step leads to. Of keys that are there twice, the last counts.
fn child<'t>(json: &'t str, step: &Step) -> Option<&'t str> {
    match (parts(json), step) {
        (Parts::Object(fields), Step::Field(name)) => {
            fields.into_iter().rfind(|(key, _)| key == name).map(|(_, value)| value)
        }
        (Parts::Array(items), Step::Item(index)) => items.into_iter().nth(*index),
        _ => None,
    }
}

/// What is in an object or array, each part as it is written.
enum Parts<'t> {
    Object(Vec<(String, &'t str)>),
    Array(Vec<&'t str>),
    /// It is neither.
    None,
}

fn parts(json: &str) -> Parts<'_> {
    let mut reader = serde_json::Deserializer::from_str(json);
    reader.deserialize_any(PartsVisitor).unwrap_or(Parts::None)
}

struct PartsVisitor;

impl<'t> Visitor<'t> for PartsVisitor {
    type Value = Parts<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Parts<'t>, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &'t RawValue>()? {
            fields.push((name, value.get()));
        }
        Ok(Parts::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut list: A) -> Result<Parts<'t>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<&'t RawValue>()? {
            items.push(item.get());
        }
        Ok(Parts::Array(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\n  \"a\": [1, {\"b\": \"ä\", \"c\":\n null}],\n  \"d\" : {}\n}";

    #[test]
    fn parts_have_their_places() {
        let (text, _) = JsonText::read(TEXT.as_bytes()).unwrap();
        let check = |way: Way, line, column| assert_eq!(text.spot(&way), Spot { line, column }, "{way}");
        let top = Way::default();
        check(top.clone(), 1, 1);
        check(top.field("a"), 2, 8);
        check(top.field("a").item(0), 2, 9);
        check(top.field("a").item(1).field("b"), 2, 18);
        check(top.field("a").item(1).field("c"), 3, 2);
        check(top.field("d"), 4, 9);
        check(top.field("a").item(1).field("missing").field("x"), 2, 12); // the object that lacks it
        check(top.field("a").item(7), 2, 8);
        assert_eq!(top.field("a").item(1).field("b\u{1b}").to_string(), "a[1].b\\u{1b}");
    }

    #[test]
    fn keys_are_there_once() {
        let repeated = |text: &str| {
            let (text, _) = JsonText::read(text.as_bytes()).unwrap();
            let show = |(way, spot): (Way, Spot)| format!("{}:{} {way}", spot.line, spot.column);
            text.repeated_keys().into_iter().map(show).collect::<Vec<_>>()
        };
        assert!(repeated(TEXT).is_empty());
        assert_eq!(repeated(r#"{"a":1,"a":{"b":[{"c":1,"\u0063":2}]}}"#), ["1:12 a", "1:34 a.b[0].c"]);
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        let check = |text: &[u8], reason: &str, spot: Option<(usize, usize)>| {
            let found = JsonText::read(text).unwrap_err();
            assert!(found.reason.contains(reason), "{found:?}");
            assert_eq!(found.spot.map(|spot| (spot.line, spot.column)), spot, "{found:?}");
        };
        check(b"", "empty", None);
        check(b" \n", "empty", None);
        check(b"{\n\"a\": }", "expected value", Some((2, 6)));
        check(b"{\"a\": 1", "EOF while parsing an object", Some((1, 7)));
        check(b"{} x", "trailing characters", Some((1, 4)));
        check(b"{\"a\": 'x'}", "expected value", Some((1, 7)));
        check(b"// c\n{}", "expected value", Some((1, 1)));
        check("\u{feff}{}".as_bytes(), "byte order mark", Some((1, 1)));
        check(b"{\"a\":\n\"\xff\"}", "not UTF-8", Some((2, 2)));
    }
}
