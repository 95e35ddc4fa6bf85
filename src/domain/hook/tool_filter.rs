//! What a script of Bernstein wants of the tool that is used: its `if` (3.23.0).
//!
//! `Bash` is the tool of that name, in any case. `Bash(git *)` looks at the command besides, `Read(/srv/*)` at the path.
//! `Tool(mcp__*)` is any tool whose name is like that. Arguments are compared in their case.

use serde::Deserialize;
use serde_json::Value;

use crate::domain::escape::quoted;

/// Tools whose argument is a command; that of the others is a path.
const OF_COMMANDS: [&str; 5] = ["bash", "shell", "sh", "exec", "run"];
/// Where a path stands among the arguments: the first of them that is a text, and no empty one.
const PATHS: [&str; 3] = ["file_path", "path", "filepath"];
/// The name by which any tool can be meant.
const ANY: &str = "Tool";

/// A filter, ready to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolFilter {
    /// As it is written.
    text: String,
    /// In lower case.
    name: FileGlob,
    argument: Option<Argument>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Argument {
    Command(FileGlob),
    Path(FileGlob),
}

/// Of an event, what a filter looks at.
#[derive(Deserialize)]
struct Whole {
    #[serde(default)]
    data: Payload,
}

#[derive(Deserialize, Default)]
struct Payload {
    #[serde(default)]
    data: Value,
}

impl ToolFilter {
    /// # Errors
    /// One sentence: what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        const FORMS: &str = "`Bash(git *)`, `Read(/path/*)`, `Tool(name)` or `Bash`";
        let trimmed = text.trim();
        let (tool, argument) = match trimmed.split_once('(') {
            None => (trimmed, None),
            Some((tool, rest)) => {
                let argument = rest.strip_suffix(')').filter(|argument| !argument.contains(')'));
                (
                    tool,
                    Some(argument.ok_or_else(|| format!("expected a filter such as {FORMS}, found {}", quoted(text)))?),
                )
            }
        };
        let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !tool.chars().all(is_letter) || tool.starts_with(|c: char| c.is_ascii_digit()) || tool.is_empty() {
            return Err(format!("expected a filter such as {FORMS}, found {}", quoted(text)));
        }
        let argument = argument.map(str::trim);
        if argument.is_some_and(str::is_empty) {
            return Err(format!("expected something between the brackets of {}", quoted(text)));
        }
        let (name, argument) = match (tool, argument) {
            (ANY, None) => return Err("expected a name behind `Tool`, such as `Tool(grep)`".to_owned()),
            (ANY, Some(name)) => (name, None),
            (tool, None) => (tool, None),
            (tool, Some(argument)) => {
                let glob = FileGlob::new(argument);
                let is_command = OF_COMMANDS.contains(&tool.to_lowercase().as_str());
                (tool, Some(if is_command { Argument::Command(glob) } else { Argument::Path(glob) }))
            }
        };
        Ok(Self { text: text.to_owned(), name: FileGlob::new(&name.to_lowercase()), argument })
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an event, in structured JSON, is about such a tool. One that is about none is not.
    #[must_use]
    pub fn matches(&self, event: &[u8]) -> bool {
        serde_json::from_slice::<Whole>(event).is_ok_and(|whole| self.is_of(&whole.data.data))
    }

    /// Whether these data, in JSON, are about such a tool.
    #[must_use]
    pub fn matches_data(&self, data: &str) -> bool {
        serde_json::from_str::<Value>(data).is_ok_and(|data| self.is_of(&data))
    }

    fn is_of(&self, data: &Value) -> bool {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let Some(tool) = text(&data["tool"]) else { return false };
        let arguments = &data["args"];
        self.name.matches(&tool.to_lowercase())
            && match &self.argument {
                None => true,
                Some(Argument::Command(glob)) => text(&arguments["command"]).is_some_and(|found| glob.matches(&found)),
                Some(Argument::Path(glob)) => {
                    PATHS.iter().find_map(|name| text(&arguments[*name])).is_some_and(|found| glob.matches(&found))
                }
            }
    }
}

