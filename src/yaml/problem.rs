//! What is wrong with a piece of configuration: where, what was expected and what was found.

use std::fmt::{self, Write as _};
use std::ops::Range;

use crate::domain::escape;
use crate::domain::secret::Secret;
use crate::domain::text_error::Refusal;

/// More problems than this are counted only.
pub(super) const PROBLEMS_MAX: usize = 100;

/// Where a value comes from, in the words of the one who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// Nobody set it: the built-in default.
    Default,
    /// The file as a whole.
    File,
    /// Bytes of the file's text.
    Span(Range<usize>),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What would have been right.
    pub expected: String,
    /// What was there instead; the value itself if nothing is said.
    pub found: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Mismatch {
    /// The value itself is not what was expected.
    #[must_use]
    pub fn new(expected: impl Into<String>) -> Self {
        Self { expected: expected.into(), found: None, help: None }
    }

    /// Says what was found in other words than the value itself.
    #[must_use]
    pub fn found(self, found: impl Into<String>) -> Self {
        Self { found: Some(found.into()), ..self }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Names what was most likely meant, if anything comes close.
    #[must_use]
    pub fn did_you_mean<'k>(self, name: &str, known: impl IntoIterator<Item = &'k str>) -> Self {
        match nearest(name, known) {
            Some(meant) => self.help(format!("did you mean `{}`?", escape::name(meant))),
            None => self,
        }
    }

    /// From a sentence of the domain's: `expected A, found B`.
    #[must_use]
    pub fn from_sentence(sentence: &str) -> Self {
        let sentence = sentence.strip_prefix("expected ").unwrap_or(sentence);
        match sentence.split_once(", found ") {
            Some((expected, found)) => Self::new(expected).found(found),
            None => Self::new(sentence),
        }
    }
}

impl From<Refusal> for Mismatch {
    fn from(refusal: Refusal) -> Self {
        let mismatch = Self::new(refusal.expected).found(refusal.found);
        match refusal.unknown {
            Some((name, known)) => mismatch.did_you_mean(&name, known.iter().copied()),
            None => mismatch,
        }
    }
}

/// The name that was most likely meant: few letters away, in any case.
fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    const NAME_BYTES_MAX: usize = 80;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let close = known
        .into_iter()
        .filter(|known| strsim::osa_distance(&name, &known.to_ascii_lowercase()) <= (known.len() / 3).max(1));
    // Of several close names the one that begins the same was meant.
    let likeness = |known: &str| strsim::jaro_winkler(&name, &known.to_ascii_lowercase());
    close.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing that has one is used.
    Error,
    /// Most likely not meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong. The alternate form (`{:#}`) fits on a line, the normal one is laid out as a compiler would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    /// Where it is.
    pub place: Place,
    /// The way to it through the configuration, such as `hooks[2].retry.attempts`; empty at the top.
    pub path: String,
    /// What would have been right.
    pub expected: String,
    /// What was there instead. Never a secret.
    pub found: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Where a problem is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A built-in default.
    Default,
    /// A file as a whole.
    File(String),
    /// A place in a file.
    Line {
        /// As it was named.
        file: String,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What stands there.
        snippet: Snippet,
    },
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

/// A line of the source, fit for a terminal: cut to a bearable length, secrets covered with `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The line or the part of it around the problem.
    pub text: String,
    /// The same for the owner of the file: covered is only what stands where secrets do.
    pub own: Secret<String>,
    /// Characters before the problem.
    pub offset: usize,
    /// Characters of the problem.
    pub width: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return self.fmt_short(f);
        }
        f.write_str(&self.laid_out(false))
    }
}

impl Problem {
    /// As a compiler would show it. `own`: to the owner of the file.
    fn laid_out(&self, own: bool) -> String {
        let mut text = String::new();
        let _ = self.lay_out(&mut text, own); // a text takes everything
        text
    }

