//! YAML as a tree with positions, and the means to read it so that all problems are reported, each with its place.
//!
//! A [`report::Report`] stands for one source text. [`parse`] makes [`Node`]s of it, a [`value::Value`] walks them, the
//! functions of [`scalar`] read single values (of the environment and of flags too), and at the end the report gives
//! either what was read or every [`problem::Problem`].
//!
//! Why no `Deserialize`: serde ends at the first error. Tags are refused. So are anchors, aliases and merge keys: an alias can
//! make a small text large, and what is meant by a hook should stand at the hook. Files of other systems may have them, within
//! bounds ([`parse_foreign`]).

use std::collections::HashMap;
use std::io::Read as _;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError};

use self::anchors::Anchors;
use self::problem::{At, Mismatch};
use self::report::Report;
use crate::domain::escape;

mod anchors;
pub mod json;
pub mod problem;
pub mod report;
pub mod scalar;
pub mod value;

/// Largest text that is parsed.
pub const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Deepest nesting, of block and of flow style each.
const DEPTH_MAX: usize = 32;

/// A part of the tree, and the bytes of the text it was written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// What stands there.
    pub kind: Kind,
    /// A scalar without quotes, which may be more than a text to those who read JSON.
    pub plain: bool,
}

/// What a node is. Scalars are texts until someone asks for more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// No value, or YAML's `null`.
    Nothing,
    /// A scalar.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the text; every key once.
    Map(Vec<(Key, Node)>),
    /// Something that was refused and reported: readers leave it alone.
    Refused,
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As YAML reads it, quotes and escapes resolved.
    pub name: String,
    /// Bytes of the text.
    pub span: Range<usize>,
}

impl Node {
    /// No value, nowhere.
    pub const NOTHING: Self = Self { span: 0..0, kind: Kind::Nothing, plain: false };
}

/// The file, or all `*.yaml` and `*.yml` of the folder, by name; what begins with a dot is none of them.
///
/// # Errors
/// There is no such file, or none in the folder.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, Mismatch> {
    let unreadable =
        |error: std::io::Error| Mismatch::new("a file or folder that can be read").found(error.to_string());
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let is_yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let is_hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_yaml && !is_hidden {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(Mismatch::new("a folder with *.yaml files").found("none in it")) } else { Ok(files) }
}

/// Reads a file as text.
///
/// # Errors
/// What is wrong with the file as a whole.
pub fn read_file(path: &Path, bytes_max: u64) -> Result<String, Mismatch> {
    let unreadable = |error: std::io::Error| Mismatch::new("a file that can be read").found(error.to_string());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(bytes_max + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > bytes_max {
        return Err(Mismatch::new(format!("at most {bytes_max} bytes")).found("more"));
    }
    Ok(text)
}

/// The tree of the report's text. `None` if it is no YAML, which is reported; an empty text is [`Kind::Nothing`].
#[must_use]
pub fn parse(report: &Report<'_>) -> Option<Node> {
    build(report, None)
}

/// As [`parse`], of a file that another system reads too: aliases stand for what their anchors name, and merge keys (`<<`) for
/// the entries of the maps behind them, as YAML 1.1 has them.
#[must_use]
pub fn parse_foreign(report: &Report<'_>) -> Option<Node> {
    build(report, Some(Anchors::default()))
}

fn build(report: &Report<'_>, anchors: Option<Anchors>) -> Option<Node> {
    let text = report.text();
    if text.len() as u64 > BYTES_MAX {
        let found = Mismatch::new(format!("at most {BYTES_MAX} bytes")).found("more");
        report.push(At::File, "", found);
        return None;
    }
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut builder = Builder { report, documents: 0, open: Vec::new(), root: None, anchors };
    for event in Parser::new_from_str_with_options(text, options) {
        let flow = match event {
            Ok((event, span)) => builder.take(event, &span),
            Err(error) => {
                report_syntax(report, &error);
                ControlFlow::Break(())
            }
        };
        if flow.is_break() {
            report.hide_words();
            return None;
        }
    }
    Some(builder.root.unwrap_or(Node::NOTHING))
}

fn report_syntax(report: &Report<'_>, error: &ScanError) {
    let at = error.marker().byte_offset().unwrap_or_default();
    let mismatch = match error.kind() {
        ErrorKind::RecursionLimitExceeded => Mismatch::new(format!("at most {DEPTH_MAX} levels")).found("more"),
        kind => Mismatch::new("valid YAML").found(kind.to_string()),
    };
    report.push(At::Span(at..at), "", mismatch);
}

/// Makes the tree out of events.
struct Builder<'r> {
    report: &'r Report<'r>,
    documents: usize,
    open: Vec<Open>,
    root: Option<Node>,
    /// `None`: there may be none.
    anchors: Option<Anchors>,
}

/// A list or map whose end is still to come.
struct Open {
    start: usize,
    inside: Inside,
    /// Its number; 0: it has none.
    anchor: usize,
}

