//! What a publish hook sends: which broker and exchange, and the parts of the message.

use std::collections::HashSet;

use super::Outside;
use super::credentials::read_tls;
use super::http::form_of;
use super::secret::{guessed, pieces};
use crate::amqp::connection::vhost;
use crate::config::parse;
use crate::domain::address::{literal, refusal};
use crate::domain::event::CLOUDEVENTS_JSON;
use crate::domain::headers::is_reserved_in_amqp;
use crate::domain::hook::{PublishAction, Server};
use crate::domain::publication::SHORT_BYTES_MAX;
use crate::domain::secret::Secret;
use crate::domain::template::{Form, Piece, Text};
use crate::domain::tls::Tls;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::flag;
use crate::yaml::value::{Value, all};

const SCHEMES: [&str; 2] = ["amqps", "amqp"];
/// What a URL could begin with that is not known here.
const GUESS_OF_URL: &str = "amqps://unknown.invalid";

pub(super) fn read(value: &Value<'_>, outside: &Outside<'_>) -> Option<PublishAction> {
    let mut fields = value.fields()?;
    let url = fields.get("url").map(Value::secret);
    let tls = fields.get("tls");
    let exchange = fields.read_or("exchange", None, |name| read_name(name).map(Some));
    let key = fields.get("routing_key");
    let kind = fields.get("type");
    let headers = fields.get("headers").map_or(Some(Vec::new()), |headers| read_headers(&headers.secret(), outside));
    let media = fields.get("content_type");
    let body = fields.get("body").map(Value::secret);
    let mandatory = fields.read_or("mandatory", true, flag);
    fields.end();

    let (named, of_its_own) = (!matches!(exchange, Some(None)), body.is_some());
    if !named && !of_its_own && url.is_none() {
        let mismatch = Mismatch::new("an `exchange`, or a `body` for an event of its own").found("neither");
        value.wrong(mismatch.help("the same event again is dropped: all of its hooks have run"));
    }
    if !named && url.is_some() {
        value.wrong(Mismatch::new("an `exchange` beside `url`").found("none"));
    }
    let content_type = match (&media, of_its_own) {
        (None, false) => Some(CLOUDEVENTS_JSON.to_owned()),
        (None, true) => Some("application/json".to_owned()),
        (Some(media), true) => media.read(read_media).filter(|content_type| {
            let is_read = named || form_of(content_type) == Form::Json;
            if !is_read {
                media.wrong(
                    Mismatch::new("JSON for an event of the fleet, or an `exchange`").found("another media type"),
                );
            }
            is_read
        }),
        (Some(media), false) => {
            media.wrong(Mismatch::new("`content_type` with a `body` only").found("it alone"));
            None
        }
    };
    let form = content_type.as_deref().map_or(Form::Plain, form_of);
    let own_tls = tls.as_ref().map_or(Some(Tls::Usual), |tls| read_tls(tls, outside));
    if let (Some(tls), None) = (&tls, &url) {
        tls.wrong(Mismatch::new("`tls` with `url` only").found("it alone"));
    }
    let server = url.map_or(Some(None), |url| read_server(&url, tls.as_ref(), own_tls, outside).map(Some));
    let template = |value: Option<Value<'_>>, form| {
        value.map_or(Some(None), |value| value.read(|text| Ok(Some(Text::new(pieces(text, outside)?, form)?))))
    };
    let (key, kind, body) = (template(key, Form::Plain), template(kind, Form::Plain), template(body, form));
    Some(PublishAction {
        server: server?.map(Box::new),
        exchange: exchange?,
        routing_key: key?,
        kind: kind?,
        headers: headers?,
        body: body?,
        content_type: content_type?,
        mandatory: mandatory?,
    })
}

/// The name of an exchange; an empty one is the default exchange, which routes to the queue that the routing key names.
fn read_name(name: &str) -> Result<String, Mismatch> {
    if name.len() > SHORT_BYTES_MAX || name.contains(char::is_control) || name.contains("{{") || name.contains("${") {
        let mismatch = Mismatch::new(format!("the name of an exchange, of at most {SHORT_BYTES_MAX} bytes"));
        return Err(mismatch.help("it is the same for every event; the `routing_key` may be a template"));
    }
    Ok(name.to_owned())
}

fn read_media(media: &str) -> Result<String, Mismatch> {
    let printable = media.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if media.contains('/') && printable && media.len() <= SHORT_BYTES_MAX && !media.contains("{{") {
        return Ok(media.to_owned());
    }
    Err(Mismatch::new("a media type such as application/json"))
}

fn read_headers(value: &Value<'_>, outside: &Outside<'_>) -> Option<Vec<(String, Text)>> {
    let mut names = HashSet::new();
    all(value.entries()?.into_iter().map(|(key, value)| {
        let name = key.name.as_str();
        if name.is_empty() || name.len() > SHORT_BYTES_MAX || name.contains(char::is_control) {
            value.wrong_key(key, Mismatch::new("the name of a header, of at most 255 bytes"));
        } else if is_reserved_in_amqp(name) {
            value.wrong_key(key, Mismatch::new("a header that a hook may set"));
        } else if !names.insert(name) {
            value.wrong_key(key, Mismatch::new("each header once"));
        }
        let content = value.read(|text| Ok(Text::new(pieces(text, outside)?, Form::Plain)?));
        Some((name.to_owned(), content?))
    }))
}

fn read_server(
    value: &Value<'_>,
    tls: Option<&Value<'_>>,
    own_tls: Option<Tls>,
    outside: &Outside<'_>,
) -> Option<Server> {
    let (url, text) = value.read(|text| guessed(&pieces(text, outside)?, GUESS_OF_URL, known_server))?;
    if let Some(tls) = tls.filter(|_| url.scheme() == "amqp") {
        tls.wrong(Mismatch::new("a `url` that begins with amqps://").found("one without TLS"));
    }
    if let Some(password) = url.password().filter(|password| !password.is_empty()) {
        outside.secrets.borrow_mut().insert(password.to_owned()); // however it came there
    }
    // The `url` crate reads addresses of version 4 in URLs of the web only.
    let address = literal(&url).or_else(|| url.host_str()?.parse().ok());
    if let Some(class) = address.and_then(|ip| refusal(ip, outside.egress?)) {
        // Another process may allow it: no reason to refuse all hooks.
        let mismatch = Mismatch::new("a broker that this process may call").found(class);
        value.warn(mismatch.help("allow it with `egress.allow`, or every run becomes a letter `target_blocked`"));
    }
    Some(Server { url: Secret::new(url), text, tls: own_tls? })
}

/// No message repeats a part of it: all of it may be secret.
fn known_server(pieces: Vec<Piece>) -> Result<(url::Url, Text), Mismatch> {
    let text = Text::new(pieces, Form::Url)?;
    if text.is_template() {
        return Err(Mismatch::new("a URL that is the same for every event").found("a template"));
    }
    let url = parse::server(text.prefix(), &SCHEMES).map_err(|mismatch| {
        mismatch.help("in user and password `/`, `@`, `:`, `?`, `#` and `%` are written as %2F, %40 and so on")
    })?;
    vhost(&url).map_err(|_| Mismatch::new("a URL that AMQP can use (vhost, parameters)").found("something else"))?;
    Ok((url, text))
}
