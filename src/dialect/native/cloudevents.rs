//! The event itself as the request of an http hook, in the modes of CloudEvents' HTTP protocol binding 1.0.2.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::domain::contract::Exchange;
use crate::domain::decision::Json;
use crate::domain::escape::quoted;
use crate::domain::event::CLOUDEVENTS_JSON;

const CONTENT_TYPE: Cow<'static, str> = Cow::Borrowed("content-type");

/// An event by its members, each as it was written.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Structured mode: the event byte for byte, unless gates before this one have put other data in place of its own.
pub(super) fn structured<'a>(
    exchange: Exchange<'a>,
    event: &Bytes,
    input: Option<&Json>,
) -> Result<Exchange<'a>, String> {
    let body = match input {
        None => event.clone(),
        Some(input) => {
            let input: &RawValue = serde_json::from_str(input.as_str()).map_err(|error| error.to_string())?;
            let mut members = members(event)?;
            members.remove("data_base64");
            members.insert("data".to_owned(), input);
            serde_json::to_vec(&members).map_err(|error| error.to_string())?.into()
        }
    };
    let mut headers = exchange.headers;
    headers.push((CONTENT_TYPE, Cow::Borrowed(CLOUDEVENTS_JSON)));
    Ok(Exchange { body, headers, ..exchange })
}

/// Binary mode: the data as the body, with its own content type, and every other attribute in a header.
pub(super) fn binary<'a>(exchange: Exchange<'a>, event: &Bytes, input: Option<&Json>) -> Result<Exchange<'a>, String> {
    let members = members(event)?;
    let mut headers = exchange.headers;
    for (name, value) in &members {
        if matches!(name.as_str(), "data" | "data_base64" | "datacontenttype") {
            continue;
        }
        if let Some(text) = attribute(name, value)? {
            headers.push((Cow::Owned(format!("ce-{name}")), Cow::Owned(escaped(&text))));
        }
    }
    let declared = members.get("datacontenttype").and_then(|value| serde_json::from_str(value.get()).ok());
    let (body, content_type) = data(&members, declared, input)?;
    headers.extend(content_type.map(|content_type| (CONTENT_TYPE, Cow::Owned(content_type))));
    Ok(Exchange { body, headers, ..exchange })
}

fn members(event: &Bytes) -> Result<Members<'_>, String> {
    serde_json::from_slice(event).map_err(|error| format!("the event cannot be read: {error}"))
}

/// The canonical text of an attribute's value (CloudEvents 1.0.2, 2.4); null is an attribute that is not set.
fn attribute(name: &str, value: &RawValue) -> Result<Option<String>, String> {
    let no_form = |what: &str| {
        format!("{what} has no form in the headers of `format: cloudevents-binary`; `cloudevents` takes it")
    };
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Err(no_form(&format!("an attribute named {}", quoted(name))));
    }
    match value.get().as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => {
            let text = serde_json::from_str(value.get());
            text.map(Some).map_err(|error| format!("the attribute `{name}` of the event cannot be read: {error}"))
        }
        Some(b'{' | b'[') => Err(no_form(&format!("the attribute `{name}`, an object or an array,"))),
        _ => Ok(Some(value.get().to_owned())),
    }
}

/// Body and content type.
fn data(
    members: &Members<'_>,
    declared: Option<String>,
    input: Option<&Json>,
) -> Result<(Bytes, Option<String>), String> {
    const JSON: &str = "application/json";
    let is_json = declared.as_deref().is_none_or(is_json);
    if let Some(input) = input {
        let content_type = declared.filter(|_| is_json).unwrap_or_else(|| JSON.to_owned());
        return Ok((input.as_str().to_owned().into(), Some(content_type)));
    }
    if let Some(encoded) = members.get("data_base64").filter(|value| value.get() != "null") {
        let text: String = serde_json::from_str(encoded.get()).map_err(|_| unreadable())?;
        let bytes = STANDARD.decode(text).map_err(|_| unreadable())?;
        return Ok((bytes.into(), Some(declared.unwrap_or_else(|| "application/octet-stream".to_owned()))));
    }
    let Some(data) = members.get("data") else { return Ok((Bytes::new(), declared)) };
    match serde_json::from_str::<String>(data.get()) {
        Ok(text) if !is_json => Ok((text.into(), declared)),
        _ => Ok((data.get().to_owned().into(), Some(declared.unwrap_or_else(|| JSON.to_owned())))),
    }
}

