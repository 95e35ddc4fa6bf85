//! Other spellings of a text, taken back: what JSON, programming languages, URLs, HTML and base64 make of it.
//!
//! A text is brought into one canonical form, of which each byte knows where it came from. Spellings may lie in one another
//! (JSON in JSON, percent-encoded base64), so they are taken back until nothing changes, up to a bound. A comparison
//! brings both sides into this form. What a decoder makes of a text that was never encoded is then the same on both.
//!
//! Time and memory grow with the length of the text and with nothing else.

use std::ops::Range;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::is_invisible;

/// Spellings that lie in one another, at the most.
const LAYERS_MAX: usize = 8;
/// Encodings as base64 or hex that lie in one another, at the most.
const ENCODINGS_MAX: usize = 2;
/// Shorter words are no encoded secret.
const ENCODED_BYTES_MIN: usize = 6;
/// Shorter beginnings of secrets are not looked for on their own.
const CUT_BYTES_MIN: usize = 8;
/// The longest name of a character in HTML here, with its signs.
const ENTITY_BYTES_MAX: usize = 10;
/// The names of characters in HTML from U+00A0 on, in order.
const LATIN: &str = "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn sup2 sup3 \
    acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave Aacute Acirc Atilde Auml Aring AElig \
    Ccedil Egrave Eacute Ecirc Euml Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash \
    Ugrave Uacute Ucirc Uuml Yacute THORN szlig agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc euml \
    igrave iacute icirc iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml yacute thorn \
    yuml";
/// Others that programs write.
const NAMED: [(&str, char); 12] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("sol", '/'),
    ("plus", '+'),
    ("equals", '='),
    ("euro", '€'),
    ("colon", ':'),
    ("num", '#'),
    ("commat", '@'),
];
/// Words may be cut off, and so end anywhere.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// A text of which it is known where it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Traced {
    pub(super) bytes: Vec<u8>,
    /// For each byte its place in the first text; empty if all have one.
    places: Vec<(usize, usize)>,
    /// The one place of all bytes.
    whole: Option<(usize, usize)>,
}

impl Traced {
    fn of(text: &str) -> Self {
        let places = (0..text.len()).map(|at| (at, at + 1)).collect();
        Self { bytes: text.as_bytes().to_vec(), places, whole: None }
    }

    fn like(other: &Self) -> Self {
        Self { whole: other.whole, ..Self::default() }
    }

    /// Whether all of it came from one word.
    pub(super) const fn is_encoded(&self) -> bool {
        self.whole.is_some()
    }

    /// Where these of its bytes came from.
    pub(super) fn place(&self, range: Range<usize>) -> (usize, usize) {
        match (self.whole, self.places.get(range)) {
            (Some(whole), _) => whole,
            (None, Some([one])) => *one,
            (None, Some([first, .., last])) => (first.0, last.1),
            (None, _) => (0, 0),
        }
    }

    fn push(&mut self, bytes: &[u8], place: (usize, usize)) {
        self.bytes.extend_from_slice(bytes);
        if self.whole.is_none() {
            self.places.resize(self.bytes.len(), place);
        }
    }

    fn push_char(&mut self, c: char, place: (usize, usize)) {
        self.push(c.encode_utf8(&mut [0; 4]).as_bytes(), place);
    }
}

/// The forms in which to look for a secret: the text's own, and those of what is encoded in it.
pub(super) fn views(text: &str) -> Vec<Traced> {
    let mut views = Vec::new();
    let mut layer = vec![unspelled(Traced::of(text))];
    for depth in 0..=ENCODINGS_MAX {
        let inner = if depth < ENCODINGS_MAX { layer.iter().flat_map(decodings).collect() } else { Vec::new() };
        views.extend(layer.iter().map(canonical));
        layer = inner;
    }
    views
}

/// The form of a secret that is looked for in [`views`].
pub(super) fn sought(secret: &str) -> String {
    let plain = |secret: &str| {
        let plain = canonical(&unspelled(Traced::of(secret)));
        String::from_utf8_lossy(plain.bytes.trim_ascii()).into_owned()
    };
    // What may be the beginning of an escape is left out at its end: the text behind it may go on with it. Unless so little
    // is left that it would be found in words.
    match plain(secret) {
        cut if cut.len() < CUT_BYTES_MIN => plain(&format!("{secret} ")).trim_end_matches('\\').to_owned(),
        cut => cut,
    }
}

/// The text with everything taken back that is spelled by escapes. It may end in the middle of one.
fn unspelled(mut text: Traced) -> Traced {
    for _ in 0..LAYERS_MAX {
        match unescaped(&text) {
            Some(plainer) => text = plainer,
            None => break,
        }
    }
    text
}

