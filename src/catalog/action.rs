//! What a hook runs: `http` or `command`.

use std::collections::{BTreeMap, HashSet};

use url::Url;

use super::Outside;
use super::secret::{resolve, resolve_with};
use crate::domain::hook::{Action, CommandAction, HttpAction, Secret};
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::{text, variable};
use crate::yaml::value::{Value, all};

/// Headers that are not the hook's to set: the invocation's key, and what frames a message on its connection.
const RESERVED: [&str; 11] = [
    "idempotency-key",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn read(value: Value<'_>, outside: &Outside<'_>) -> Option<Action> {
    let value = value.secret_unless_map();
    let mut fields = value.fields()?;
    let empty = fields.is_empty();
    let (http, command) = (fields.get("http"), fields.get("command"));
    fields.end();
    let both = http.is_some() && command.is_some();
    if both || empty {
        let found = if both { "both" } else { "neither" };
        value.wrong(Mismatch::new("either `http` or `command`").found(found));
    }
    let http = http.map(|http| read_http(&http.secret_unless_map(), outside));
    let command = command.map(|command| read_command(&command.secret_unless_map(), outside));
    match http {
        Some(http) => Some(Action::Http(http?)),
        None => Some(Action::Command(command??)),
    }
}

fn read_http(value: &Value<'_>, outside: &Outside<'_>) -> Option<HttpAction> {
    let mut fields = value.fields()?;
    let url = fields
        .require("url")
        .and_then(|url| url.secret().read(|text| resolve_with(text, outside, parse_url, unknown_url)));
    let headers = match fields.get("headers") {
        Some(headers) => read_headers(&headers.secret(), outside),
        None => Some(Vec::new()),
    };
    fields.end();
    Some(HttpAction { url: Secret::new(url?), headers: headers? })
}

/// No message repeats a part of the URL: all of it may be secret.
fn parse_url(text: &str) -> Result<Url, Mismatch> {
    let expected = || Mismatch::new("an http or https URL with a host");
    let url = Url::parse(text).map_err(|error| expected().found(format!("something else ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(expected().found("another scheme"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let mismatch = Mismatch::new("a URL without user and password").found("some");
        return Err(mismatch.help("send them as a header: authorization: \"Basic ${env:NAME}\""));
    }
    Ok(url)
}

/// Stands for a URL of which a part is not known here: another one for each text, so that changes show.
fn unknown_url(text: &str) -> Option<Url> {
    Url::parse_with_params("https://unknown.invalid", [("text", text)]).ok()
}

fn read_headers(value: &Value<'_>, outside: &Outside<'_>) -> Option<Vec<(String, Secret<String>)>> {
    let mut names = HashSet::new();
    all(value.entries()?.into_iter().map(|(key, value)| {
        let name = key.name.to_ascii_lowercase();
        if !is_token(&name) {
            value.wrong_key(key, Mismatch::new("the name of an HTTP header"));
        } else if RESERVED.contains(&name.as_str()) {
            value.wrong_key(key, Mismatch::new("a header that a hook may set"));
        } else if !names.insert(name.clone()) {
            value.wrong_key(key, Mismatch::new("each header once, in any case of its letters"));
        }
        let content = value.read(|text| parse_header(resolve(text, outside)?));
        Some((name, Secret::new(content?)))
    }))
}

/// RFC 9110, 5.6.2.
fn is_token(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(legal)
}

fn parse_header(content: String) -> Result<String, Mismatch> {
    if content.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Ok(content);
    }
    Err(Mismatch::new("a header value of printable ASCII").found("one with another character, such as a line break"))
}

fn read_command(value: &Value<'_>, outside: &Outside<'_>) -> Option<CommandAction> {
    let mut fields = value.fields()?;
    let argv = fields.require("argv").and_then(|argv| read_argv(&argv));
    let variables = match fields.get("env") {
        Some(variables) => read_variables(&variables.secret(), outside),
        None => Some(BTreeMap::new()),
    };
    let cwd = match fields.get("cwd") {
        Some(cwd) => cwd.read(text("a folder")).map(|cwd| Some(cwd.into())),
        None => Some(None),
    };
    fields.end();
    Some(CommandAction { argv: argv?, env: variables?, cwd: cwd? })
}

fn read_argv(value: &Value<'_>) -> Option<Vec<String>> {
    let mut first = true;
    let argv = value.list(|item| {
        let parse = if std::mem::take(&mut first) { parse_program } else { parse_argument };
        item.read(parse)
    })?;
    if argv.is_empty() {
        value.wrong(Mismatch::new("a program and its arguments").found("an empty list"));
    }
    Some(argv)
}

fn parse_program(program: &str) -> Result<String, Mismatch> {
    text("the name or path of a program")(program)?;
    parse_argument(program)
}

fn parse_argument(argument: &str) -> Result<String, Mismatch> {
    if argument.contains('\0') {
        return Err(Mismatch::new("an argument without NUL"));
    }
    if argument.contains("${env:") || argument.contains("${file:") {
        let mismatch = Mismatch::new("an argument that says all by itself");
        return Err(mismatch.help("everybody on the machine sees arguments; `${...}` works in the command's `env`"));
    }
    Ok(argument.to_owned())
}

fn read_variables(value: &Value<'_>, outside: &Outside<'_>) -> Option<BTreeMap<String, Secret<String>>> {
    let variables = all(value.entries()?.into_iter().map(|(key, value)| {
        if let Err(mismatch) = variable(&key.name) {
            value.wrong_key(key, mismatch);
        }
        let content = value.read(|content| {
            let content = resolve(content, outside)?;
            if content.contains('\0') { Err(Mismatch::new("a text without NUL")) } else { Ok(content) }
        });
        Some((key.name.clone(), Secret::new(content?)))
    }));
    Some(variables?.into_iter().collect())
}
