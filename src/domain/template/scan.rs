//! A look at a template's text before it is compiled: where its tags are, and what they use.

use super::Piece;
use crate::domain::escape;
use crate::domain::text_error::Refusal;

const FILTERS: [&str; 9] = ["tojson", "upper", "lower", "trim", "length", "default", "first", "last", "join"];
const TESTS: [&str; 8] = ["defined", "undefined", "none", "string", "number", "mapping", "sequence", "not"];
/// No `set`: what doubles a text again and again would have no bound.
const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];
const OPENINGS: [(&str, &str); 3] = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")];

/// Whether any literal piece has a tag.
pub(super) fn is_template(pieces: &[Piece]) -> bool {
    pieces.iter().any(|piece| matches!(piece, Piece::Literal(text) if first(text).is_some()))
}

/// Where the first tag of a text begins.
pub(super) fn first(text: &str) -> Option<usize> {
    OPENINGS.iter().filter_map(|(opening, _)| text.find(opening)).min()
}

/// Checks every tag. One that is not closed is the compiler's to find, unless something hidden stands in it.
pub(super) fn check(pieces: &[Piece]) -> Result<(), Refusal> {
    let mut open = None;
    for piece in pieces {
        match piece {
            Piece::Hidden(_) | Piece::Unknown { .. } if open.is_some() => {
                return Err(Refusal::new("`${...}` outside of `{{ }}` and `{% %}`", "one inside"));
            }
            Piece::Hidden(_) | Piece::Unknown { .. } => {}
            Piece::Literal(text) => open = literal(text)?,
        }
    }
    Ok(())
}

/// Answers which tag is still open at the end.
fn literal(text: &str) -> Result<Option<&'static str>, Refusal> {
    let mut rest = text;
    while let Some(begin) = first(rest) {
        let (opening, closing) =
            OPENINGS.iter().find(|(it, _)| rest[begin..].starts_with(it)).copied().unwrap_or_default();
        let inside = &rest[begin + opening.len()..];
        let Some(end) = end(inside, closing) else { return Ok(Some(opening)) };
        if opening != "{#" {
            tag(&inside[..end], opening == "{%")?;
        }
        rest = &inside[end + closing.len()..];
    }
    Ok(None)
}

/// Where a tag ends: quotes may hold what looks like its end.
fn end(inside: &str, closing: &str) -> Option<usize> {
    if closing == "#}" {
        return inside.find(closing);
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(mark) if mark == c => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if inside[at..].starts_with(closing) => return Some(at),
            Some(_) | None => {}
        }
    }
    None
}

/// A tag's statement, filters and tests: the compiler does not look at their names.
fn tag(inside: &str, is_statement: bool) -> Result<(), Refusal> {
    let bare = without_texts(inside);
    let words: Vec<&str> = words(&bare).collect();
    if is_statement {
        let statement = words.first().copied().unwrap_or_default();
        if !STATEMENTS.contains(&statement) {
            return Err(unknown("statements that exist", statement, &STATEMENTS));
        }
    }
    if bare.contains('*') {
        // A text or a list times a number of the event's would have no bound.
        return Err(Refusal::new("a template without `*`", "one"));
    }
    if words.contains(&super::HIDDEN) {
        return Err(Refusal::new(
            "another name",
            format!("`{}`, which stands for what is not in the file", super::HIDDEN),
        ));
    }
    for pair in words.windows(2) {
        match pair {
            ["|", name] if !FILTERS.contains(name) => return Err(unknown("filters that exist", name, &FILTERS)),
            ["is", name] if !TESTS.contains(name) => return Err(unknown("tests that exist", name, &TESTS)),
            _ => {}
        }
    }
    Ok(())
}

fn unknown(expected: &str, name: &str, known: &'static [&'static str]) -> Refusal {
    let found = format!("`{}`", escape::name(name));
    let expected = format!("{expected} ({})", known.join(", "));
    Refusal { unknown: Some((name.to_owned(), known)), ..Refusal::new(expected, found) }
}

/// The same with nothing between quotes.
fn without_texts(inside: &str) -> String {
    let (mut bare, mut quote, mut escaped) = (String::new(), None, false);
    for c in inside.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(mark) if mark == c => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None => bare.push(c),
        }
    }
    bare
}

/// Names, and bars by themselves.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(|c: char| !is_name(c)).flat_map(|part| {
        let name = part.trim_end_matches(|c| !is_name(c));
        let mark = &part[name.len()..];
        [name, mark].into_iter().filter(|word| !word.is_empty() && (word.contains('|') || word.chars().all(is_name)))
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}
