//! Walks a tree. Every reading method gives `None` where something is wrong, and has reported it by then; so a caller
//! reads all it wants first and looks at the answers afterwards.

use std::ops::Range;

use super::problem::{At, Mismatch};
use super::report::Report;
use super::{Key, Kind, Node};
use crate::domain::escape::{self, quoted};

/// A node, and the way to it.
#[derive(Debug, Clone)]
pub struct Value<'a> {
    report: &'a Report<'a>,
    node: &'a Node,
    path: String,
    secret: bool,
}

/// The path of a field of a map.
#[must_use]
pub fn field_path(map: &str, name: &str) -> String {
    let name = escape::name(name);
    if map.is_empty() { name } else { format!("{map}.{name}") }
}

/// The path of an item of a list.
#[must_use]
pub fn item_path(list: &str, index: usize) -> String {
    format!("{list}[{index}]")
}

/// Everything that was read, or `None` if a part of it is wrong. Unlike `collect` it does not end at the first `None`:
/// the problems behind it are reported too.
#[must_use]
pub fn all<T>(reads: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    reads.collect::<Vec<_>>().into_iter().collect()
}

impl<'a> Value<'a> {
    /// The whole document.
    #[must_use]
    pub fn root(report: &'a Report<'a>, node: &'a Node) -> Self {
        Self { report, node, path: String::new(), secret: false }
    }

    pub(super) const fn node(&self) -> &'a Node {
        self.node
    }

    /// An item of a list.
    pub(super) fn item(&self, index: usize) -> Option<Self> {
        let Kind::List(items) = &self.node.kind else { return None };
        Some(self.child(items.get(index)?, item_path(&self.path, index)))
    }

    fn child(&self, node: &'a Node, path: String) -> Self {
        Self { report: self.report, node, path, secret: self.secret }
    }

    /// The way to it, such as `hooks[2].retry`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where it stands.
    #[must_use]
    pub fn at(&self) -> At {
        At::Span(self.node.span.clone())
    }

    /// The name of its file.
    #[must_use]
    pub fn file(&self) -> &'a str {
        self.report.file()
    }

    /// The line it begins on.
    #[must_use]
    pub fn line(&self) -> usize {
        self.report.line(self.node.span.start)
    }

    /// No problem shows it, nor what is inside; keys of maps are no secrets.
    #[must_use]
    pub fn secret(self) -> Self {
        hide(self.node, &|span| self.report.hide(span));
        Self { secret: true, ..self }
    }

    /// Like [`Value::secret`], but not for a map: who writes a URL in place of the map that should hold it has written
    /// a secret all the same.
    #[must_use]
    pub fn secret_unless_map(self) -> Self {
        if matches!(self.node.kind, Kind::Map(_)) { self } else { self.secret() }
    }

    /// Reports that it is wrong.
    pub fn wrong(&self, mismatch: Mismatch) {
        let mismatch = Mismatch { found: mismatch.found.or_else(|| Some(self.describe())), ..mismatch };
        self.report.push(self.at(), &self.path, mismatch);
    }

    /// Says what is not wrong with it and most likely not meant.
    pub fn warn(&self, mismatch: Mismatch) {
        let mismatch = Mismatch { found: mismatch.found.or_else(|| Some(self.describe())), ..mismatch };
        self.report.warn(self.at(), &self.path, mismatch);
    }

    /// Reports that it is no list or map. Nobody looks into it then, so that a secret in it would stay uncovered.
    fn other<T>(&self, expected: &str) -> Option<T> {
        if !matches!(self.node.kind, Kind::Text(_)) {
            hide(self.node, &|span| self.report.hide_from_others(span));
        }
        self.wrong(Mismatch::new(expected));
        None
    }

    /// What it is, in a few words.
    fn describe(&self) -> String {
        match &self.node.kind {
            Kind::Nothing => "nothing".to_owned(),
            Kind::Text(_) if self.secret => "another value".to_owned(),
            Kind::Text(text) => quoted(text),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
            Kind::Refused => "what is reported above".to_owned(),
        }
    }

    /// The text of a scalar, and whether it stands there without quotes.
    #[must_use]
    pub fn scalar(&self) -> Option<(&'a str, bool)> {
        match &self.node.kind {
            Kind::Text(text) => Some((text, self.node.plain)),
            Kind::Nothing | Kind::List(_) | Kind::Map(_) | Kind::Refused => None,
        }
    }

    /// Whether nothing is written here.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.node.kind == Kind::Nothing
    }

    /// Whether it is a list.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(self.node.kind, Kind::List(_))
    }

    /// Whether it is a map.
    #[must_use]
    pub fn is_map(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }

    /// Reads a single value.
    #[must_use]
    pub fn read<T>(&self, parse: impl Fn(&str) -> Result<T, Mismatch>) -> Option<T> {
        let mismatch = match &self.node.kind {
            Kind::Refused => return None,
            Kind::Text(text) => match parse(text) {
                Ok(value) => return Some(value),
                Err(mismatch) => mismatch,
            },
            // What would have been right is what the parser says of an empty text.
            _ => {
                hide(self.node, &|span| self.report.hide_from_others(span));
                Mismatch::new(parse("").err().map_or_else(|| "a text".to_owned(), |mismatch| mismatch.expected))
            }
        };
        self.wrong(mismatch);
        None
    }

    /// Reads every item of a list.
    #[must_use]
    pub fn list<T>(&self, mut read: impl FnMut(Self) -> Option<T>) -> Option<Vec<T>> {
        match &self.node.kind {
            Kind::List(items) => {
                let items = items.iter().enumerate();
                all(items.map(|(index, item)| read(self.child(item, item_path(&self.path, index)))))
            }
            Kind::Refused => None,
            _ => self.other("a list"),
        }
    }

    /// The entries of a map whose keys are free. Nothing is an empty map.
    #[must_use]
    pub fn entries(&self) -> Option<Vec<(&'a Key, Self)>> {
        match &self.node.kind {
            Kind::Map(entries) => Some(
                entries.iter().map(|(key, node)| (key, self.child(node, field_path(&self.path, &key.name)))).collect(),
            ),
            Kind::Nothing => Some(Vec::new()), // all its lines are comments
            Kind::Refused => None,
            _ => self.other("a map"),
        }
    }

    /// The fields of a map whose keys are known. Nothing is an empty map.
    #[must_use]
    pub fn fields(&self) -> Option<Fields<'a>> {
        Some(Fields { entries: self.entries()?, value: self.clone(), known: Vec::new() })
    }

    /// Reports that the key is wrong that it stands under.
    pub fn wrong_key(&self, key: &Key, mismatch: Mismatch) {
        let mismatch = Mismatch { found: mismatch.found.or_else(|| Some(quoted(&key.name))), ..mismatch };
        self.report.push(At::Span(key.span.clone()), &self.path, mismatch);
    }

    /// Says what is not wrong with the name of one of its entries and most likely not meant.
    pub fn warn_key(&self, key: &Key, mismatch: Mismatch) {
        let mismatch = Mismatch { found: mismatch.found.or_else(|| Some(quoted(&key.name))), ..mismatch };
        self.report.warn(At::Span(key.span.clone()), &self.path, mismatch);
    }

    /// Reports a key that does not exist, and covers what stands there: a secret may have got under the wrong name.
    pub fn unknown(&self, key: &Key, known: &[&str]) {
        hide(self.node, &|span| self.report.hide_from_others(span));
        self.report.unknown(At::Span(key.span.clone()), &self.path, &key.name, known);
    }
}

