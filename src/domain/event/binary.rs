//! CloudEvents in binary mode: attributes in headers, data in the body (AMQP protocol binding 1.0.2, 3.1). The gateway
//! brings HTTP's `ce-` headers into the same form first, so that there is one way in.
//!
//! What hooks get is the structured form: attributes keep their names, `data` is JSON where the content type says so,
//! text where it is text in UTF-8, and `data_base64` otherwise.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;

use super::{Malformed, essence, malformed};
use crate::domain::escape::quoted;
use crate::domain::failure::Class;
use crate::domain::message::{Header, Message};

/// What the names of headers that are attributes begin with: some clients and brokers take no colon.
const PREFIXES: [&str; 2] = ["cloudEvents:", "cloudEvents_"];
/// Any of these in a header makes a message binary; all of them are required then.
const MANDATORY: [&str; 4] = ["specversion", "id", "source", "type"];
/// Attributes that are text by the specification: a number of a client that writes its ids as numbers is read as text.
const TEXTS: [&str; 8] = ["specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype"];
/// Stands for what is no text: bytes that are no UTF-8, tables, arrays.
const UNREADABLE: char = char::REPLACEMENT_CHARACTER;

/// The attribute that a header holds, if it holds one.
#[must_use]
pub fn attribute(header: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| header.strip_prefix(prefix))
}

/// The header that an attribute travels in.
#[must_use]
pub fn header(attribute: &str) -> String {
    format!("{}{attribute}", PREFIXES[0])
}

/// Whether attributes stand in the headers.
pub(super) fn is_binary(message: &Message) -> bool {
    message.headers.keys().filter_map(|name| attribute(name)).any(|name| MANDATORY.contains(&name))
}

/// The event in structured JSON.
pub(super) fn structured(message: &Message) -> Result<Bytes, Malformed> {
    let given = message.properties.content_type.as_deref().filter(|given| !given.is_empty());
    let mut attributes = attributes(message)?;
    if let Some(given) = given {
        attributes.insert("datacontenttype", Header::from(given));
    }
    let content_type = attributes.get("datacontenttype").and_then(Header::as_text).map(str::to_owned);
    let whole = Whole { attributes, data: data(content_type.as_deref(), &message.body)? };
    // Strings, numbers and checked JSON always serialize.
    Ok(Bytes::from(serde_json::to_vec(&whole).unwrap_or_default()))
}

fn attributes(message: &Message) -> Result<BTreeMap<&str, Header>, Malformed> {
    let mut attributes = BTreeMap::new();
    for (header, value) in &message.headers {
        let Some(name) = attribute(header) else { continue };
        let class = if matches!(name, "id" | "source") { Class::Unidentified } else { Class::Invalid };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            let error = format!("expected attribute names of a-z and 0-9, found the header {}", quoted(header));
            return Err(malformed(Class::Invalid, error));
        }
        if name == "data" {
            return Err(malformed(Class::Invalid, "expected the data in the body, found it in a header"));
        }
        let value = match value {
            Header::Text(text) if text.contains(UNREADABLE) => {
                let error = format!("expected the attribute `{name}` in UTF-8, found other bytes, a table or an array");
                return Err(malformed(class, error));
            }
            Header::Number(_) if name == "time" => {
                return Err(malformed(class, "expected `time` as RFC 3339 or an AMQP timestamp, found a number"));
            }
            Header::Number(number) if TEXTS.contains(&name) => Header::Text(number.to_string()),
            Header::Flag(flag) if TEXTS.contains(&name) => Header::Text(flag.to_string()),
            Header::Flag(_) | Header::Number(_) | Header::Text(_) => value.clone(),
        };
        if attributes.get(name).is_some_and(|other| *other != value) {
            return Err(malformed(class, format!("the attribute `{name}` is given twice, with different values")));
        }
        attributes.insert(name, value);
    }
    Ok(attributes)
}

enum Data<'a> {
    None,
    Json(&'a RawValue),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// Without a content type, JSON is taken for JSON (JSON event format, 3.1.1) and anything else for bytes.
fn data<'a>(content_type: Option<&str>, body: &'a [u8]) -> Result<Data<'a>, Malformed> {
    if body.is_empty() {
        return Ok(Data::None);
    }
    let json = serde_json::from_slice::<&RawValue>(body);
    let essence = content_type.map(essence);
    Ok(match essence.as_deref() {
        Some(essence) if is_json(essence) => match json {
            Ok(json) => Data::Json(json),
            Err(error) => return Err(malformed(Class::Unreadable, format!("expected data in JSON: {error}"))),
        },
        Some(essence) if essence.starts_with("text/") => match std::str::from_utf8(body) {
            Ok(text) if in_utf8(content_type) => Data::Text(text),
            _ => Data::Bytes(body),
        },
        Some(_) => Data::Bytes(body),
        None => json.map_or(Data::Bytes(body), Data::Json),
    })
}

/// By the JSON event format (3.1): the subtype `json`, or one that ends in `+json`.
fn is_json(essence: &str) -> bool {
    essence.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

/// Whether a text is declared as UTF-8, or as nothing.
fn in_utf8(content_type: Option<&str>) -> bool {
    let parameters = content_type.unwrap_or_default().split(';').skip(1);
    let charset = parameters.filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    charset.is_none_or(|charset| matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii"))
}

/// An event as one JSON object.
struct Whole<'a> {
    attributes: BTreeMap<&'a str, Header>,
    data: Data<'a>,
}

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.attributes {
            map.serialize_entry(name, value)?;
        }
        match self.data {
            Data::None => {}
            Data::Json(json) => map.serialize_entry("data", json)?,
            Data::Text(text) => map.serialize_entry("data", text)?,
            Data::Bytes(bytes) => map.serialize_entry("data_base64", &STANDARD.encode(bytes))?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
