//! What an http hook calls: a URL, or a named target that several hooks share.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use url::Url;

use super::address::{address, warn_of_address};
use super::credentials::{Auth, read_auth, read_tls};
use super::secret::pieces;
use super::{Outside, headers, signing};
use crate::domain::headers::{AUTHORIZATION, is_reserved_in_http};
use crate::domain::hook::{Compression, Format, HttpAction, Method};
use crate::domain::oauth::ClientCredentials;
use crate::domain::secret::Secret;
use crate::domain::signature::Signing;
use crate::domain::template::{Form, Piece, Text};
use crate::domain::tls::Tls;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::one_of;
use crate::yaml::value::{Value, all};

const COMPRESS: &str = "compress";
const FORMAT: &str = "format";
/// What hooks may call by name; none where something is wrong with it.
#[derive(Default)]
pub(super) struct Targets(BTreeMap<String, Option<Target>>);

/// The headers of a request, and the token that makes one of them.
#[derive(Clone)]
struct Sent {
    headers: Vec<(String, Text)>,
    oauth: Option<Arc<ClientCredentials>>,
}

struct Target {
    url: Vec<Piece>,
    sent: Sent,
    format: Format,
    compression: Compression,
    signing: Signing,
    tls: Tls,
    used: Cell<bool>,
}

impl Targets {
    /// The targets of a document.
    pub(super) fn read(value: &Value<'_>, outside: &Outside<'_>) -> Self {
        let entries = value.entries().unwrap_or_default().into_iter();
        Self(entries.map(|(key, value)| (key.name.clone(), Target::read(value, outside))).collect())
    }