    fn lay_out(&self, f: &mut String, own: bool) -> fmt::Result {
        writeln!(f, "{}: expected {}, found {}", self.severity, self.expected, self.found)?;
        let path = if self.path.is_empty() { String::new() } else { format!(" ({})", self.path) };
        let margin = match &self.place {
            Place::Line { file, line, column, snippet } => {
                let margin = " ".repeat(line.to_string().len());
                let (space, mark) = (" ".repeat(snippet.offset), "^".repeat(snippet.width));
                writeln!(f, "{margin}--> {file}:{line}:{column}{path}")?;
                writeln!(f, "{margin} |")?;
                writeln!(f, "{line} | {}", if own { snippet.own.expose() } else { &snippet.text })?;
                write!(f, "{margin} | {space}{mark}")?;
                margin
            }
            place => {
                write!(f, " --> {place}{path}")?;
                " ".to_owned()
            }
        };
        match &self.help {
            Some(help) => write!(f, "\n{margin} = help: {help}"),
            None => Ok(()),
        }
    }
}

impl Problem {
    /// For the owner of the file, who may see all of it but the secrets in it.
    #[must_use]
    pub fn for_owner(&self) -> String {
        self.laid_out(true)
    }

    /// All of it on one line, with the file.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!("{}: {}", self.location(), self.reason())
    }

    /// Where it is, with the file, such as `hooks.yaml:3:5 hooks[0].on`.
    #[must_use]
    pub fn location(&self) -> String {
        match &self.place {
            Place::Line { file, .. } => format!("{file}:{}", self.place_and_path()),
            Place::Default | Place::File(_) | Place::Variable(_) | Place::Flag(_) => self.place_and_path(),
        }
    }

    /// What is wrong, without where it is.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("expected {}, found {}", self.expected, self.found)
    }

    fn place_and_path(&self) -> String {
        let space = if self.path.is_empty() { "" } else { " " };
        format!("{}{space}{}", self.place, self.path)
    }

    fn fmt_short(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place_and_path(), self.reason())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::Line { line, column, .. } => write!(f, "{line}:{column}"),
            Self::File(name) | Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Everything that is wrong, in the order of the source. Shown whole, with their number on the last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    total: usize,
}

impl Problems {
    /// These problems, out of `total` that were found.
    pub(super) fn new(list: Vec<Problem>, total: usize) -> Self {
        Self { list, total }
    }

    /// Those of several texts, one text after the other; of very many, the first.
    #[doc(hidden)]
    #[must_use]
    pub fn join(all: Vec<Self>) -> Self {
        let total = all.iter().map(|problems| problems.total).sum();
        Self { list: all.into_iter().flat_map(|problems| problems.list).take(PROBLEMS_MAX).collect(), total }
    }

    /// The problems one by one; the first hundred of them if there are more.
    #[doc(hidden)]
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }
}

impl Problems {
    /// All of them for the owner of the files, who may see all of these but the secrets in them.
    #[doc(hidden)]
    #[must_use]
    pub fn for_owner(&self) -> String {
        self.laid_out(true)
    }

    fn laid_out(&self, own: bool) -> String {
        let problems: String = self.list.iter().map(|problem| problem.laid_out(own) + "\n\n").collect();
        let count = match (self.total, self.list.len()) {
            (1, _) => "1 problem".to_owned(),
            (total, shown) if shown < total => format!("{total} problems, {shown} of them shown"),
            (total, _) => format!("{total} problems"),
        };
        problems + &count
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.laid_out(false))
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_meant() {
        let check = |name: &str, expected: Option<&str>| {
            let known = ["id", "on", "run", "broker", "worker", "timeout", "retry", "concurrency", "give_up_after"];
            assert_eq!(nearest(name, known), expected, "{name}");
        };
        check("tiemout", Some("timeout"));
        check("Timeout", Some("timeout"));
        check("TIMEOUT", Some("timeout"));
        check("wroker", Some("worker"));
        check("no", Some("on"));
        check("retries", None); // three away: no guess is better than a wrong one
        check("giveup_after", Some("give_up_after"));
        check("when", None);
        check(&"x".repeat(10_000), None);
    }
}
