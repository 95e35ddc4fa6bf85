//! What a hook does.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::model::ModelAction;
use crate::domain::oauth::ClientCredentials;
use crate::domain::secret::Secret;
use crate::domain::signature::Signing;
use crate::domain::template::Text;
use crate::domain::tls::Tls;

/// How a hook is run, as data.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Http(HttpAction),
    Command(CommandAction),
    /// A function of the program that the worker is part of, by name.
    Callback(String),
    Publish(PublishAction),
    Model(Box<ModelAction>),
}

/// How an http hook calls (RFC 9110, 9.3; RFC 5789).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    #[default]
    Post,
    Put,
    Patch,
    Delete,
    /// Without a body.
    Get,
}

impl Method {
    pub const ALL: [(&'static str, Self); 5] = [
        ("POST", Self::Post),
        ("PUT", Self::Put),
        ("PATCH", Self::Patch),
        ("DELETE", Self::Delete),
        ("GET", Self::Get),
    ];

    /// As it is sent.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Get => "GET",
        }
    }
}

/// Whether bodies are compressed on their way (RFC 9110, 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    None,
    /// Where it makes a body smaller.
    Gzip,
}

impl Compression {
    pub const ALL: [(&'static str, Self); 2] = [("none", Self::None), ("gzip", Self::Gzip)];
}

/// What an http hook without a body of its own sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The wire payload, with the event in it.
    #[default]
    Native,
    /// The event, as CloudEvents in structured mode (HTTP protocol binding 1.0.2, 3.2).
    CloudEvents,
    /// The event, as CloudEvents in binary mode: its data, with the attributes in headers (3.1).
    CloudEventsBinary,
    /// `{event, timestamp, data}`, as Bernstein's documentation has it; of its dialect only.
    Envelope,
}

impl Format {
    pub const ALL: [(&'static str, Self); 4] = [
        ("native", Self::Native),
        ("cloudevents", Self::CloudEvents),
        ("cloudevents-binary", Self::CloudEventsBinary),
        ("envelope", Self::Envelope),
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }
}

/// A request: of the wire payload, of the event, or of a body of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpAction {
    pub method: Method,
    /// http or https, with a host, without user info. May hold a secret in path or query: never shown whole. Of a URL with
    /// a template it is what stands before that, which names the host and the port.
    pub url: Secret<Url>,
    /// The URL as it is written.
    pub text: Text,
    /// Lower-case names; values may hold secrets.
    pub headers: Vec<(String, Text)>,
    /// In place of what the format says.
    pub body: Option<Text>,
    pub format: Format,
    pub compression: Compression,
    pub signing: Box<Signing>,
    /// Who calls, by a token in the header `authorization`, which is then none of `headers`.
    pub oauth: Option<Arc<ClientCredentials>>,
    pub tls: Tls,
}

impl HttpAction {
    /// Without templates.
    #[must_use]
    pub fn plain(url: Url, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Text::plain(*value)));
        Self {
            method: Method::default(),
            text: Text::plain(url.as_str()),
            url: Secret::new(url),
            headers: headers.collect(),
            body: None,
            format: Format::default(),
            compression: Compression::default(),
            signing: Box::default(),
            oauth: None,
            tls: Tls::default(),
        }
    }

    /// All that may hold templates and values from outside.
    pub fn texts(&self) -> impl Iterator<Item = &Text> + Clone {
        let of_token = self.oauth.iter().flat_map(|oauth| oauth.texts());
        [&self.text].into_iter().chain(self.headers.iter().map(|(_, text)| text)).chain(&self.body).chain(of_token)
    }
}

/// A program run with the wire payload on stdin.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandAction {
    /// Program and arguments; no shell but one that is named here.
    pub argv: Vec<String>,
    /// Variables set for it, beside the allow-listed ones.
    pub env: BTreeMap<String, Secret<String>>,
    pub cwd: Option<PathBuf>,
    pub exit_codes: ExitCodes,
    pub fences: Box<Fences>,
}