    /// Warns of targets that no hook has used.
    pub(super) fn warn_of_unused(&self, value: &Value<'_>) {
        for (key, value) in value.entries().unwrap_or_default() {
            if self.0.get(&key.name).is_some_and(|target| target.as_ref().is_some_and(|target| !target.used.get())) {
                let found = format!("`{}`, which none uses", key.name.escape_debug());
                value.warn(Mismatch::new("targets that hooks use").found(found));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nothing is wrong with any of them.
    pub(super) fn are_good(&self) -> bool {
        self.0.values().all(Option::is_some)
    }

    fn find(&self, name: &str) -> Result<&Option<Target>, Mismatch> {
        let target = self.0.get(name).ok_or_else(|| {
            Mismatch::new("the name of one of the `targets`").did_you_mean(name, self.0.keys().map(String::as_str))
        })?;
        if let Some(target) = target {
            target.used.set(true);
        }
        Ok(target)
    }
}

impl Target {
    fn read(value: Value<'_>, outside: &Outside<'_>) -> Option<Self> {
        let mut fields = value.secret_unless_map().fields()?;
        let url = fields.require("url").and_then(|url| {
            url.secret().read(|text| {
                let pieces = pieces(text, outside)?;
                address(&pieces).map(|_| pieces)
            })
        });
        let sent = Sent::read(fields.get("headers"), fields.get("auth"), outside);
        let signing = fields.get("sign").map_or_else(|| Some(Signing::default()), |sign| signing::read(&sign, outside));
        let tls = fields.get("tls").map_or(Some(Tls::Usual), |tls| read_tls(&tls, outside));
        let compression = fields.read_or(COMPRESS, Compression::default(), one_of(&Compression::ALL));
        let format = fields.read_or(FORMAT, Format::default(), one_of(&Format::ALL));
        fields.end();
        let (compression, format) = (compression?, format?);
        let (url, sent, signing, tls) = (url?, sent?, signing?, tls?);
        Some(Self { url, sent, format, compression, signing, tls, used: Cell::default() })
    }
}

pub(super) fn read(value: &Value<'_>, outside: &Outside<'_>, targets: &Targets) -> Option<HttpAction> {
    let mut fields = value.fields()?;
    let (url, target) = (fields.get("url").map(Value::secret), fields.get("target"));
    let path = fields.get("path").map(Value::secret);
    let method = fields.read_or("method", Method::default(), one_of(&Method::ALL));
    let sent = Sent::read(fields.get("headers"), fields.get("auth"), outside);
    let body = fields.get("body").map(Value::secret);
    let sign = fields.get("sign");
    let own = sign.as_ref().map(|sign| signing::read(sign, outside));
    let own_tls = fields.get("tls").map(|tls| read_tls(&tls, outside));
    let compress = fields.get(COMPRESS);
    let format = fields.get(FORMAT);
    let own_format = format.as_ref().map(|format| format.read(one_of(&Format::ALL)));
    let own_compression = compress.as_ref().map(|compress| compress.read(one_of(&Compression::ALL)));
    fields.end();
    let (shared, address) = addressed(value, [url, target, path], outside, targets)?;
    let sent = sent.map(|sent| sent.over(shared.map(|target| &target.sent)));
    let headers = sent.as_ref().map(|sent| sent.headers.as_slice());
    let signing = own.unwrap_or_else(|| Some(shared.map(|target| target.signing.clone()).unwrap_or_default()));
    let tls = own_tls.unwrap_or_else(|| Some(shared.map(|target| target.tls.clone()).unwrap_or_default()));
    let compression =
        own_compression.unwrap_or_else(|| Some(shared.map(|target| target.compression).unwrap_or_default()));
    let format = match own_format {
        Some(None) => None,
        own => {
            let place = format.as_ref().unwrap_or(value);
            in_force(place, own.flatten(), shared, headers, body.is_some(), method)
        }
    };
    if let (Some(sent), Some(signing), Some(compression)) = (&sent, &signing, compression) {
        check_signing(sign.as_ref().unwrap_or(value), sent, signing)?;
        check_compression(compress.as_ref().unwrap_or(value), &sent.headers, compression)?;
    }
    let form = headers.map_or(Form::Json, form);
    let body = body.map_or(Some(None), |body| read_body(&body, method, form, outside).map(Some));
    let (url, text) = address?;
    warn_of_address(value, &url, outside);
    let (url, signing) = (Secret::new(url), Box::new(signing?));
    let Sent { headers, oauth } = sent?;
    Some(HttpAction {
        method: method?,
        url,
        text,
        headers,
        body: body?,
        format: format?,
        compression: compression?,
        signing,
        oauth,
        tls: tls?,
    })
}

/// A shared target, if there is one, and the URL with what a request adds to it.
type Addressed<'t> = (Option<&'t Target>, Option<(Url, Text)>);

/// The URL of a hook and what its requests add to it, with the target that it shares, if it has one: from the fields `url`,
/// `target` and `path`. The URL is `None` where it was wrong by itself.
fn addressed<'t>(
    value: &Value<'_>,
    [url, target, path]: [Option<Value<'_>>; 3],
    outside: &Outside<'_>,
    targets: &'t Targets,
) -> Option<Addressed<'t>> {
    Some(match (url, target) {
        (Some(url), None) => {
            if let Some(path) = path {
                path.wrong(Mismatch::new("`path` with `target` only").found("it beside `url`"));
            }
            (None, url.read(|text| address(&pieces(text, outside)?)))
        }
        (None, Some(name)) => {
            let target = name.read(|name| targets.find(name))?.as_ref()?;
            (Some(target), read_path(&name, path, &target.url, outside))
        }
        (url, _) => {
            let found = if url.is_some() { "both" } else { "neither" };
            value.wrong(Mismatch::new("either `url` or `target`").found(found));
            return None;
        }
    })
}

/// What is signed stands in no header that the hook sets itself.
fn check_signing(value: &Value<'_>, sent: &Sent, signing: &Signing) -> Option<()> {
    let twice = signing.headers().find(|name| sent.sets(name));
    let Some(name) = twice else { return Some(()) };
    let expected = "headers that are either signatures or the hook's own";
    value.wrong(Mismatch::new(expected).found(format!("`{name}` as both")));
    None
}

/// Who compresses a body says so.
fn check_compression(value: &Value<'_>, headers: &[(String, Text)], compression: Compression) -> Option<()> {
    if compression == Compression::None || headers.iter().all(|(name, _)| name != "content-encoding") {
        return Some(());
    }
    value.wrong(Mismatch::new("`compress` or the header `content-encoding`").found("both"));
    None
}

/// The format of a hook: its own, or that of its target where it sends what a format says. What a format says is said by
/// nothing else. `value` is the place of the hook's own format, or the whole hook if it has none.
fn in_force(
    value: &Value<'_>,
    own: Option<Format>,
    shared: Option<&Target>,
    headers: Option<&[(String, Text)]>,
    has_body: bool,
    method: Option<Method>,
) -> Option<Format> {
    let sends_other = has_body || method == Some(Method::Get);
    let of_target = || shared.map(|target| target.format).filter(|_| !sends_other).unwrap_or_default();
    let format = own.unwrap_or_else(of_target);
    if format == Format::Native {
        return Some(format);
    }
    let of_format = |name: &str| name == "content-type" || name.starts_with("ce-");
    let header = headers?.iter().map(|(name, _)| name).find(|name| of_format(name));
    let mismatch = match (has_body, method, header) {
        (true, ..) => Mismatch::new("either `body` or a `format` of CloudEvents").found("both"),
        (_, Some(Method::Get), _) => {
            Mismatch::new("a `format` of CloudEvents with a method that sends a body").found("it beside `method: GET`")
        }
        (.., Some(name)) => {
            let found = format!("the header `{name}` beside it");
            Mismatch::new("a `format` of CloudEvents, which sets the headers of the event").found(found)
        }
        (false, _, None) => return Some(format),
    };
    value.wrong(mismatch);
    None
}

fn read_body(body: &Value<'_>, method: Option<Method>, form: Form, outside: &Outside<'_>) -> Option<Text> {
    if method == Some(Method::Get) {
        body.wrong(Mismatch::new("`body` with a method that sends one").found("it beside `method: GET`"));
    }
    body.read(|text| Ok(Text::new(pieces(text, outside)?, form)?))
}

/// The URL of a target, with what a hook puts behind it.
fn read_path(
    name: &Value<'_>,
    path: Option<Value<'_>>,
    target: &[Piece],
    outside: &Outside<'_>,
) -> Option<(Url, Text)> {
    let Some(path) = path else { return name.read(|_| address(target)) };
    path.read(|text| {
        if !text.starts_with(['/', '?']) {
            return Err(
                Mismatch::new("what comes behind the URL of the target, from `/` or `?` on").found("another beginning")
            );
        }
        let mut all = target.to_vec();
        if text.starts_with('/')
            && let Some(Piece::Literal(last)) = all.last_mut()
            && last.ends_with('/')
        {
            last.pop();
        }
        all.extend(pieces(text, outside)?);
        address(&all)
    })
}

/// What a body is escaped for.
fn form(headers: &[(String, Text)]) -> Form {
    match headers.iter().find(|(name, _)| name == "content-type") {
        None => Form::Json,
        Some((_, text)) => form_of(text.prefix()),
    }
}

/// What a body of this media type is escaped for.
pub(super) fn form_of(content_type: &str) -> Form {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/x-www-form-urlencoded" => Form::Url,
        json if json.ends_with("/json") || json.ends_with("+json") => Form::Json,
        _ => Form::Plain,
    }
}

