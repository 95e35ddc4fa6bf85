//! What no error, letter, log line or view may show, taken out of texts and of event data.
//!
//! Two nets lie one behind the other. What is known to be a secret (the values of `${env:}` and `${file:}`) goes wherever
//! it stands. What only looks like one (`token=…`, `Authorization: …`, the way and the user of a URL) goes by its shape.
//! The second is wide on purpose: a word too many is lost sooner than a secret is shown. The first knows the spellings of
//! JSON, URLs, HTML, base64 and hex: see `spelling`.

use std::fmt;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;

use super::escape::quoted;
use super::failure::ERROR_CHARS_MAX;
use super::text_error::Refusal;

mod spelling;

/// In place of what is not shown.
pub const REDACTED: &str = "[REDACTED]";
/// Shorter values are words that hide nothing: without them, no sentence would be left.
const SECRET_BYTES_MIN: usize = 4;
/// A secret of several lines or words is shown by one of them as well.
const PART_BYTES_MIN: usize = 8;

/// So much of an escape may be left behind where a text was cut off.
const CUT_BYTES_MAX: usize = 12;

/// Parts of names whose values are not shown, without `-` and `_`.
const SENSITIVE: [&str; 8] =
    ["token", "secret", "apikey", "password", "passwd", "authorization", "credential", "privatekey"];
/// Headers whose value has many words.
const TO_THE_END: [&str; 2] = ["cookie", "setcookie"];
/// Of `Authorization`: the word behind one of these is the secret.
const SCHEMES: [&str; 6] = ["bearer", "basic", "digest", "negotiate", "token", "apikey"];

/// Values that are known to be secret.
#[derive(Clone, Default)]
pub struct Secrets {
    values: Vec<String>,
    /// None: there is nothing to look for.
    finder: Option<AhoCorasick>,
    /// The same without any spelling, for what targets spell in their own way.
    plain: Vec<String>,
    plain_finder: Option<AhoCorasick>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [hidden]", self.values.len())
    }
}

impl Secrets {
    /// These, and the forms in which they travel: as parts, in URLs, in JSON.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let (values, finder) = findable(secrets.into_iter().flat_map(|secret| forms(&secret)).collect());
        let (plain, plain_finder) = findable(values.iter().map(|value| spelling::sought(value)).collect());
        Self { values, finder, plain, plain_finder }
    }

    /// The text with every one of them replaced, however it is spelled, and what is left of one that was cut off at its end.
    pub(super) fn replaced(&self, text: &str) -> String {
        let Some(finder) = &self.finder else { return text.to_owned() };
        let as_they_are = finder.find_iter(text).map(|found| (found.start(), found.end()));
        let mut shown = without(text, as_they_are.chain(self.spelled(text)).collect());
        if let Some(cut) = begun(&self.values, shown.as_bytes()) {
            shown.truncate(cut);
            shown.push_str(REDACTED);
        }
        shown
    }

    /// Where one of them stands in the text, spelled in another way.
    fn spelled(&self, text: &str) -> Vec<(usize, usize)> {
        let Some(finder) = &self.plain_finder else { return Vec::new() };
        let mut places = Vec::new();
        for view in spelling::views(text) {
            places.extend(finder.find_iter(&view.bytes).map(|found| view.place(found.range())));
            if let Some(cut) = begun(&self.plain, &view.bytes) {
                let (start, end) = view.place(cut..view.bytes.len());
                let left = if view.is_encoded() { 0 } else { CUT_BYTES_MAX };
                places.extend((text.len() - end <= left).then_some((start, text.len())));
            }
        }
        places
    }
}

/// Fit to be looked for, in order, and what finds them.
fn findable(mut values: Vec<String>) -> (Vec<String>, Option<AhoCorasick>) {
    // What stands in the mark itself would be found in it again.
    values.retain(|value| value.len() >= SECRET_BYTES_MIN && !REDACTED.contains(value.as_str()));
    values.sort_unstable();
    values.dedup();
    let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&values);
    let finder = finder.ok().filter(|_| !values.is_empty());
    (values, finder)
}