/// Covers every value in it with `cover`. Bounded by the parser's depth.
fn hide(node: &Node, cover: &dyn Fn(Range<usize>)) {
    match &node.kind {
        Kind::Map(entries) => entries.iter().for_each(|(_, node)| hide(node, cover)),
        Kind::Nothing => {}
        _ => cover(node.span.clone()),
    }
}

/// The fields of a map. What was not asked for by [`Fields::end`] does not exist.
#[derive(Debug)]
pub struct Fields<'a> {
    value: Value<'a>,
    entries: Vec<(&'a Key, Value<'a>)>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Whether nothing at all is written there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A field, if it is there.
    pub fn get(&mut self, name: &'static str) -> Option<Value<'a>> {
        self.known.push(name);
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value.clone())
    }

    /// A field that has to be there.
    pub fn require(&mut self, name: &'static str) -> Option<Value<'a>> {
        let value = self.get(name);
        if value.is_none() {
            self.value.wrong(Mismatch::new(format!("a field `{name}`")).found("none"));
        }
        value
    }

    /// A single value, or `default` if the field is not there.
    pub fn read_or<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, Mismatch>,
    ) -> Option<T> {
        self.get(name).map_or(Some(default), |value| value.read(parse))
    }

    /// Reports every field that was not asked for.
    pub fn end(self) {
        for (key, value) in &self.entries {
            if !self.known.contains(&key.name.as_str()) {
                value.unknown(key, &self.known);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::scalar::{count, text};

    /// Reads `a`, a number up to 9, `b`, a list of texts, and `c`, a secret.
    fn check(source: &str, expected: &[&str]) {
        let report = Report::new("t.yaml", source);
        let node = super::super::parse(&report).unwrap();
        let read = || {
            let mut fields = Value::root(&report, &node).fields()?;
            let a = fields.require("a").and_then(|value| value.read(count(1..=9u32)));
            let b = fields.get("b").map_or(Some(Vec::new()), |value| value.list(|item| item.read(text("a word"))));
            let c = fields.get("c").map_or(Some(0), |value| value.secret().read(count(1..=9u32)));
            fields.end();
            Some(format!("{} {:?} {}", a?, b?, c?))
        };
        let result = read();
        let shown = match report.into_result(result) {
            Ok(read) => vec![read],
            Err(problems) => problems.list().iter().map(|problem| format!("{problem:#}")).collect(),
        };
        assert_eq!(shown, expected, "{source:?}");
    }

    #[test]
    fn readings() {
        check("a: 3\nb: [x, y]\nc: 7", &["3 [\"x\", \"y\"] 7"]);
        check("a: 3", &["3 [] 0"]);
        check("", &["1:1: expected a field `a`, found none"]);
        check("[]", &["1:1: expected a map, found a list"]);
        check(
            "a:\nb: x",
            &["1:2 a: expected a whole number from 1 to 9, found nothing", "2:4 b: expected a list, found \"x\""],
        );
        check(
            "a: [1]\nb: {x: y}",
            &["1:4 a: expected a whole number from 1 to 9, found a list", "2:4 b: expected a list, found a map"],
        );
        check(
            "a: 10\nb: [[x], ~]\nc: hunter2\nd: 1",
            &[
                "1:4 a: expected a whole number from 1 to 9, found \"10\"",
                "2:5 b[0]: expected a word, found a list",
                "2:10 b[1]: expected a word, found nothing",
                "3:4 c: expected a whole number from 1 to 9, found another value",
                "4:1 d: expected one of `a`, `b`, `c`, found `d`",
            ],
        );
        check(
            "a: *x\nb: *y",
            &[
                "1:4 a: expected a value written out, found an alias",
                "2:4 b: expected a value written out, found an alias",
            ],
        );
    }
}
