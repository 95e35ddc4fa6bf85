//! The contract of Bernstein, an orchestrator of agents in Python (3.23.0). It has five surfaces that have nothing in common
//! but the name, and a documented form that none of them takes.
//!
//! | surface | event here | what a target gets | how its reply is read |
//! |---|---|---|---|
//! | webhooks | `bernstein.{event}` | the flat payload as `json.dumps` writes it, `X-Bernstein-Event` and `X-Bernstein-Timestamp` besides | 2xx is done, any other may pass |
//! | the documented form | the same | `{event, timestamp, data}`: http hooks with `format: envelope`, and all commands | the same; a gate's exit other than 0 refuses |
//! | lifecycle scripts | `bernstein.lifecycle.{event}` | the envelope with task, session, folder and environment | JSON that denies, mutates or annotates; any exit but 0 is a failure |
//! | files for hooks of plugins | `bernstein.plugin.{hook}` | the arguments, and each in `BERNSTEIN_HOOK_…` | JSON whose `data` are joined with the arguments; exit 2 refuses, others are failures |
//! | notification sinks | `bernstein.notification.{kind}` | the payload, compact for http hooks | 2xx is done; 408, 425, 429 and 5xx may pass |
//!
//! Gates of one event are asked in turn, up to the first that refuses or ends the chain; each gets what the ones before it have
//! made of the data. An event of another system is given as an envelope, with the whole event as its data.

use std::borrow::Cow;
use std::time::Duration;

use super::native;
use crate::domain::aggregation::{Aggregation, Order, StopAt};
use crate::domain::contract::{About, Body, Exchange, Question, Raw, Reply};
use crate::domain::decision::{Answer, Json};
use crate::domain::escape::quoted;
use crate::domain::event::{Event, ForeignEvent};
use crate::domain::excerpt::{excerpt, with_excerpt};
use crate::domain::failure::Class;
use crate::domain::hook::{Action, Format, Hook};
use crate::domain::invocation::Invocation;
use crate::domain::outcome::{Again, Failure, Outcome};
use crate::domain::pattern::Pattern;
use crate::domain::redaction::Secrets;
use crate::domain::retry::RetryPolicy;
use names::{Surface, TYPE_PREFIX};
use payload::Payload;
use python::{Members, Style, dumps, json_text, object, sorted, stripped};

pub(super) mod import;
mod names;
mod payload;
mod python;
mod replies;
pub mod signed;

const JSON_TYPE: (&str, Cow<'_, str>) = ("content-type", Cow::Borrowed("application/json"));
/// The exit code by which a file refuses for a hook of plugins.
const BLOCKS: i32 = 2;

pub(super) fn decode(json: &[u8], named: Option<&str>) -> Result<ForeignEvent, String> {
    let text = std::str::from_utf8(json).map_err(|_| "expected a payload of Bernstein in UTF-8".to_owned())?;
    let payload = Payload::read(text, named)?;
    let id = payload.members.text("event_id").filter(|_| payload.surface == Surface::Notification);
    let subject = payload.subject();
    Ok(ForeignEvent { kind: payload.surface.kind(&payload.name), subject, id, ..ForeignEvent::default() })
}

/// What is said without asking: arguments that a hook of plugins may not be given are refused before any file runs.
pub(super) fn prejudged(hook: &Hook, event: &Event, input: Option<&Json>) -> Option<Answer> {
    let (name, wrong) = misfit(hook, event, input)?;
    Some(replies::invalid(name, &wrong))
}

/// Of arguments that a hook of plugins may not be given: its name, and what is wrong with them.
fn misfit<'e>(hook: &Hook, event: &'e Event, input: Option<&Json>) -> Option<(&'e str, String)> {
    let (Some((Surface::Plugin, name)), Action::Command(_)) = (Surface::of(&event.kind), &hook.action) else {
        return None;
    };
    let arguments = match input {
        Some(input) => input.as_str().to_owned(),
        None => Payload::of(event)?.passed_on(),
    };
    Some((name, replies::check(name, &arguments).err()?))
}