enum Inside {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        /// Where each key stands in the text.
        seen: HashMap<String, Range<usize>>,
        /// The key whose value comes next.
        key: Option<Key>,
    },
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: &granit_parser::Span) -> ControlFlow<()> {
        let span = span.byte_range().unwrap_or_default();
        match event {
            Event::DocumentStart(..) => self.start_document(span),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), &span);
                let plain = style == ScalarStyle::Plain;
                let nothing = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let kind = if nothing && !self.wants_key() { Kind::Nothing } else { Kind::Text(text.into_owned()) };
                self.keep_and_add(anchor, Node { span, kind, plain })
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), &span);
                self.start(Open { start: span.start, inside: Inside::List(Vec::new()), anchor }, span)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), &span);
                let inside = Inside::Map { entries: Vec::new(), seen: HashMap::new(), key: None };
                self.start(Open { start: span.start, inside, anchor }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span.end),
            Event::Alias(anchor) => self.add_again(anchor, span),
            Event::UnresolvedAlias(_) => self.add_again(0, span),
            _ => ControlFlow::Continue(()),
        }
    }

    fn start_document(&mut self, span: Range<usize>) -> ControlFlow<()> {
        self.documents += 1;
        if self.documents > 1 {
            self.wrong(span, Mismatch::new("one document in a file").found("a second one"));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn start(&mut self, open: Open, span: Range<usize>) -> ControlFlow<()> {
        if self.wants_key() {
            self.wrong(span, Mismatch::new("a text as the key").found("a list or map"));
            return ControlFlow::Break(());
        }
        self.open.push(open);
        ControlFlow::Continue(())
    }

    fn end(&mut self, end: usize) -> ControlFlow<()> {
        let Some(Open { start, inside, anchor }) = self.open.pop() else { return ControlFlow::Break(()) };
        let kind = match inside {
            Inside::List(items) => Kind::List(items),
            Inside::Map { entries, .. } if self.anchors.is_some() => Kind::Map(anchors::merged(entries)),
            Inside::Map { entries, .. } => Kind::Map(entries),
        };
        self.keep_and_add(anchor, Node { span: start..end, kind, plain: false })
    }

    fn keep_and_add(&mut self, anchor: usize, node: Node) -> ControlFlow<()> {
        if let Some(anchors) = &mut self.anchors {
            anchors.keep(anchor, &node);
        }
        self.add(node)
    }

    /// Puts what an alias stands for where the alias is.
    fn add_again(&mut self, anchor: usize, span: Range<usize>) -> ControlFlow<()> {
        let room = DEPTH_MAX.saturating_sub(self.open.len());
        let found = match &mut self.anchors {
            Some(anchors) => anchors.again(anchor, room),
            None => Err(Mismatch::new("a value written out")
                .found("an alias")
                .help("quote it if a text beginning with `*` is meant")),
        };
        let node = found.unwrap_or_else(|mismatch| {
            self.wrong(span.clone(), mismatch);
            Node { span, kind: Kind::Refused, plain: false }
        });
        self.add(node)
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { inside: Inside::Map { key: None, .. }, .. }))
    }

    /// Puts a whole node where it belongs.
    fn add(&mut self, node: Node) -> ControlFlow<()> {
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.root = Some(node),
            Some(Inside::List(items)) => items.push(node),
            Some(Inside::Map { entries, seen, key }) => match (key.take(), node) {
                (None, Node { kind: Kind::Text(name), span, .. }) => *key = Some(Key { name, span }),
                (None, _) => return ControlFlow::Break(()), // an alias as key, reported by now
                (Some(new), node) => match seen.get(&new.name).cloned() {
                    None => {
                        seen.insert(new.name.clone(), new.span.clone());
                        entries.push((new, node));
                    }
                    Some(first) => {
                        self.report.hide(node.span);
                        self.duplicate(new, first);
                    }
                },
            },
        }
        ControlFlow::Continue(())
    }

    fn duplicate(&self, key: Key, first: Range<usize>) {
        let name = escape::name(&key.name);
        let found = format!("`{name}` again, which stands on line {} already", self.report.line(first.start));
        let path = value::field_path(&self.path(), &key.name);
        self.report.push(At::Span(key.span), &path, Mismatch::new("each key once").found(found));
    }

    fn refuse_extras(&self, anchor: usize, tagged: bool, span: &Range<usize>) {
        if anchor != 0 && self.anchors.is_none() {
            self.wrong(span.clone(), Mismatch::new("a value without an anchor").found("`&` before it"));
        }
        if tagged {
            self.wrong(span.clone(), Mismatch::new("a value without a tag").found("`!` before it"));
        }
    }

    fn wrong(&self, span: Range<usize>, mismatch: Mismatch) {
        self.report.push(At::Span(span), &self.path(), mismatch);
    }

    /// The way to the node that is being made, as long as anyone will read it.
    fn path(&self) -> String {
        if self.report.is_full() {
            return String::new();
        }
        self.open.iter().fold(String::new(), |path, open| match &open.inside {
            Inside::List(items) => value::item_path(&path, items.len()),
            Inside::Map { key: Some(key), .. } => value::field_path(&path, &key.name),
            Inside::Map { key: None, .. } => path,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The tree in one line, or the problems in one line each.
    fn check(text: &str, expected: &str) {
        let report = Report::new("t.yaml", text);
        let node = parse(&report);
        let shown = match report.into_result(node) {
            Ok(node) => show(&node),
            Err(problems) => {
                problems.list().iter().map(|problem| format!("{problem:#}")).collect::<Vec<_>>().join("\n")
            }
        };
        assert_eq!(shown, expected, "{text:?}");
    }

    fn show(node: &Node) -> String {
        let join = |parts: Vec<String>| parts.join(" ");
        match &node.kind {
            Kind::Nothing => "-".into(),
            Kind::Refused => "!".into(),
            Kind::Text(text) => text.clone(),
            Kind::List(items) => format!("[{}]", join(items.iter().map(show).collect())),
            Kind::Map(entries) => {
                format!(
                    "{{{}}}",
                    join(entries.iter().map(|(key, node)| format!("{}={}", key.name, show(node))).collect())
                )
            }
        }
    }

    #[test]
    fn trees() {
        check("", "-");
        check("# only a comment\n", "-");
        check("a: 1\nb: [x, 'y']\nc:\n  - d: e\n    f: {g: h}\n", "{a=1 b=[x y] c=[{d=e f={g=h}}]}");
        check("a:\nb: ~\nc: null\nd: 'null'\n~: x\n", "{a=- b=- c=- d=null ~=x}");
        check("\u{feff}---\na: 1\n...\n", "{a=1}");
        check("a: |\n  x\n  y\n", "{a=x\ny\n}");
        check("a: 1\r\nb: 2\r\n", "{a=1 b=2}");
    }

    #[test]
    fn refusals() {
        check(
            "a: &x 1\nb: *x\n",
            "1:7 a: expected a value without an anchor, found `&` before it\n\
             2:4 b: expected a value written out, found an alias",
        );
        check("a: [!secret x]", "1:13 a[0]: expected a value without a tag, found `!` before it");
        check("a: 1\nb: 2\na: 3\n", "3:1 a: expected each key once, found `a` again, which stands on line 1 already");
        let again = "1:15 k\\u{1b}: expected each key once, found `k\\u{1b}` again, which stands on line 1 already";
        check("{\"k\\e\": 1,    \"k\\e\": 2}", again);
        let long = format!("? {}\n:\n  a: 1\n  a: 2\n", "k".repeat(3000));
        let again = format!(
            "4:3 {}....a: expected each key once, found `a` again, which stands on line 3 already",
            "k".repeat(80)
        );
        check(&long, &again);
        check("a: 1\n---\nb: 2\n", "2:1: expected one document in a file, found a second one");
        check("? [a]\n: b\n", "1:3: expected a text as the key, found a list or map");
        check("*a : b\n", "1:1: expected a value written out, found an alias");
        check("a: [1, 2\nb: 3\n", "2:2: expected valid YAML, found illegal placement of ':' indicator");
        check(&"[".repeat(40), "1:33: expected at most 32 levels, found more");
        check(&" ".repeat((4 << 20) + 1), "t.yaml: expected at most 4194304 bytes, found more");
    }

    #[test]
    fn a_broken_line_shows_its_structure_and_no_words() {
        let report = Report::new("t.yaml", "ok: 1\nurl: amqp://fleet:hunter2@mq: 5672\n");
        let node = parse(&report);
        let shown = report.into_result(node).unwrap_err().to_string();
        assert!(shown.contains("2 | url: ****://*****:*******@**: ****"), "{shown}");
        // Nor does any other line, since nobody came to say which of them hold secrets.
        for text in
            ["a: &x hunter2\nb: [", "a: &x hunter2\n? [hunter2]\n", "a: hunter2\rb: *x\r?[", "{a: &b hunter2, [x]: y}"]
        {
            let report = Report::new("t.yaml", text);
            let node = parse(&report);
            let shown = report.into_result(node).unwrap_err().to_string();
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn lines_end_as_yaml_has_it() {
        check("a: 1\rb: 2\r\nc: *x\r", "3:4 c: expected a value written out, found an alias");
    }

    proptest! {
        /// Nothing that can be typed makes the parser or the layout of its problems panic.
        #[test]
        fn any_text_is_read_or_reported(text in "[a-c:\\-\\[\\]{}&*!|>#%'\"~,. \n\r\tä\u{feff}😀]{0,60}") {
            let report = Report::new("t.yaml", &text);
            let node = parse(&report);
            if let Some(mut fields) = node.as_ref().and_then(|node| value::Value::root(&report, node).fields()) {
                let _ = fields.require("a").and_then(|a| a.secret().list(|_| Some(())));
                fields.end();
            }
            if let Err(problems) = report.into_result(node) {
                prop_assert_eq!(problems.to_string().matches("error: ").count(), problems.list().len());
            }
        }
    }
}
