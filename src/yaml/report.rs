//! Collects the problems of one source text while it is read.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::iter;
use std::ops::Range;

use super::problem::{At, Mismatch, PROBLEMS_MAX, Place, Problem, Problems, Severity, Snippet};
use crate::domain::escape;
use crate::domain::secret::Secret;

/// Longest piece of a line that is shown.
const SNIPPET_CHARS_MAX: usize = 140;

/// The problems of one text, those of the environment and of flags beside it.
#[derive(Debug)]
pub struct Report<'t> {
    file: &'t str,
    text: &'t str,
    /// Where each line begins.
    lines: Vec<usize>,
    drafts: RefCell<Vec<Draft>>,
    total: Cell<usize>,
    hidden: RefCell<Vec<Hidden>>,
}

/// A piece of the text that is covered.
#[derive(Debug)]
struct Hidden {
    span: Range<usize>,
    /// It is where a secret stands. Any other piece could only hold one.
    is_secret: bool,
}

/// A problem before all secrets around it are known.
#[derive(Debug)]
struct Draft {
    severity: Severity,
    at: At,
    path: String,
    mismatch: Mismatch,
}

impl<'t> Report<'t> {
    /// `file` is the name to show. A byte order mark is no part of the text.
    #[must_use]
    pub fn new(file: &'t str, text: &'t str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // As YAML has them: an old Mac's too.
        let is_break = |(at, byte): &(usize, u8)| *byte == b'\n' || *byte == b'\r' && !text[at + 1..].starts_with('\n');
        let breaks = text.bytes().enumerate().filter(is_break);
        let lines = iter::once(0).chain(breaks.map(|(end, _)| end + 1)).collect();
        Self { file, text, lines, drafts: RefCell::default(), total: Cell::new(0), hidden: RefCell::default() }
    }