/// What an escape stands for.
enum Escape {
    /// Of a text in UTF-8, or of Latin-1 where neighbours of the kind are no UTF-8.
    Byte(u8),
    Char(char),
    /// Half of a pair of UTF-16.
    High(u16),
}

/// The text with one layer of escapes removed, or `None` if it has no escapes.
fn unescaped(text: &Traced) -> Option<Traced> {
    let bytes = &text.bytes;
    bytes.iter().find(|byte| matches!(byte, b'%' | b'\\' | b'&'))?;
    let (mut plain, mut at, mut changed) = (Traced::like(text), 0, false);
    while at < bytes.len() {
        let Some((escape, length)) = escape(&bytes[at..]) else {
            if begins_escape(&bytes[at..]) {
                changed = true;
                break;
            }
            plain.push(&bytes[at..=at], text.place(at..at + 1));
            at += 1;
            continue;
        };
        changed = true;
        match escape {
            Escape::Char(c) => plain.push_char(c, text.place(at..at + length)),
            Escape::High(high) => {
                let low = escape_of_low(&bytes[at + length..]);
                let pair = low.and_then(|(low, more)| Some((joined(high, low)?, more)));
                let (c, more) = pair.unwrap_or((char::REPLACEMENT_CHARACTER, 0));
                plain.push_char(c, text.place(at..at + length + more));
                at += more;
            }
            Escape::Byte(_) => {
                at = push_run(text, at, &mut plain);
                continue;
            }
        }
        at += length;
    }
    changed.then_some(plain)
}

/// Takes back a run of escaped bytes; answers where it ends.
fn push_run(text: &Traced, start: usize, plain: &mut Traced) -> usize {
    let (mut run, mut places, mut at) = (Vec::new(), Vec::new(), start);
    while let Some((Escape::Byte(byte), length)) = escape(&text.bytes[at..]) {
        run.push(byte);
        places.push(text.place(at..at + length));
        at += length;
    }
    // A character may be cut off with the text.
    let may_go_on = at == text.bytes.len();
    let is_latin = std::str::from_utf8(&run).is_err_and(|error| error.error_len().is_some() || !may_go_on);
    for (byte, place) in run.into_iter().zip(places) {
        if is_latin { plain.push_char(char::from(byte), place) } else { plain.push(&[byte], place) }
    }
    at
}