/// What one attempt carries, before it is put where its executor takes it.
struct Carried {
    body: String,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    env: Vec<(Cow<'static, str>, Cow<'static, str>)>,
}

pub(super) fn encode<'a>(
    hook: &'a Hook,
    invocation: &'a Invocation,
    key: &'a str,
    question: Option<&Question<'_>>,
) -> Result<Exchange<'a>, String> {
    let exchange = Exchange { reads_body: question.is_some(), ..Exchange::default() };
    if let (None, Some((name, wrong))) = (question, misfit(hook, &invocation.event, None)) {
        return Err(format!("expected arguments of {name}: {wrong}"));
    }
    let is_http = match &hook.action {
        Action::Http(action) => {
            if action.body.is_some() || !matches!(action.format, Format::Native | Format::Envelope) {
                return native::encode(hook, invocation, key, question);
            }
            true
        }
        Action::Command(_) | Action::Callback(_) => false,
        Action::Publish(_) | Action::Model(_) => return native::encode(hook, invocation, key, question),
    };
    let is_envelope = matches!(&hook.action, Action::Http(action) if action.format == Format::Envelope);
    let input = question.and_then(|question| question.input).map(Json::as_str);
    let Carried { body, headers, mut env } = carried(hook, invocation, (is_http, is_envelope), input);
    let body = body.into();
    Ok(match &hook.action {
        Action::Http(_) => {
            let mut all = native::headers(invocation, key);
            all.extend(headers);
            Exchange { body, default_headers: vec![JSON_TYPE], headers: all, ..exchange }
        }
        Action::Command(_) => {
            env.extend(
                native::variables(hook, invocation, key)
                    .into_iter()
                    .map(|(name, value)| (name, Cow::Owned(value.into_owned()))),
            );
            Exchange { body, env, ends_with_output: true, ..exchange }
        }
        Action::Callback(_) | Action::Publish(_) | Action::Model(_) => Exchange { body, ..exchange },
    })
}

fn carried(hook: &Hook, invocation: &Invocation, (is_http, is_envelope): (bool, bool), input: Option<&str>) -> Carried {
    let event = &invocation.event;
    let bare = |body: &str, style| Carried { body: dumps(body, style), headers: Vec::new(), env: Vec::new() };
    let Some(payload) = Payload::of(event) else {
        let whole = String::from_utf8_lossy(&event.body);
        let kind = json_text(&event.kind);
        return bare(&object([("event", &*kind), ("timestamp", "null"), ("data", &*whole)]), Style::Default);
    };
    match payload.surface {
        Surface::Webhook => {
            let body = if is_http && !is_envelope { payload.flat() } else { payload.envelope() };
            let mut carried = bare(&body, Style::Default);
            carried.headers.push((Cow::Borrowed("x-bernstein-event"), Cow::Owned(payload.name.clone())));
            let seconds =
                payload.seconds().map(|seconds| (Cow::Borrowed("x-bernstein-timestamp"), Cow::Owned(seconds)));
            carried.headers.extend(seconds);
            carried
        }
        Surface::Notification if is_http => bare(&object(payload.members.iter()), Style::Compact),
        Surface::Notification => {
            Carried { env: sink_env(hook, &payload), ..bare(&object(payload.members.iter()), Style::Default) }
        }
        Surface::Lifecycle => {
            Carried { env: script_env(hook, &payload), ..bare(&payload.script(input), Style::Default) }
        }
        Surface::Plugin => {
            let arguments = input.map_or_else(|| object(payload.members.iter()), str::to_owned);
            Carried { env: file_env(&arguments), ..bare(&arguments, Style::Default) }
        }
    }
}

type Env = Vec<(Cow<'static, str>, Cow<'static, str>)>;

fn variable(name: impl Into<Cow<'static, str>>, value: &str) -> (Cow<'static, str>, Cow<'static, str>) {
    (name.into(), Cow::Owned(native::variable(value).into_owned()))
}

