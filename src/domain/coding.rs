//! Content codings: bodies that arrive compressed, inflated within a limit (RFC 9110, 8.4).
//!
//! A content encoding is a list of codings in the order in which they were applied. Message clients write the charset of
//! the body there too (`UTF-8`; Spring AMQP writes `gzip:UTF-8`), and words that say that there is no coding.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::escape::quoted;

/// The codings that are understood, as `Accept-Encoding` has them.
pub const ACCEPTED: &str = "gzip, deflate";
/// Codings of one body. More are a mistake or an attack.
const CODINGS_MAX: usize = 4;
/// Names of charsets in which JSON is UTF-8: of UTF-8 itself, and of ASCII, which is a part of it. In lower case.
const CHARSETS: [&str; 8] = ["utf-8", "utf8", "utf_8", "utf-8-sig", "csutf8", "us-ascii", "ascii", "csascii"];
/// Words for no coding: of HTTP, of MIME (RFC 2045, 6.1), and of message clients. In lower case.
const NONE: [&str; 6] = ["identity", "none", "binary", "8bit", "7bit", "plain"];

/// One compression of a body. Clients mix up the names of gzip and zlib, so that the bytes decide between these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    /// Without a frame around it, too, as some clients send it.
    Deflate,
}

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodingError {
    /// A coding that is not understood: the sentence names it.
    Unknown(String),
    /// The bytes are not what the coding says.
    Broken(String),
    /// It inflates to more than this many bytes.
    TooLarge(usize),
}

impl CodingError {
    /// What was expected, and what was found.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Unknown(sentence) | Self::Broken(sentence) => sentence.clone(),
            Self::TooLarge(max) => format!("the compressed body inflates to more than {max} bytes, the limit"),
        }
    }
}

/// The compressions that a content encoding names, in the order in which they were applied.
///
/// # Errors
/// [`CodingError::Unknown`]: it names another coding, or too many.
pub fn codings(content_encoding: &str) -> Result<Vec<Coding>, CodingError> {
    let mut codings = Vec::new();
    for word in content_encoding.split([',', ':']) {
        let word = word.trim().to_ascii_lowercase();
        match word.as_str() {
            "" => {}
            "gzip" | "x-gzip" | "zlib" | "application/gzip" | "application/x-gzip" => codings.push(Coding::Gzip),
            "deflate" => codings.push(Coding::Deflate),
            word if CHARSETS.contains(&word) || NONE.contains(&word) => {}
            _ => {
                let found = quoted(content_encoding);
                let expected = "expected a body in UTF-8, as it is or compressed with gzip or deflate";
                return Err(CodingError::Unknown(format!("{expected}; found the content encoding {found}")));
            }
        }
    }
    if codings.len() > CODINGS_MAX {
        let found = codings.len();
        return Err(CodingError::Unknown(format!("expected at most {CODINGS_MAX} content codings, found {found}")));
    }
    Ok(codings)
}

/// The body without its codings, of at most `max` bytes. No more is ever inflated.
///
/// # Errors
/// [`CodingError::Broken`] or [`CodingError::TooLarge`].
pub fn inflated(body: &Bytes, codings: &[Coding], max: usize) -> Result<Bytes, CodingError> {
    let last_first = codings.iter().rev();
    last_first.copied().try_fold(body.clone(), |body, coding| inflate(&body, coding, max).map(Bytes::from))
}

fn inflate(body: &[u8], coding: Coding, max: usize) -> Result<Vec<u8>, CodingError> {
    let mut decoder: Box<dyn Read + '_> = match body {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(body)),
        // RFC 1950, 2.2: the method deflate, and a checksum over both bytes.
        [first, second, ..] if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0 => {
            Box::new(ZlibDecoder::new(body))
        }
        _ if coding == Coding::Deflate => Box::new(DeflateDecoder::new(body)),
        _ => Box::new(MultiGzDecoder::new(body)), // says what is missing
    };
    let mut inflated = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    decoder.by_ref().take(limit).read_to_end(&mut inflated).map_err(|error| {
        CodingError::Broken(format!(
            "expected a body compressed as its content encoding says, found other bytes: {error}"
        ))
    })?;
    if inflated.len() > max { Err(CodingError::TooLarge(max)) } else { Ok(inflated) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn check(content_encoding: &str, body: &[u8], expected: &str) {
        let read = |codings: Vec<Coding>| inflated(&Bytes::copy_from_slice(body), &codings, 100);
        let found = match codings(content_encoding).and_then(read) {
            Ok(body) => String::from_utf8_lossy(&body).into_owned(),
            Err(error) => error.sentence(),
        };
        assert!(found.starts_with(expected), "{content_encoding}\n found: {found}\n expected: {expected}");
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn charsets_and_words_for_nothing_are_no_coding() {
        for none in
            ["", "UTF-8", "utf8", "Utf-8", "US-ASCII", "identity", "IDENTITY", "binary", "8bit", "identity, utf-8"]
        {
            check(none, b"{}", "{}");
        }
        for other in ["br", "zstd", "utf-16", "latin1", "gzip, br", "bzip2"] {
            check(other, b"{}", "expected a body in UTF-8, as it is or compressed with gzip or deflate; found the");
        }
        check("gzip,gzip,gzip,gzip,gzip", b"", "expected at most 4 content codings, found 5");
    }

    #[test]
    fn what_is_compressed_is_inflated() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(b"{\"n\": 1}").unwrap();
        let zlib = zlib.finish().unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::best());
        raw.write_all(b"{\"n\": 1}").unwrap();
        let raw = raw.finish().unwrap();
        let gzipped = gzip(b"{\"n\": 1}");
        for name in ["gzip", "x-gzip", "GZIP", "gzip:UTF-8", "utf-8, gzip", "application/x-gzip"] {
            check(name, &gzipped, "{\"n\": 1}");
            check(name, &zlib, "{\"n\": 1}"); // kombu's `application/x-gzip` is zlib
        }
        check("deflate", &zlib, "{\"n\": 1}");
        check("deflate", &raw, "{\"n\": 1}");
        check("deflate, gzip", &gzip(&zlib), "{\"n\": 1}");
        check("gzip", &[gzip(b"{\"n\""), gzip(b": 1}")].concat(), "{\"n\": 1}"); // members, RFC 1952, 2.2
    }

    #[test]
    fn what_is_not_as_it_says_is_refused() {
        let gzipped = gzip(b"{\"n\": 1}");
        check("gzip", &gzipped[..gzipped.len() - 9], "expected a body compressed as its content encoding says");
        check("gzip", b"{\"n\": 1}", "expected a body compressed as its content encoding says");
        check("gzip", b"", "expected a body compressed as its content encoding says");
        check("gzip", &gzip(&[b'x'; 100]), &"x".repeat(100));
        check("gzip", &gzip(&[b'x'; 101]), "the compressed body inflates to more than 100 bytes, the limit");
        check("gzip", &gzip(&vec![b'x'; 1_000_000]), "the compressed body inflates to more than 100 bytes, the limit");
    }
}