    /// The text that is reported on.
    #[must_use]
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// The name of the file.
    #[must_use]
    pub fn file(&self) -> &'t str {
        self.file
    }

    /// The number of the line that `at` is on.
    #[must_use]
    pub fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|&start| start <= at)
    }

    /// Adds a problem.
    pub fn push(&self, at: At, path: &str, mismatch: Mismatch) {
        self.total.set(self.total.get() + 1);
        self.draft(Severity::Error, at, path, mismatch);
    }

    /// Adds what is not wrong and most likely not meant.
    pub fn warn(&self, at: At, path: &str, mismatch: Mismatch) {
        self.draft(Severity::Warning, at, path, mismatch);
    }

    fn draft(&self, severity: Severity, at: At, path: &str, mismatch: Mismatch) {
        let mut drafts = self.drafts.borrow_mut();
        if drafts.len() < PROBLEMS_MAX {
            drafts.push(Draft { severity, at, path: escape::path(path), mismatch });
        }
    }

    /// Adds the problem of a name that does not exist.
    pub fn unknown(&self, at: At, path: &str, name: &str, known: &[&str]) {
        let listed: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
        let expected = match listed.as_slice() {
            [one] => one.clone(),
            all => format!("one of {}", all.join(", ")),
        };
        let mismatch = Mismatch::new(expected).found(format!("`{}`", escape::name(name)));
        self.push(at, path, mismatch.did_you_mean(name, known.iter().copied()));
    }

    /// Whether anything is wrong so far.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.total.get() == 0
    }

    /// Whether more problems are counted only: what they would say need not be worked out.
    pub(super) fn is_full(&self) -> bool {
        self.drafts.borrow().len() >= PROBLEMS_MAX
    }

    /// Covers a secret wherever it would be shown.
    pub fn hide(&self, span: Range<usize>) {
        self.hidden.borrow_mut().push(Hidden { span, is_secret: true });
    }

    /// Covers a piece of the text that could hold a secret, wherever others than its owner would see it.
    pub fn hide_from_others(&self, span: Range<usize>) {
        self.hidden.borrow_mut().push(Hidden { span, is_secret: false });
    }

    /// Covers the words of every line that a problem shows, after its first key. For text that cannot be parsed, so that
    /// nobody can say which of them is a secret.
    pub(super) fn hide_words(&self) {
        for line in self.lines_shown() {
            let first = self.text[line.clone()].find(": ").unwrap_or_default();
            self.hide_words_of(line.start + first..line.end);
        }
    }

    /// Covers what may be a comment: the secret of yesterday.
    fn hide_comments(&self) {
        for line in self.lines_shown() {
            let text = &self.text[line.clone()];
            let begins = |at: &usize| text[..*at].chars().next_back().is_none_or(char::is_whitespace);
            if let Some(comment) = text.match_indices('#').map(|(at, _)| at).find(begins) {
                self.hide_words_of(line.start + comment..line.end);
            }
        }
    }

    /// The lines that problems show, each once: one may be as long as the file.
    fn lines_shown(&self) -> impl Iterator<Item = Range<usize>> {
        let drafts = self.drafts.borrow();
        let shown = drafts.iter().filter_map(|draft| match &draft.at {
            At::Span(span) => Some(self.line_around(span.start)),
            _ => None,
        });
        shown.map(|line| (line.start, line)).collect::<HashMap<_, _>>().into_values()
    }

    fn hide_words_of(&self, piece: Range<usize>) {
        let mut at = piece.start;
        for word in self.text[piece].split_inclusive(|c: char| !c.is_alphanumeric()) {
            let letters = word.trim_end_matches(|c: char| !c.is_alphanumeric()).len();
            if letters > 0 {
                self.hide_from_others(at..at + letters);
            }
            at += word.len();
        }
    }

    /// What was read, or everything that is wrong with it.
    pub fn into_result<T>(self, read: Option<T>) -> Result<T, Problems> {
        self.into_checked(read).map(|(read, _)| read)
    }

    /// What was read and what to warn of, or everything that is wrong with it.
    pub fn into_checked<T>(self, read: Option<T>) -> Result<(T, Vec<Problem>), Problems> {
        let total = self.total.get();
        self.hide_comments();
        let mut drafts = self.drafts.take();
        drafts.sort_by_key(|draft| rank(&draft.at));
        let list = drafts.into_iter().map(|draft| self.problem(draft)).collect();
        match read {
            Some(read) if total == 0 => Ok((read, list)),
            _ => Err(Problems::new(list, total)),
        }
    }

    fn problem(&self, Draft { severity, at, path, mismatch }: Draft) -> Problem {
        let place = match at {
            At::Default => Place::Default,
            At::File => Place::File(self.file.to_owned()),
            At::Span(span) => self.place(&span),
            At::Variable(name) => Place::Variable(name),
            At::Flag(name) => Place::Flag(name),
        };
        let Mismatch { expected, found, help } = mismatch;
        Problem { severity, place, path, expected, found: found.unwrap_or_else(|| "something else".to_owned()), help }
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let around = self.line_around(span.start);
        let column = self.text[around.start..span.start].chars().count() + 1;
        let snippet = self.snippet(&around, span);
        Place::Line { file: self.file.to_owned(), line: self.line(span.start), column, snippet }
    }

    /// The bytes of the line that `at` is on, without its end.
    fn line_around(&self, at: usize) -> Range<usize> {
        let line = self.line(at);
        let start = self.lines[line - 1]; // the first line begins at 0, so there is one
        let end = self.lines.get(line).map_or(self.text.len(), |next| next - 1);
        start..start + self.text[start..end].trim_end().len().max(at - start)
    }

    fn snippet(&self, line: &Range<usize>, span: &Range<usize>) -> Snippet {
        // Only what is around the mark is looked at: a line may be as long as the file and have every problem on it.
        let marked = self.text[span.start..span.end.clamp(span.start, line.end)].chars();
        let marked = marked.take(SNIPPET_CHARS_MAX).count();
        let whole = self.text[line.clone()].chars().nth(SNIPPET_CHARS_MAX).is_none();
        let before = self.text[line.start..span.start].char_indices().rev().take(SNIPPET_CHARS_MAX / 3);
        let cut = if whole { line.start } else { before.last().map_or(span.start, |(at, _)| line.start + at) };
        let text = self.covered(cut..line.end, |_| true);
        let own = Secret::new(self.covered(cut..line.end, |hidden| hidden.is_secret));
        let offset = self.text[cut..span.start].chars().count();
        Snippet { text, own, offset, width: marked.min(SNIPPET_CHARS_MAX.saturating_sub(offset)).max(1) }
    }

    /// A piece of a line, fit to be shown: some of what is hidden is covered.
    fn covered(&self, piece: Range<usize>, is_covered: impl Fn(&Hidden) -> bool) -> String {
        let start = piece.start;
        let piece = self.text[piece].char_indices().map(|(index, c)| (start + index, c));
        let piece: Vec<(usize, char)> = piece.take(SNIPPET_CHARS_MAX).collect();
        let (Some((start, _)), Some((end, _))) = (piece.first(), piece.last()) else { return String::new() };
        let hidden = self.hidden.borrow();
        let hidden = hidden.iter().filter(|hidden| is_covered(hidden)).map(|hidden| &hidden.span);
        let hidden: Vec<_> = hidden.filter(|hidden| hidden.start <= *end && hidden.end > *start).collect();
        let show = |(index, c): (usize, char)| match c {
            _ if hidden.iter().any(|hidden| hidden.contains(&index)) => '*',
            c if c.is_control() => ' ', // a tab too, for the marks to stay below what they mark
            c => c,
        };
        piece.into_iter().map(show).collect()
    }
}