/// A pattern of file names as Python's `fnmatch` has it. With `**` in it, `*` and `?` stop at `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileGlob(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    One(Class),
    Run(Class),
}

/// Which characters.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    Any,
    /// Not the end of a line.
    InLine,
    /// Not `/`.
    InSegment,
    Only(char),
    Set {
        is_negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Class {
    fn has(&self, c: char) -> bool {
        match self {
            Self::Any => true,
            Self::InLine => c != '\n',
            Self::InSegment => c != '/',
            Self::Only(only) => c == *only,
            Self::Set { is_negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *is_negated
            }
        }
    }
}

impl FileGlob {
    fn new(pattern: &str) -> Self {
        let of_paths = pattern.contains("**");
        let wild = || if of_paths { Class::InSegment } else { Class::Any };
        let (mut parts, mut rest) = (Vec::new(), pattern);
        while let Some(c) = rest.chars().next() {
            if let Some(behind) = rest.strip_prefix("**").filter(|_| of_paths) {
                parts.push(Part::Run(Class::InLine));
                rest = behind.strip_prefix('/').unwrap_or(behind);
                continue;
            }
            let behind = &rest[c.len_utf8()..];
            let set = if c == '[' { set(behind, of_paths) } else { None };
            rest = set.as_ref().map_or(behind, |(_, behind)| behind);
            parts.push(match (c, set) {
                (_, Some((class, _))) => Part::One(class),
                ('*', None) => Part::Run(wild()),
                ('?', None) => Part::One(wild()),
                (c, None) => Part::One(Class::Only(c)),
            });
        }
        Self(parts)
    }

    /// Over the whole text. Takes at most the product of both lengths.
    fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // Up to where the parts so far may reach.
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        for part in &self.0 {
            let mut next = vec![false; text.len() + 1];
            for at in 0..=text.len() {
                let is_before = |class: &Class| at > 0 && class.has(text[at - 1]);
                next[at] = match part {
                    Part::One(class) => is_before(class) && reached[at - 1],
                    Part::Run(class) => reached[at] || is_before(class) && next[at - 1],
                };
            }
            reached = next;
        }
        reached[text.len()]
    }
}

/// A set behind its `[`, and what comes behind it; `None`: it does not end. Among `**`, a `!` in it is one of its characters.
fn set(rest: &str, of_paths: bool) -> Option<(Class, &str)> {
    let negated = rest.strip_prefix('!').filter(|_| !of_paths);
    let inner = negated.unwrap_or(rest);
    // The first character may be the bracket itself.
    let first = inner.chars().next()?.len_utf8();
    let end = first + inner.get(first..)?.find(']')?;
    let letters: Vec<char> = inner[..end].chars().collect();
    let (mut ranges, mut at) = (Vec::new(), 0);
    while let Some(&from) = letters.get(at) {
        if let Some(['-', to]) = letters.get(at + 1..at + 3) {
            ranges.push((from, *to));
            at += 3;
        } else {
            ranges.push((from, from));
            at += 1;
        }
    }
    Some((Class::Set { is_negated: negated.is_some(), ranges }, &inner[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each case as Bernstein 3.23.0 has it.
    #[test]
    fn as_there() {
        let all: Value = serde_json::from_str(include_str!("../../../tests/vectors/bernstein.json")).unwrap();
        let cases = all["filters"].as_array().unwrap();
        assert!(cases.len() > 70);
        for case in cases {
            let filter = ToolFilter::read(case["if"].as_str().unwrap());
            match case["matches"].as_bool() {
                None => assert!(filter.is_err(), "{case}"),
                Some(expected) => {
                    let filter = filter.unwrap_or_else(|error| panic!("{case}: {error}"));
                    let event = serde_json::json!({ "data": { "event": "preToolUse", "data": case["data"] } });
                    assert_eq!(filter.matches(event.to_string().as_bytes()), expected, "{case}");
                }
            }
        }
    }
}