impl Sent {
    /// `headers`, and what `auth` stands for.
    fn read(headers: Option<Value<'_>>, auth: Option<Value<'_>>, outside: &Outside<'_>) -> Option<Self> {
        let headers = headers.map_or(Some(Vec::new()), |headers| read_headers(&headers.secret(), outside));
        let Some(auth) = auth else { return Some(Self { headers: headers?, oauth: None }) };
        let (read, mut headers) = (read_auth(&auth, outside), headers?);
        if headers.iter().any(|(name, _)| name == AUTHORIZATION) {
            auth.wrong(Mismatch::new("`auth` or the header `authorization`").found("both"));
            return None;
        }
        let oauth = match read? {
            Auth::Header(text) => {
                headers.push((AUTHORIZATION.to_owned(), text));
                None
            }
            Auth::Token(credentials) => Some(credentials),
        };
        Some(Self { headers, oauth })
    }

    /// Whether a header of this name is sent.
    fn sets(&self, name: &str) -> bool {
        self.oauth.is_some() && name == AUTHORIZATION || self.headers.iter().any(|(own, _)| own == name)
    }

    /// A hook's own, and what of its target it does not set itself.
    fn over(self, shared: Option<&Self>) -> Self {
        let Some(shared) = shared else { return self };
        let others = shared.headers.iter().filter(|(name, _)| !self.sets(name));
        let headers = self.headers.iter().chain(others).cloned().collect();
        let oauth = if self.sets(AUTHORIZATION) { self.oauth } else { shared.oauth.clone() };
        Self { headers, oauth }
    }
}

fn read_headers(value: &Value<'_>, outside: &Outside<'_>) -> Option<Vec<(String, Text)>> {
    let mut names = HashSet::new();
    all(value.entries()?.into_iter().map(|(key, value)| {
        let name = key.name.to_ascii_lowercase();
        if !headers::is_token(&name) {
            value.wrong_key(key, Mismatch::new("the name of an HTTP header"));
        } else if is_reserved_in_http(&name) {
            value.wrong_key(key, Mismatch::new("a header that a hook may set"));
        } else if !names.insert(name.clone()) {
            value.wrong_key(key, Mismatch::new("each header once, in any case of its letters"));
        } else if let Some(doubt) = headers::doubtful(&name) {
            value.warn_key(key, doubt);
        }
        let content = value.read(|text| {
            let text = Text::new(pieces(text, outside)?, Form::Plain)?;
            headers::check_value(text.prefix())?; // what a template prints is looked at when it is sent
            Ok(text)
        });
        Some((name, content?))
    }))
}