impl CommandAction {
    /// Without anything special.
    #[must_use]
    pub fn plain(argv: &[&str]) -> Self {
        Self {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: BTreeMap::new(),
            cwd: None,
            exit_codes: ExitCodes::default(),
            fences: Box::default(),
        }
    }
}

/// What an exit code means, other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exit {
    Done,
    #[default]
    Retry,
    /// It would end so again.
    Fail,
}

impl Exit {
    pub const ALL: [(&'static str, Self); 3] = [("done", Self::Done), ("retry", Self::Retry), ("fail", Self::Fail)];
}

/// What the exit codes of a program mean. 0 is done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExitCodes {
    /// None of them twice.
    pub named: Vec<(RangeInclusive<u8>, Exit)>,
    /// All others, but [`ExitCodes::TEMPORARY`].
    pub other: Exit,
}

impl ExitCodes {
    /// `EX_TEMPFAIL` of sysexits.h: the user is invited to retry.
    pub const TEMPORARY: u8 = 75;

    /// Whether the hook says itself what this code means.
    #[must_use]
    pub fn names(&self, code: i32) -> bool {
        u8::try_from(code).is_ok_and(|code| self.named.iter().any(|(codes, _)| codes.contains(&code)))
    }

    #[must_use]
    pub fn meaning(&self, code: i32) -> Exit {
        let Ok(code) = u8::try_from(code) else { return Exit::Retry };
        let named = self.named.iter().find(|(codes, _)| codes.contains(&code));
        match (named, code) {
            (Some((_, exit)), _) => *exit,
            (None, 0) => Exit::Done,
            (None, Self::TEMPORARY) => Exit::Retry,
            (None, _) => self.other,
        }
    }
}

/// A message to an exchange (AMQP 0-9-1).
#[derive(Debug, Clone, PartialEq)]
pub struct PublishAction {
    /// `None`: the fleet's own.
    pub server: Option<Box<Server>>,
    /// `None`: the fleet's own, for events.
    pub exchange: Option<String>,
    /// `None`: the message's type.
    pub routing_key: Option<Text>,
    /// The property `type`. `None`: the event's.
    pub kind: Option<Text>,
    /// Values may hold secrets.
    pub headers: Vec<(String, Text)>,
    /// In place of the event.
    pub body: Option<Text>,
    pub content_type: String,
    /// Whether a message that no queue gets is a failure.
    pub mandatory: bool,
}

/// A broker that is not the fleet's.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// amqp or amqps, with a host. May hold a password.
    pub url: Secret<Url>,
    /// The URL as it is written.
    pub text: Text,
    pub tls: Tls,
}

impl PublishAction {
    /// All that may hold templates and values from outside.
    pub fn texts(&self) -> impl Iterator<Item = &Text> + Clone {
        let server = self.server.as_ref().map(|server| &server.text);
        let headers = self.headers.iter().map(|(_, text)| text);
        server.into_iter().chain(&self.routing_key).chain(&self.kind).chain(headers).chain(&self.body)
    }

    /// The broker and the exchange, safe to show.
    #[must_use]
    pub fn target(&self) -> String {
        let exchange = self.exchange.as_deref().unwrap_or("events");
        match &self.server {
            None => format!("publish:{exchange}"),
            Some(server) => format!("{}/{exchange}", server.text.origin(server.url.expose())),
        }
    }
}

/// What keeps a program in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)] // a shim of another version leaves none of them out
pub struct Fences {
    pub limits: Limits,
    /// It and all that it starts gain no rights by starting programs (`no_new_privs`).
    pub no_new_privileges: bool,
    /// Nothing: all files that its user may open.
    pub files: Option<Files>,
}

/// What each process of a program may use; `None`: what the worker may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)] // a shim of another version leaves none of them out
pub struct Limits {
    /// Processor time, in seconds.
    pub cpu_s: Option<u64>,
    /// Address space, in bytes.
    pub memory: Option<u64>,
    /// Open files.
    pub files: Option<u64>,
    /// Processes and threads of its user beside those that were there when it was started. Nothing to root.
    pub processes: Option<u64>,
}