/// Where one of these values begins at the end of the text and is not whole. The values are in order.
fn begun(values: &[String], text: &[u8]) -> Option<usize> {
    let last = text.len().checked_sub(SECRET_BYTES_MIN)?;
    let longest = values.iter().map(String::len).max().unwrap_or_default();
    let first = text.len().saturating_sub(longest);
    (first..=last).find(|&start| {
        let tail = &text[start..];
        let place = values.partition_point(|value| value.as_bytes() < tail);
        values.get(place).is_some_and(|value| value.as_bytes().starts_with(tail))
    })
}

/// The text with the mark in place of what stands at these places.
fn without(text: &str, mut places: Vec<(usize, usize)>) -> String {
    places.sort_unstable();
    let (mut shown, mut end) = (String::with_capacity(text.len()), 0);
    for (start, until) in places {
        if start >= end {
            shown.push_str(text.get(end..start).unwrap_or_default());
            shown.push_str(REDACTED);
        }
        end = end.max(until);
    }
    shown.push_str(text.get(end..).unwrap_or_default());
    shown
}

fn forms(secret: &str) -> Vec<String> {
    let lines = secret.lines().map(str::trim);
    let words = secret.split_whitespace();
    let parts = lines.chain(words).filter(|part| part.len() >= PART_BYTES_MIN).map(str::to_owned);
    let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let in_json = Value::from(secret).to_string();
    let in_json = in_json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned();
    let one_line = words_of(secret).join(" ");
    let spaced = encoded.replace('+', "%20");
    [secret.to_owned(), secret.trim().to_owned(), encoded, spaced, in_json, one_line].into_iter().chain(parts).collect()
}

/// A text fit for an error: without secrets, on one line, at most [`ERROR_CHARS_MAX`] characters.
#[must_use]
pub fn redact(text: &str, secrets: &Secrets) -> String {
    redact_up_to(text, secrets, ERROR_CHARS_MAX)
}

/// The same, of a text that may have so many characters.
#[must_use]
pub fn redact_up_to(text: &str, secrets: &Secrets, chars_max: usize) -> String {
    // Line by line, as headers are; then again, since a secret may have been written with something invisible in it.
    let lines: Vec<String> = secrets.replaced(text).lines().map(shapes).collect();
    // Of a long text only the beginning is shown, and what is left out behind it need not be read again and again.
    let line: String = words_of(&lines.join("\n")).join(" ").chars().take(4 * chars_max).collect();
    let line = secrets.replaced(&shapes(&secrets.replaced(&line)));
    line.chars().take(chars_max).collect()
}

/// A text without what looks like a secret, where none is known.
#[must_use]
pub fn redact_unknown(text: &str) -> String {
    static NONE: LazyLock<Secrets> = LazyLock::new(Secrets::default);
    redact(text, &NONE)
}

/// The words of a text, without control characters and what reorders or hides what stands around it on a terminal.
fn words_of(text: &str) -> Vec<String> {
    let visible = |word: &str| word.chars().filter(|c| !is_invisible(*c)).collect::<String>();
    text.split(|c: char| c.is_whitespace() || c.is_control()).map(visible).filter(|word| !word.is_empty()).collect()
}

const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// What is still to be left out behind a name or a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Shown,
    /// A value, which may begin with the name of a scheme.
    Value,
    /// The secret behind the name of a scheme.
    Credential,
    Rest,
}

/// One line without the values of sensitive names, credentials, and the ways and users of URLs.
fn shapes(line: &str) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut next = Next::Shown;
    for word in line.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric()).to_ascii_lowercase();
        let is_scheme = SCHEMES.contains(&bare.as_str());
        next = match next {
            Next::Rest => break,
            Next::Value if bare.is_empty() => Next::Value, // signs are no value
            Next::Value if is_scheme => Next::Credential,
            Next::Value | Next::Credential => {
                if shown.last().is_none_or(|last| !last.ends_with(REDACTED)) {
                    shown.push(REDACTED.to_owned());
                }
                Next::Shown
            }
            Next::Shown => {
                let (word, after) = of_word(word);
                shown.push(word);
                // "Bearer" is said of nothing else; the other schemes are words.
                if after == Next::Shown && bare == "bearer" { Next::Credential } else { after }
            }
        };
    }
    shown.join(" ")
}

