//! What all readers of JSON have in common.

use bytes::Bytes;

/// A byte order mark in UTF-8. Writers may not add one; readers may ignore it (RFC 8259, 8.1). Some libraries of .NET and
/// Windows write it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The same without a byte order mark at its beginning.
#[must_use]
pub fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json)
}

/// The same without a byte order mark at its beginning.
#[must_use]
pub fn text_without_mark(json: &str) -> &str {
    json.strip_prefix('\u{feff}').unwrap_or(json)
}

/// The same without a byte order mark at its beginning; nothing is copied.
#[must_use]
pub fn bytes_without_mark(json: &Bytes) -> Bytes {
    json.slice_ref(without_mark(json))
}