fn unreadable() -> String {
    "the attribute `data_base64` of the event is no base64".to_owned()
}

/// By the JSON event format (3.1): the subtype `json`, or one that ends in `+json`.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

/// The value of a header (HTTP protocol binding 1.0.2, 3.1.3.2): percent-encoded are space, quotes, the percent sign, and
/// what is no printable ASCII.
fn escaped(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%');
    let escape = |byte: u8| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Event, Reading};
    use crate::domain::message::Message;

    const HEAD: &str = r#""specversion":"1.0","id":"1","source":"/s","type":"a.b""#;

    fn check(event: &str, input: Option<&str>, expected: &str) {
        let event = Bytes::from(format!("{{{HEAD}{event}}}"));
        let input: Option<Json> = input.map(|input| serde_json::from_str(input).unwrap());
        let found = match binary(Exchange::default(), &event, input.as_ref()) {
            Err(error) => error,
            Ok(Exchange { body, headers, .. }) => {
                let own = headers
                    .iter()
                    .filter(|(name, _)| !matches!(&**name, "ce-id" | "ce-source" | "ce-type" | "ce-specversion"));
                let shown: Vec<_> = own.map(|(name, value)| format!("{name}: {value}")).collect();
                assert_eq!(headers.len() - shown.len(), 4);
                format!("{} | {}", shown.join(", "), String::from_utf8_lossy(&body))
            }
        };
        assert_eq!(found, expected, "{event:?}");
    }

    #[test]
    fn in_binary_mode_data_are_the_body() {
        check("", None, " | ");
        check(
            r#","data": {"n": 1.0, "b":[1e400]}"#,
            None,
            r#"content-type: application/json | {"n": 1.0, "b":[1e400]}"#,
        );
        check(r#","data":"text""#, None, "content-type: application/json | \"text\"");
        check(r#","datacontenttype":"text/plain","data":"ä""#, None, "content-type: text/plain | ä");
        check(r#","datacontenttype":"a/b+json","data":1"#, None, "content-type: a/b+json | 1");
        check(r#","data_base64":"/wA=","datacontenttype":"image/png""#, None, "content-type: image/png | \u{fffd}\0");
        check(r#","data_base64":"YQ==""#, None, "content-type: application/octet-stream | a");
        check(r#","data_base64":"?""#, None, "the attribute `data_base64` of the event is no base64");
        check(r#","data":null"#, None, "content-type: application/json | null");
        check(r#","data":1"#, Some("[2]"), "content-type: application/json | [2]");
        check(r#","datacontenttype":"text/plain","data":"a""#, Some("{}"), "content-type: application/json | {}");
    }

    #[test]
    fn in_binary_mode_attributes_are_headers() {
        check(r#","subject":"a \"b\" 50% ä€""#, None, "ce-subject: a%20%22b%22%2050%25%20%C3%A4%E2%82%AC | ");
        check(r#","n":7,"ok":true,"none":null"#, None, "ce-n: 7, ce-ok: true | ");
        let other = "has no form in the headers of `format: cloudevents-binary`; `cloudevents` takes it";
        check(r#","x y":1"#, None, &format!("an attribute named \"x y\" {other}"));
        check(r#","x":{}"#, None, &format!("the attribute `x`, an object or an array, {other}"));
    }

    #[test]
    fn in_structured_mode_the_event_is_the_body() {
        let event = Bytes::from(format!(r#" {{{HEAD}, "data_base64":"YQ==", "x":1.0}}"#));
        let exchange = structured(Exchange::default(), &event, None).unwrap();
        assert_eq!((&exchange.body, &*exchange.headers[0].1), (&event, CLOUDEVENTS_JSON));
        let input: Json = serde_json::from_str("[1.0]").unwrap();
        let exchange = structured(Exchange::default(), &event, Some(&input)).unwrap();
        let message = Message { body: exchange.body, ..Message::default() };
        let event = Event::decode(&message, &Reading::default()).unwrap();
        let text = String::from_utf8(event.body.to_vec()).unwrap();
        assert!(text.contains("\"data\":[1.0]") && !text.contains("base64") && text.contains("\"x\":1.0"), "{text}");
    }
}