/// A word as it is shown, and what is left out behind it.
fn of_word(word: &str) -> (String, Next) {
    let word = without_ways(word);
    for (at, sign) in word.match_indices(['=', ':']) {
        let before = &word[..at];
        let name = before.trim_end_matches(['"', '\'', '\\']);
        let start = name
            .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
            .map_or(0, |at| at + name[at..].chars().next().map_or(0, char::len_utf8));
        let plain: String =
            name[start..].chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        // Our own sentences put names in backticks; and a host's name is none of a value.
        if before.ends_with('`') || name[..start].ends_with("//") {
            continue;
        }
        let to_the_end = TO_THE_END.contains(&plain.as_str());
        if to_the_end || plain == "auth" || SENSITIVE.iter().any(|part| plain.contains(part)) {
            let value = word[at + sign.len()..].trim_matches(|c: char| !c.is_alphanumeric());
            let after = match value.to_ascii_lowercase().as_str() {
                "redacted" => Next::Shown, // by an earlier reading
                _ if to_the_end => Next::Rest,
                "" => Next::Value,
                value if SCHEMES.contains(&value) => Next::Credential,
                _ => Next::Shown,
            };
            return (format!("{}={REDACTED}", &word[..at].trim_end_matches(['"', '\'', '\\'])), after);
        }
    }
    (word, Next::Shown)
}

/// Of URLs in a word, scheme, host and port only.
fn without_ways(word: &str) -> String {
    let mut shown = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let end = after.find(['"', '\'', '<', '>', '`']).unwrap_or(after.len());
        let (url, behind) = after.split_at(end);
        let authority = url.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        shown.push_str(authority.rsplit('@').next().unwrap_or_default());
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

/// A place in event data, as RFC 6901 writes it; `*` stands for every member or item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// # Errors
    /// What was expected and what was found.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        const EXPECTED: &str = "a JSON pointer into the event's data, such as /card/number or /items/*/price";
        let expected = || Refusal::new(EXPECTED, quoted(text));
        let steps = text.strip_prefix('/').ok_or_else(expected)?;
        let step = |step: &str| step.replace("~1", "/").replace("~0", "~");
        Ok(Self(steps.split('/').map(step).collect()))
    }
}

/// The data of an event with what stands at these places replaced: for views. What is stored stays whole.
#[must_use]
pub fn redact_data(data: &Value, pointers: &[Pointer]) -> Value {
    let mut shown = data.clone();
    for Pointer(steps) in pointers {
        redact_at(&mut shown, steps);
    }
    shown
}

fn redact_at(value: &mut Value, steps: &[String]) {
    let Some((step, steps)) = steps.split_first() else {
        *value = Value::from(REDACTED);
        return;
    };
    match value {
        Value::Object(map) if step == "*" => map.values_mut().for_each(|value| redact_at(value, steps)),
        Value::Object(map) => {
            if let Some(value) = map.get_mut(step) {
                redact_at(value, steps);
            }
        }
        Value::Array(items) if step == "*" => items.iter_mut().for_each(|value| redact_at(value, steps)),
        Value::Array(items) => {
            if let Some(value) = step.parse::<usize>().ok().and_then(|place| items.get_mut(place)) {
                redact_at(value, steps);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A whole event as [`redact_data`] shows its data. Where places are named, what cannot be read is not shown: nobody can
/// say where they are in it.
#[must_use]
pub fn redact_event(event: &str, pointers: &[Pointer]) -> String {
    if pointers.is_empty() {
        return event.to_owned();
    }
    match serde_json::from_str::<Value>(event) {
        // A plain message is the data itself.
        Ok(plain @ Value::Object(_)) if plain.get("specversion").is_none() => redact_data(&plain, pointers).to_string(),
        Ok(Value::Object(mut event)) => {
            if let Some(data) = event.get_mut("data") {
                *data = redact_data(data, pointers);
            }
            if let Some(data) = event.get_mut("data_base64") {
                *data = Value::from(REDACTED);
            }
            Value::from(event).to_string()
        }
        Ok(_) | Err(_) => REDACTED.to_owned(),
    }
}

#[cfg(test)]
mod tests;