fn sink_env(hook: &Hook, payload: &Payload<'_>) -> Env {
    let of = |name: &str| payload.members.text(name).unwrap_or_default();
    vec![
        variable("BERNSTEIN_NOTIFY_EVENT_ID", &of("event_id")),
        variable("BERNSTEIN_NOTIFY_KIND", &of("kind")),
        variable("BERNSTEIN_NOTIFY_SEVERITY", &of("severity")),
        variable("BERNSTEIN_NOTIFY_SINK_ID", name(hook)),
    ]
}

/// What the payload itself sets goes over the rest. Who publishes events may not choose what a program is loaded with: of others than
/// `BERNSTEIN_…` only those that the hook's own `env` names are set.
fn script_env(hook: &Hook, payload: &Payload<'_>) -> Env {
    let named =
        [("BERNSTEIN_TASK_ID", "task"), ("BERNSTEIN_SESSION_ID", "session_id"), ("BERNSTEIN_WORKDIR", "workdir")];
    let mut env = vec![variable("BERNSTEIN_EVENT", &payload.name)];
    let text = |of: &str| serde_json::from_str::<String>(payload.members.get(of)?).ok();
    env.extend(named.into_iter().filter_map(|(name, of)| Some(variable(name, &text(of)?))));
    let own = payload.members.get("env").and_then(Members::read).unwrap_or_default();
    let is_named = |name: &str| matches!(&hook.action, Action::Command(action) if action.env.contains_key(name));
    let may_be = |name: &str| is_variable(name) && (name.starts_with("BERNSTEIN_") || is_named(name));
    for (name, value) in own.iter().filter(|(name, _)| may_be(name)) {
        let value = serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_owned());
        env.push(variable(name.to_owned(), &value));
    }
    env
}

/// Each argument: texts as they are, others as JSON with its keys in order.
fn file_env(arguments: &str) -> Env {
    let members = Members::read(arguments).unwrap_or_default();
    let of = |(name, json): (&str, &str)| {
        let value = serde_json::from_str::<String>(json).unwrap_or_else(|_| dumps(&sorted(json), Style::Default));
        variable(format!("BERNSTEIN_HOOK_{}", name.to_uppercase()), &value)
    };
    members.iter().filter(|(name, _)| is_variable(name)).map(of).collect()
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

pub(super) fn read(
    hook: &Hook,
    about: &About<'_>,
    raw: Raw,
    secrets: impl FnOnce() -> Vec<String>,
) -> Result<Reply, Outcome> {
    let asks = about.question.is_some();
    let surface = Surface::of(&about.event.kind);
    match (raw, surface) {
        (Raw::Http { status, reason, body, sent, .. }, Some((Surface::Webhook, _)))
            if !asks && !(200..300).contains(&status) =>
        {
            Err(native::refused((status, reason), Again::Later(None), sent, body.beginning(), secrets()))
        }
        (Raw::Exit { stdout: Body::TooLarge { bytes_max, .. }, .. }, Some(_)) if asks => {
            // What is cut off could be the refusal.
            Err(Outcome::never(Class::Rejected, format!("the answer has more than {bytes_max} bytes")))
        }
        (Raw::Exit { code, stdout, stderr }, Some((surface, name))) if surface != Surface::Notification => {
            let said = Said { code, stdout: &stdout, stderr: &stderr };
            match surface {
                Surface::Lifecycle => said.by_script(hook, about, secrets()),
                Surface::Plugin => said.by_file(hook, about, name, secrets()),
                Surface::Webhook | Surface::Notification if asks => Ok(Some(Box::new(said.by_blocking(secrets())))),
                Surface::Webhook | Surface::Notification => {
                    native::read(hook, about, Raw::Exit { code, stdout, stderr }, secrets)
                }
            }
        }
        (raw, _) => native::read(hook, about, raw, secrets),
    }
}

/// How a program has ended.
struct Said<'s> {
    code: i32,
    stdout: &'s Body,
    stderr: &'s [u8],
}