/// The order of problems: those of the file by line, then the environment, then flags.
fn rank(at: &At) -> (u8, usize) {
    match at {
        At::Default | At::File => (0, 0),
        At::Span(span) => (1, span.start),
        At::Variable(_) => (2, 0),
        At::Flag(_) => (3, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(report: Report<'_>, expected: &str) {
        assert_eq!(report.into_result::<()>(None).unwrap_err().to_string(), expected);
    }

    #[test]
    fn problems_look_like_a_compilers() {
        let text = "version: 1\nhooks:\n  - id: a\n    timeout: 10 parsecs  \n    url: https://user:secret@host\n";
        let report = Report::new("config/hooks.yaml", text);
        let secret = text.find("https").unwrap();
        report.hide(secret..secret + "https://user:secret@host".len());
        report.push(At::Variable("HOOKFLEET_LOG".into()), "log.level", Mismatch::new("a filter").found("\"x\""));
        report.push(At::Span(secret..secret + 5), "hooks[0].url", Mismatch::new("a URL").found("none").help("ask"));
        let timeout = text.find("10 p").unwrap();
        let found = Mismatch::new("a duration").found("\"10 parsecs\"");
        report.push(At::Span(timeout..timeout + 10), "hooks[0].timeout", found);
        report.push(At::File, "", Mismatch::new("a file").found("a folder"));
        check(
            report,
            "\
error: expected a file, found a folder
 --> config/hooks.yaml

error: expected a duration, found \"10 parsecs\"
 --> config/hooks.yaml:4:14 (hooks[0].timeout)
  |
4 |     timeout: 10 parsecs
  |              ^^^^^^^^^^

error: expected a URL, found none
 --> config/hooks.yaml:5:10 (hooks[0].url)
  |
5 |     url: ************************
  |          ^^^^^
  = help: ask

error: expected a filter, found \"x\"
 --> HOOKFLEET_LOG (log.level)

4 problems",
        );
    }

    #[test]
    fn snippets_are_bounded() {
        let check = |text: &str, span: Range<usize>, shown: &str, offset: usize, width: usize| {
            let report = Report::new("t", text);
            report.push(At::Span(span), "", Mismatch::new("x"));
            let Place::Line { snippet, .. } = report.into_result::<()>(None).unwrap_err().list()[0].place.clone()
            else {
                panic!("no line")
            };
            assert_eq!((snippet.text.as_str(), snippet.offset, snippet.width), (shown, offset, width));
        };
        check("a: [1,\n2]", 3..9, "a: [1,", 3, 3); // to the end of the line
        check("a: b\r\n", 5..5, "a: b ", 5, 1);
        check("a: b\n", 5..5, "", 0, 1); // after the end
        check("\tä: b", 5..6, " ä: b", 4, 1);
        let long = format!("{}!{}", "x".repeat(1000), "y".repeat(1000));
        check(&long, 1000..1001, &format!("{}!{}", "x".repeat(46), "y".repeat(93)), 46, 1);
        check(&long, 0..2001, &"x".repeat(140), 0, 140);
    }

    #[test]
    fn there_is_an_end_to_problems() {
        let report = Report::new("t", "");
        for _ in 0..1000 {
            report.push(At::File, "", Mismatch::new("x"));
        }
        let problems = report.into_result::<()>(None).unwrap_err();
        assert_eq!(problems.list().len(), PROBLEMS_MAX);
        assert!(problems.to_string().ends_with("1000 problems, 100 of them shown"));
    }
}
