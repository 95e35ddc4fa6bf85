//! `${env:NAME}` and `${file:PATH}`: values that do not stand in the hooks file.
//!
//! No problem repeats what they stand for; names and paths are no secrets.

use std::path::Path;

use super::Outside;
use crate::domain::hook::Secret;
use crate::domain::template::Piece;
use crate::yaml;
use crate::yaml::problem::Mismatch;

/// Far above any token or key.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What a value that nobody knows here could be: a part of a name, a number, or the beginning of a URL. A text that is
/// wrong with each of them is wrong with any.
const GUESSES: [&str; 2] = ["x", "1"];
const GUESS_OF_URL: &str = "https://unknown.invalid";

/// Puts the values of variables and files into a text. A relative path starts at the folder of the process; one line
/// break at the end of a file is dropped, since editors and `echo` leave it there.
pub(super) fn resolve(text: &str, outside: &Outside<'_>) -> Result<String, Mismatch> {
    let part = |piece: &Piece| match piece {
        Piece::Literal(text) => text.clone(),
        Piece::Hidden(value) => value.expose().clone(),
    };
    Ok(pieces(text, outside)?.iter().map(part).collect())
}

/// As [`resolve`], and what came from outside is told from what stands in the text.
pub(super) fn pieces(text: &str, outside: &Outside<'_>) -> Result<Vec<Piece>, Mismatch> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else {
            return Err(Mismatch::new("`}` after `${`").found("none"));
        };
        pieces.push(Piece::Literal(before.to_owned()));
        let value = look_up(name, outside)?;
        if outside.values.is_some() {
            outside.secrets.borrow_mut().insert(value.clone());
        }
        pieces.push(Piece::Hidden(Secret::new(value)));
        rest = after;
    }
    pieces.push(Piece::Literal(rest.to_owned()));
    pieces.retain(|piece| !matches!(piece, Piece::Literal(text) if text.is_empty()));
    Ok(pieces)
}

/// What a text may stand for whose values are not known here; itself if there are none.
pub(super) fn guesses(pieces: &[Piece]) -> Vec<Vec<Piece>> {
    let is_hidden = |piece: &Piece| matches!(piece, Piece::Hidden(_));
    if !pieces.iter().any(is_hidden) {
        return vec![pieces.to_vec()];
    }
    let url = pieces.first().is_some_and(is_hidden).then_some(GUESS_OF_URL);
    let with = |guess: &str| {
        let part = |piece: &Piece| match piece {
            Piece::Literal(_) => piece.clone(),
            Piece::Hidden(_) => Piece::Hidden(Secret::new(guess.to_owned())),
        };
        pieces.iter().map(part).collect()
    };
    GUESSES.into_iter().chain(url).map(with).collect()
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
