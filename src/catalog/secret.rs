//! `${env:NAME}` and `${file:PATH}`: values that do not stand in the hooks file.
//!
//! No problem repeats what they stand for; names and paths are no secrets.

use std::path::Path;

use super::Outside;
use crate::yaml;
use crate::yaml::problem::Mismatch;

/// Far above any token or key.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What a value that nobody knows here could be: a part of a name, a number, or the beginning of a URL. A text that is
/// wrong with each of them is wrong with any.
const GUESSES: [&str; 2] = ["x", "1"];
const GUESS_OF_URL: &str = "https://unknown.invalid";

/// Parses what a text stands for. Where that is not known here, `unknown` goes on in its place, unless the text is wrong
/// whatever it stands for.
pub(super) fn resolve_with<T>(
    text: &str,
    outside: &Outside<'_>,
    parse: impl Fn(&str) -> Result<T, Mismatch>,
    unknown: impl Fn(&str) -> Option<T>,
) -> Result<T, Mismatch> {
    let resolved = resolve(text, outside)?;
    if outside.values.is_some() || !resolved.contains("${") {
        return parse(&resolved);
    }
    let mut wrong = None;
    for guess in GUESSES.into_iter().chain(text.starts_with("${").then_some(GUESS_OF_URL)) {
        let guessed = replace(text, |_| Ok(guess.to_owned()))?;
        match parse(&guessed) {
            Ok(parsed) => return Ok(unknown(text).unwrap_or(parsed)),
            Err(mismatch) => wrong = wrong.or(Some(mismatch)),
        }
    }
    wrong.map_or_else(|| parse(&resolved), Err)
}

/// Puts the values of variables and files into a text. A relative path starts at the folder of the process; one line
/// break at the end of a file is dropped, since editors and `echo` leave it there.
pub(super) fn resolve(text: &str, outside: &Outside<'_>) -> Result<String, Mismatch> {
    replace(text, |name| look_up(name, outside))
}

fn replace(text: &str, value: impl Fn(&str) -> Result<String, Mismatch>) -> Result<String, Mismatch> {
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else {
            return Err(Mismatch::new("`}` after `${`").found("none"));
        };
        resolved.push_str(before);
        resolved.push_str(&value(name)?);
        rest = after;
    }
    resolved.push_str(rest);
    Ok(resolved)
}

fn look_up(name: &str, outside: &Outside<'_>) -> Result<String, Mismatch> {
    match name.split_once(':') {
        Some(("env" | "file", _)) if outside.values.is_none() => Ok(format!("${{{name}}}")),
        Some(("env", name)) => {
            let unset = || format!("`{}`, which is not set", name.escape_debug());
            let value = outside.values.and_then(|values| values(name));
            value.ok_or_else(|| Mismatch::new("an environment variable that is set").found(unset()))
        }
        Some(("file", path)) => {
            outside.files.borrow_mut().insert(path.into());
            let mut content = yaml::read_file(Path::new(path), FILE_BYTES_MAX).map_err(|mismatch| {
                let found = mismatch.found.unwrap_or_default();
                Mismatch { found: Some(format!("{found} at `{}`", path.escape_debug())), ..mismatch }
            })?;
            let line = content.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).len());
            content.truncate(line.unwrap_or(content.len()));
            Ok(content)
        }
        _ => Err(Mismatch::new("`${env:NAME}` or `${file:PATH}`").found("another `${...}`")),
    }
}