/// The escape that a text begins with, and how long it is.
fn escape(text: &[u8]) -> Option<(Escape, usize)> {
    match text {
        [b'%', b'u' | b'U', rest @ ..] => Some((utf16(hex(rest, 4)?), 6)),
        [b'%', rest @ ..] => Some((Escape::Byte(u8::try_from(hex(rest, 2)?).ok()?), 3)),
        [b'&', rest @ ..] => entity(rest).map(|(c, length)| (Escape::Char(c), length + 1)),
        [b'\\', b'u', b'{', rest @ ..] => {
            let digits = rest.iter().take(7).position(|byte| *byte == b'}')?;
            Some((Escape::Char(char::from_u32(hex(rest, digits)?)?), digits + 4))
        }
        [b'\\', b'u', rest @ ..] => Some((utf16(hex(rest, 4)?), 6)),
        [b'\\', b'U', rest @ ..] => Some((Escape::Char(char::from_u32(hex(rest, 8)?)?), 10)),
        [b'\\', b'x', rest @ ..] => Some((Escape::Byte(u8::try_from(hex(rest, 2)?).ok()?), 4)),
        [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
            Some((Escape::Byte((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0')), 4))
        }
        [b'\\', b'n' | b'r' | b't' | b'b' | b'f' | b'v' | b'a', ..] => Some((Escape::Char(' '), 2)),
        // Not `%` and `&`: what those begin would be taken back before it, or behind it, by the number of layers.
        [b'\\', sign @ (b'\\' | b'"' | b'/' | b'\'' | b'`'), ..] => Some((Escape::Char(char::from(*sign)), 2)),
        _ => None,
    }
}

/// Whether the whole rest may be an escape that was cut off.
fn begins_escape(rest: &[u8]) -> bool {
    let Some((sign, more)) = rest.split_first() else { return false };
    let first = more.first().copied();
    let (is_begun, length_max) = match sign {
        b'%' => (first.is_none_or(|first| first == b'u' || first.is_ascii_hexdigit()), 4),
        b'\\' => (first.is_none_or(|first| matches!(first, b'u' | b'x' | b'U' | b'0'..=b'3')), 8),
        b'&' => (first.is_none_or(|first| first == b'#' || first.is_ascii_alphabetic()), ENTITY_BYTES_MAX),
        _ => (false, 0),
    };
    is_begun && more.len() <= length_max && more.iter().skip(1).all(u8::is_ascii_alphanumeric)
}

fn utf16(unit: u32) -> Escape {
    let unit = u16::try_from(unit).unwrap_or_default();
    match char::from_u32(u32::from(unit)) {
        Some(c) => Escape::Char(c),
        None if unit < 0xdc00 => Escape::High(unit),
        None => Escape::Char(char::REPLACEMENT_CHARACTER),
    }
}

fn escape_of_low(text: &[u8]) -> Option<(u16, usize)> {
    match text {
        [b'\\' | b'%', b'u', rest @ ..] => Some((u16::try_from(hex(rest, 4)?).ok()?, 6)),
        _ => None,
    }
}

fn joined(high: u16, low: u16) -> Option<char> {
    char::decode_utf16([high, low]).next()?.ok()
}

fn hex(text: &[u8], digits: usize) -> Option<u32> {
    let text = text.get(..digits).filter(|text| !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

/// The character of an entity behind its sign, and how long it is.
fn entity(text: &[u8]) -> Option<(char, usize)> {
    let end = text.iter().take(ENTITY_BYTES_MAX).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(&text[..end]).ok()?;
    let c = match name.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => hex(digits.as_bytes(), digits.len())?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
        None => named(name)?,
    };
    Some((c, end + 1))
}

fn named(name: &str) -> Option<char> {
    let latin = || (0xa0..).zip(LATIN.split_ascii_whitespace()).find(|(_, known)| *known == name);
    let known = NAMED.iter().find(|(known, _)| *known == name).map(|(_, c)| *c);
    known.or_else(|| char::from_u32(latin()?.0))
}

/// One form of what whitespace, `+` for a space, and what nobody sees make different.
fn canonical(text: &Traced) -> Traced {
    let (mut plain, mut at) = (Traced::like(text), 0);
    for chunk in text.bytes.utf8_chunks() {
        let invalid = if chunk.invalid().is_empty() { None } else { Some(char::REPLACEMENT_CHARACTER) };
        let chars = chunk.valid().chars().map(|c| (c, c.len_utf8()));
        for (c, length) in chars.chain(invalid.map(|c| (c, chunk.invalid().len()))) {
            let place = text.place(at..at + length);
            at += length;
            if c == '\0' || is_invisible(c) {
                continue; // of UTF-16, every second byte
            }
            if c != '+' && !c.is_whitespace() && !c.is_control() {
                plain.push_char(c, place);
            } else if plain.bytes.last() != Some(&b' ') {
                plain.push(b" ", place);
            }
        }
    }
    plain
}

/// What the words of a text come to if they are base64 or hex, each from the place of its word. Words may be cut off at
/// either end, and broken into lines.
fn decodings(text: &Traced) -> Vec<Traced> {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_\r\n".contains(byte);
    let words = runs(&text.bytes, is_base64).map(|run| (run, 4_usize));
    let digits = runs(&text.bytes, u8::is_ascii_hexdigit).map(|run| (run, 2_usize));
    let mut found = Vec::new();
    for (run, step) in words.chain(digits) {
        let word: Vec<u8> = text.bytes[run.clone()].iter().filter_map(|byte| in_alphabet(*byte)).collect();
        if word.len() < ENCODED_BYTES_MIN {
            continue;
        }
        for skipped in 0..step {
            let rest = word.get(skipped..).unwrap_or_default();
            let bytes = if step == 2 { hex_bytes(rest) } else { base64_bytes(rest) };
            let decoded = Traced { bytes, whole: Some(text.place(run.clone())), ..Traced::default() };
            found.push(unspelled(decoded));
        }
    }
    found
}

/// The longest runs of such bytes.
fn runs(text: &[u8], is_part: impl Fn(&u8) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].iter().position(&is_part)?;
        at = text[start..].iter().position(|byte| !is_part(byte)).map_or(text.len(), |length| start + length);
        Some(start..at)
    })
}

/// The two alphabets of base64 as one; nothing for the ends of lines.
fn in_alphabet(byte: u8) -> Option<u8> {
    match byte {
        b'\r' | b'\n' => None,
        b'-' => Some(b'+'),
        b'_' => Some(b'/'),
        byte => Some(byte),
    }
}

fn base64_bytes(word: &[u8]) -> Vec<u8> {
    let whole = if word.len() % 4 == 1 { word.len() - 1 } else { word.len() };
    BASE64.decode(&word[..whole]).unwrap_or_default()
}

fn hex_bytes(word: &[u8]) -> Vec<u8> {
    word.chunks_exact(2).filter_map(|pair| u8::try_from(hex(pair, 2)?).ok()).collect()
}