impl Said<'_> {
    fn by_script(&self, hook: &Hook, about: &About<'_>, secrets: Vec<String>) -> Result<Reply, Outcome> {
        if self.code != 0 {
            return Err(self.failed(hook, secrets));
        }
        let data = about.question.and_then(|question| question.input).map(|input| input.as_str().to_owned());
        let data = data.or_else(|| Some(Payload::of(about.event)?.passed_on())).unwrap_or_default();
        Ok(answered(about, replies::script(&self.stdout(), &data), secrets))
    }

    fn by_file(&self, hook: &Hook, about: &About<'_>, name: &str, secrets: Vec<String>) -> Result<Reply, Outcome> {
        let given = about.question.and_then(|question| question.input).map(|input| input.as_str().to_owned());
        let given = given.or_else(|| Some(Payload::of(about.event)?.passed_on())).unwrap_or_default();
        match self.code {
            0 => Ok(answered(about, replies::file(name, &self.stdout(), &given), secrets)),
            BLOCKS => {
                let stderr = String::from_utf8_lossy(self.stderr);
                Ok(answered(about, replies::blocked(name, &self.stdout(), &stderr), secrets))
            }
            _ => Err(self.failed(hook, secrets)),
        }
    }

    /// Of the documented form: any exit but 0 refuses.
    fn by_blocking(&self, secrets: Vec<String>) -> Answer {
        if self.code == 0 {
            return Answer::default();
        }
        let (stdout, stderr) = (self.stdout(), String::from_utf8_lossy(self.stderr));
        let said = [stripped(&stderr), stripped(&stdout)].into_iter().find(|text| !text.is_empty()).map(str::to_owned);
        let reason = said.unwrap_or_else(|| format!("exit {}", self.code));
        Answer::refusal(&reason).redacted(&Secrets::new(secrets))
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(self.stdout.beginning()).into_owned()
    }

    /// It is not tried again there, and here if the hook says so.
    fn failed(&self, hook: &Hook, secrets: Vec<String>) -> Outcome {
        let again = if hook.retry.attempts > 1 { Again::Later(None) } else { Again::Never(Class::Rejected) };
        let explains = if self.stderr.trim_ascii().is_empty() { self.stdout.beginning() } else { self.stderr };
        let error = with_excerpt(format!("exit {}", self.code), &excerpt(explains, secrets));
        Outcome::Failed(Failure::new(again, Some(self.code), error))
    }
}

/// An observer that refuses has nobody to refuse.
fn answered(about: &About<'_>, answer: Answer, secrets: Vec<String>) -> Reply {
    about.question.is_some().then(|| Box::new(answer.redacted(&Secrets::new(secrets))))
}

pub(super) const fn aggregation() -> Aggregation {
    Aggregation { order: Order::InTurn(StopAt::Denial), passes_input: true }
}

/// Three tries, after 1 and 2 s, as its webhooks have it. Scripts and files of plugins are run once.
pub(super) fn retry(on: &[Pattern]) -> RetryPolicy {
    let is_script =
        |kind: &Pattern| matches!(Surface::of(kind.as_str()), Some((Surface::Lifecycle | Surface::Plugin, _)));
    let attempts = if !on.is_empty() && on.iter().all(is_script) { 1 } else { 3 };
    RetryPolicy { attempts, initial: Duration::from_secs(1), jitter: 0.0, ..RetryPolicy::default() }
}

/// Such as `lifecycle.preToolUse "scripts/no-push.sh", command`.
pub(super) fn words(hook: &Hook) -> String {
    let short = |kind: &Pattern| kind.as_str().strip_prefix(TYPE_PREFIX).unwrap_or_else(|| kind.as_str()).to_owned();
    let events: Vec<String> = hook.on.iter().map(short).collect();
    format!("{} {}, {}", events.join(" and "), quoted(name(hook)), hook.action.kind())
}

fn name(hook: &Hook) -> &str {
    hook.name.as_deref().unwrap_or_else(|| hook.id.as_str())
}

#[cfg(test)]
mod tests;
