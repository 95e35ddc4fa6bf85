//! Values that a target could repeat and no error text may show.

use crate::domain::template::{Piece, Text};

/// Shorter values are words that hide nothing.
const SECRET_BYTES_MIN: usize = 4;

/// The values from outside of the hooks file that these texts hold.
pub(super) fn of_texts<'a>(texts: impl Iterator<Item = &'a Text> + Clone) -> impl Iterator<Item = &'a str> + Clone {
    texts.flat_map(Text::pieces).filter_map(|piece| match piece {
        Piece::Hidden(value) => Some(value.expose().as_str()),
        Piece::Literal(_) | Piece::Unknown { .. } => None,
    })
}

/// Without those that are too short.
pub(super) fn long_enough(values: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    values.filter(|value| value.len() >= SECRET_BYTES_MIN)
}