/// The only files and folders that a program may open, with what is in them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)] // a shim of another version leaves none of them out
pub struct Files {
    /// To read, and to run.
    pub read: Vec<PathBuf>,
    /// To read, run, change, make and remove.
    pub write: Vec<PathBuf>,
}

impl Action {
    /// Names exactly what this hook calls: the target, and a digest of what may not be shown of it.
    #[must_use]
    pub fn identity(&self) -> String {
        let digest = match self {
            Self::Http(http) => {
                let mut digest = Sha256::new_with_prefix(http.url.expose().as_str());
                for piece in http.text.pieces().iter().filter(|_| http.text.is_template()) {
                    digest.update(piece.value());
                }
                digest.update(http.tls.parts()); // trouble with these is not the target's
                digest.finalize()
            }
            Self::Command(command) => Sha256::digest(command.argv.join("\0")),
            Self::Callback(name) => Sha256::digest(name),
            Self::Model(model) => Sha256::digest(model.target()),
            Self::Publish(publish) => {
                let mut digest = Sha256::new();
                if let Some(server) = &publish.server {
                    let url = server.url.expose();
                    digest.update(format!("{} {} {}", url.username(), publish.target(), url.path())); // no password: it is shown
                    digest.update(server.tls.parts()); // trouble with these is not the target's
                }
                digest.update([0]);
                digest.update(publish.exchange.as_deref().unwrap_or_default());
                digest.finalize()
            }
        };
        format!("{}#{}", self.target(), hex::encode(&digest[..4]))
    }

    /// Whether its URL is the same for all events.
    #[must_use]
    pub const fn calls_one_url(&self) -> bool {
        matches!(self, Self::Http(http) if !http.text.is_template())
    }

    /// The name that hooks files have for it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Command(_) => "command",
            Self::Callback(_) => "callback",
            Self::Publish(_) => "publish",
            Self::Model(model) => model.kind(),
        }
    }

    /// Where this hook goes, safe to show: scheme, host and port, or the program's name. Of a server that is not known to
    /// this process, how it is written.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Self::Http(http) => http.text.origin(http.url.expose()),
            Self::Command(command) => format!("command:{}", command.argv.first().map_or("", String::as_str)),
            Self::Callback(name) => format!("callback:{name}"),
            Self::Publish(publish) => publish.target(),
            Self::Model(model) => model.target(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let named = vec![(3..=3, Exit::Done), (64..=78, Exit::Fail)];
        let check = |codes: &ExitCodes, expected: &[(i32, Exit)]| {
            for (code, exit) in expected {
                assert_eq!(codes.meaning(*code), *exit, "{code}");
            }
        };
        let usual = ExitCodes::default();
        check(&usual, &[(0, Exit::Done), (1, Exit::Retry), (75, Exit::Retry), (255, Exit::Retry), (-1, Exit::Retry)]);
        let strict = ExitCodes { named: vec![], other: Exit::Fail };
        check(&strict, &[(0, Exit::Done), (1, Exit::Fail), (75, Exit::Retry), (-1, Exit::Retry)]);
        let named = ExitCodes { named, other: Exit::Retry };
        check(&named, &[(0, Exit::Done), (3, Exit::Done), (63, Exit::Retry), (64, Exit::Fail), (75, Exit::Fail)]);
    }

    #[test]
    fn targets_show_no_secret() {
        let url = Url::parse("https://hooks.example.com:8443/services/T0/secret?key=1").unwrap();
        let action = Action::Http(HttpAction::plain(url, &[]));
        assert_eq!(action.target(), "https://hooks.example.com:8443");
        assert!(action.identity().starts_with("https://hooks.example.com:8443#"));
        assert!(!action.identity().contains("secret"));
        assert!(!format!("{action:?}").contains("secret"));
    }
}
