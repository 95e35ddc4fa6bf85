//! `${env:NAME}` and `${file:PATH}`: values that do not stand in the hooks file.
//!
//! No problem repeats what they stand for; names and paths are no secrets.

use std::path::Path;

use super::{Outside, Values};
use crate::domain::secret::Secret;
use crate::domain::template::Piece;
use crate::yaml;
use crate::yaml::problem::Mismatch;

/// Far above any token or key.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What a value that nobody knows here could be: a part of a name, or a number.
const GUESSES: [&str; 2] = ["x", "1"];

/// Puts the values of variables and files into a text; one that is not known here stays as it is written. A relative path starts at the folder of the process; one line
/// break at the end of a file is dropped, since editors and `echo` leave it there.
pub(super) fn resolve(text: &str, outside: &Outside<'_>) -> Result<String, Mismatch> {
    let part = |piece: Piece| match piece {
        Piece::Unknown { written, .. } => written,
        Piece::Literal(_) | Piece::Hidden(_) => piece.value().to_owned(),
    };
    Ok(pieces(text, outside)?.into_iter().map(part).collect())
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
        let piece = look_up(name, outside)?;
        if let Piece::Hidden(value) = &piece {
            outside.secrets.borrow_mut().insert(value.expose().clone());
        }
        pieces.push(piece);
        rest = after;
    }
    pieces.push(Piece::Literal(rest.to_owned()));
    pieces.retain(|piece| !matches!(piece, Piece::Literal(text) if text.is_empty()));
    Ok(pieces)
}

/// What stands in the file, hidden as what does not.
pub(super) fn hidden(piece: &Piece) -> Piece {
    match piece {
        Piece::Literal(text) => Piece::Hidden(Secret::new(text.clone())),
        Piece::Hidden(_) | Piece::Unknown { .. } => piece.clone(),
    }
}

/// What a text stands for, if all of its values are known to this process.
pub(super) fn known(text: &str, outside: &Outside<'_>) -> Result<Option<String>, Mismatch> {
    let pieces = pieces(text, outside)?;
    let is_known = !pieces.iter().any(|piece| matches!(piece, Piece::Unknown { .. }));
    Ok(is_known.then(|| pieces.iter().map(Piece::value).collect()))
}

/// Reads a URL. Where a value is not known here another goes on in its place (`beginning`, where it is the first of all),
/// unless the URL is wrong whatever that is.
pub(super) fn guessed<T>(
    pieces: &[Piece],
    beginning: &'static str,
    read: impl Fn(Vec<Piece>) -> Result<T, Mismatch>,
) -> Result<T, Mismatch> {
    let is_unknown = |piece: &Piece| matches!(piece, Piece::Unknown { .. });
    if !pieces.iter().any(is_unknown) {
        return read(pieces.to_vec());
    }
    let with = |guess| {
        let part = |piece: &Piece| match piece {
            Piece::Literal(_) | Piece::Hidden(_) => piece.clone(),
            Piece::Unknown { written, .. } => Piece::Unknown { written: written.clone(), guess },
        };
        read(pieces.iter().map(part).collect())
    };
    let url = pieces.first().is_some_and(is_unknown).then_some(beginning);
    let first = with(GUESSES[0]);
    let others = GUESSES[1..].iter().copied().chain(url);
    others.fold(first, |found, guess| found.or_else(|wrong| with(guess).map_err(|_| wrong)))
}

fn look_up(name: &str, outside: &Outside<'_>) -> Result<Piece, Mismatch> {
    let unknown = || Piece::Unknown { written: format!("${{{name}}}"), guess: GUESSES[0] };
    let found = match (name.split_once(':'), outside.values) {
        (Some(("env" | "file", _)), Values::Elsewhere) => return Ok(unknown()),
        (Some(("env", name)), Values::Here(values) | Values::PartlyHere(values)) => {
            let unset = || format!("`{}`, which is not set", name.escape_debug());
            values(name).ok_or_else(|| Mismatch::new("an environment variable that is set").found(unset()))
        }
        (Some(("file", path)), Values::Here(_) | Values::PartlyHere(_)) => {
            outside.files.borrow_mut().insert(path.into());
            content(path)
        }
        _ => return Err(Mismatch::new("`${env:NAME}` or `${file:PATH}`").found("another `${...}`")),
    };
    match found {
        Ok(value) => Ok(Piece::Hidden(Secret::new(value))),
        Err(_) if matches!(outside.values, Values::PartlyHere(_)) => Ok(unknown()),
        Err(mismatch) => Err(mismatch),
    }
}

fn content(path: &str) -> Result<String, Mismatch> {
    let mut content = yaml::read_file(Path::new(path), FILE_BYTES_MAX).map_err(|mismatch| {
        let found = mismatch.found.unwrap_or_default();
        Mismatch { found: Some(format!("{found} at `{}`", path.escape_debug())), ..mismatch }
    })?;
    let line = content.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).len());
    content.truncate(line.unwrap_or(content.len()));
    Ok(content)
}
