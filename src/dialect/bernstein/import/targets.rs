//! Where sinks send to, by kind, and what runs in place of each.

use serde_json::{Map, Value as Json, json};

use super::Reading;
use super::draft::{Said, said};
use super::entry::{field, literal, referring, required};
use super::lax::flag;
use super::scalar::Scalar;
use crate::domain::escape::quoted;
use crate::yaml::problem::Mismatch;
use crate::yaml::value::{Value, all};

/// Kinds of which hooks are made.
pub(super) const KINDS: [&str; 5] = ["webhook", "shell", "slack", "discord", "telegram"];
/// Seconds that a kind has which does not say `timeout_s`.
const TIMEOUT_S: f64 = 10.0;
const SHELL_S: f64 = 30.0;

/// A title in stars, and the body below it if there is one.
const SLACK_TEXT: &str = r#""*{{ event.data.title }}*{% if event.data.body %}\n{{ event.data.body }}{% endif %}""#;
const DISCORD_EMBED: &str = concat!(
    r#"{"title": "{{ event.data.title[:256] }}", "description": "{{ event.data.body[:4000] }}", "#,
    r#""color": {% if event.data.severity == "warning" %}15844367{% elif event.data.severity == "error" %}15158332"#,
    r"{% else %}3447003{% endif %}}"
);
const TELEGRAM_FORM: &str = "text={{ event.data.title }}{% if event.data.body %}%0A%0A{{ event.data.body }}{% endif %}";

/// What runs in place of a sink.
pub(super) struct Target {
    pub run: (&'static str, Json),
    pub seconds: f64,
    pub remarks: Vec<Said>,
}

/// Fields of a kind beside those of all sinks.
pub(super) fn keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "webhook" => &["url", "headers", "timeout_s", "status_proof"],
        "shell" => &["command", "env", "timeout_s", "non_zero_exit_is_permanent"],
        "slack" => &["webhook_url", "username", "icon_emoji", "channel", "timeout_s"],
        "discord" => &["webhook_url", "username", "avatar_url", "timeout_s"],
        "telegram" => &["token", "chat_id", "thread_id", "timeout_s"],
        _ => &[],
    }
}

/// What runs in place of a sink. `None`: no hook is made of this kind. The inner one: something is wrong, and reported.
#[expect(clippy::option_option, reason = "no such kind, or a wrong one")]
pub(super) fn read(kind: &str, sink: &Value<'_>, reading: &Reading) -> Option<Option<Target>> {
    Some(match kind {
        "webhook" => webhook(sink),
        "shell" => shell(sink, reading),
        "slack" => slack(sink),
        "discord" => discord(sink),
        "telegram" => telegram(sink),
        _ => return None,
    })
}

fn seconds(sink: &Value<'_>, default: f64) -> Option<f64> {
    let Some(value) = field(sink, "timeout_s") else { return Some(default) };
    let number = Scalar::of(&value).and_then(|scalar| scalar.number()).filter(|number| !number.is_nan());
    if number.is_none() {
        value.wrong(Mismatch::new("a number of seconds"));
    }
    number
}

/// A URL that has to be there. Many have a secret in their path.
fn url(sink: &Value<'_>, name: &str, remarks: &mut Vec<Said>) -> Option<String> {
    let value = required(sink, name)?;
    let url = referring(&value.clone().secret(), name, remarks)?;
    if url.text.is_empty() {
        value.wrong(Mismatch::new("a URL").found("an empty text"));
        return None;
    }
    Some(url.text)
}

fn webhook(sink: &Value<'_>) -> Option<Target> {
    let mut remarks = Vec::new();
    let url = url(sink, "url", &mut remarks);
    let headers = headers(sink, &mut remarks);
    let seconds = seconds(sink, TIMEOUT_S);
    let has_proof = field(sink, "status_proof").map_or(Some(true), |value| flag(&value));
    let (url, headers, seconds, has_proof) = (url?, headers?, seconds?, has_proof?);
    if has_proof {
        remarks.push(said(
            "Bernstein adds `automation_bridge_proof` to the body, signed with a key of its machine. Here it is left out",
            "see whether the receiver looks at it; `sign` of a hook lets it know who calls",
        ));
    }
    let mut run = Map::from_iter([("url".to_owned(), json!(url))]);
    if !headers.is_empty() {
        run.insert("headers".to_owned(), Json::Object(headers));
    }
    Some(Target { run: ("http", Json::Object(run)), seconds, remarks })
}

fn headers(sink: &Value<'_>, remarks: &mut Vec<Said>) -> Option<Map<String, Json>> {
    let Some(value) = field(sink, "headers").filter(|value| !value.is_nothing()) else { return Some(Map::new()) };
    if value.is_list() && value.list(|_| Some(())).is_some_and(|items| items.is_empty()) {
        return Some(Map::new());
    }
    let mut headers = Map::new();
    let read = all(value.entries()?.into_iter().map(|(key, value)| {
        let name = &key.name;
        match Scalar::of(&value) {
            Some(Scalar::Text(_)) => {
                let referring = referring(&value.secret(), &format!("headers.{name}"), remarks)?;
                headers.insert(name.clone(), json!(referring.text));
            }
            _ => remarks.push(said(
                format!("The header {} is no text: Bernstein leaves it out, and so does the hook", quoted(name)),
                "quote its value",
            )),
        }
        Some(())
    }));
    read.map(|_| headers)
}

fn shell(sink: &Value<'_>, reading: &Reading) -> Option<Target> {
    let command = required(sink, "command").and_then(|value| {
        let words = value.list(|word| {
            let word = Scalar::of(&word).map(|scalar| scalar.shown())?;
            Some(word)
        })?;
        if words.is_empty() {
            value.wrong(Mismatch::new("a program and its arguments").found("an empty list"));
        }
        (!words.is_empty()).then(|| reading.arguments(&value, &words))?
    });
    let env = variables(sink);
    let seconds = seconds(sink, SHELL_S);
    let is_final = field(sink, "non_zero_exit_is_permanent").map_or(Some(false), |value| flag(&value));
    let (mut command, env, seconds, is_final) = (command?, env?, seconds?, is_final?);
    let Json::Object(run) = &mut command else { return None };
    if !env.is_empty() {
        run.insert("env".to_owned(), Json::Object(env));
    }
    let exits = if is_final { "fail" } else { "retry" };
    run.insert("exit_codes".to_owned(), json!({ "other": exits }));
    Some(Target { run: ("command", command), seconds, remarks: Vec::new() })
}

/// Texts as they are: Bernstein puts no variables into them.
fn variables(sink: &Value<'_>) -> Option<Map<String, Json>> {
    let Some(value) = field(sink, "env").filter(|value| !value.is_nothing()) else { return Some(Map::new()) };
    let variable = |(key, value): (&crate::yaml::Key, Value<'_>)| match Scalar::of(&value) {
        Some(scalar) if !scalar.shown().contains("${") => Some((key.name.clone(), json!(scalar.shown()))),
        Some(_) => {
            let mismatch = Mismatch::new("a value without `${`").found("one with it");
            value.wrong(mismatch.help("Bernstein hands it on as it is written, and a hooks file puts in a variable"));
            None
        }
        None => {
            value.wrong(Mismatch::new("a text"));
            None
        }
    };
    let read: Vec<_> = value.entries()?.into_iter().map(variable).collect();
    read.into_iter().collect()
}

/// A text of a body, as JSON; `None` inside: it is not there.
#[expect(clippy::option_option, reason = "wrong, or not there")]
fn member(sink: &Value<'_>, name: &'static str, as_name: &str) -> Option<Option<String>> {
    let Some(value) = field(sink, name).filter(|value| !value.is_nothing()) else { return Some(None) };
    let text = referring(&value, name, &mut Vec::new())?;
    if !text.is_literal {
        value.wrong(Mismatch::new("a text without variables"));
        return None;
    }
    Some(Some(format!("{}: {}", json!(as_name), json!(text.text))))
}

fn chat(sink: &Value<'_>, first: String, members: [(&'static str, &str); 3]) -> Option<Target> {
    let mut remarks = Vec::new();
    let url = url(sink, "webhook_url", &mut remarks);
    let seconds = seconds(sink, TIMEOUT_S);
    let members: Vec<_> = members
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, as_name)| member(sink, name, as_name))
        .collect();
    let members: Option<Vec<Option<String>>> = members.into_iter().collect();
    let (url, seconds, members) = (url?, seconds?, members?);
    let body = std::iter::once(first).chain(members.into_iter().flatten()).collect::<Vec<_>>().join(", ");
    let run = json!({ "url": url, "body": format!("{{{body}}}") });
    Some(Target { run: ("http", run), seconds, remarks })
}

fn slack(sink: &Value<'_>) -> Option<Target> {
    let members = [("username", "username"), ("icon_emoji", "icon_emoji"), ("channel", "channel")];
    chat(sink, format!("\"text\": {SLACK_TEXT}"), members)
}

fn discord(sink: &Value<'_>) -> Option<Target> {
    let members = [("username", "username"), ("avatar_url", "avatar_url"), ("", "")];
    chat(sink, format!("\"embeds\": [{DISCORD_EMBED}]"), members)
}

fn telegram(sink: &Value<'_>) -> Option<Target> {
    let mut remarks = Vec::new();
    if field(sink, "bridge").is_some() {
        sink.wrong(Mismatch::new("a `token`").found("a `bridge`, which is an object of Python"));
        return None;
    }
    let token = required(sink, "token").and_then(|value| {
        let token = referring(&value.secret(), "token", &mut remarks)?;
        remarks.extend(literal(&token, "token"));
        Some(token)
    });
    let name = if field(sink, "chat_id").is_some() { "chat_id" } else { "thread_id" };
    let chat = required(sink, name).and_then(|value| match Scalar::of(&value)? {
        Scalar::Text(text) => referring(&value, name, &mut remarks).filter(|_| !text.is_empty()).map(|it| it.text),
        other => Some(other.shown()),
    });
    let seconds = seconds(sink, TIMEOUT_S);
    let (token, chat, seconds) = (token?, chat?, seconds?);
    remarks.push(said(
        "Bernstein tries again after any answer of Telegram, and calls getMe, deleteWebhook and getUpdates besides. Here answers such \
         as 400 are final, and only sendMessage is called",
        "see that nothing relies on the webhook of the bot being deleted",
    ));
    let run = json!({
        "url": format!("https://api.telegram.org/bot{}/sendMessage", token.text),
        "headers": { "content-type": "application/x-www-form-urlencoded" },
        "body": format!("chat_id={}&{TELEGRAM_FORM}", form(&chat)),
    });
    Some(Target { run: ("http", run), seconds, remarks })
}

/// A value of a form. References to variables stay, whose values are ids.
fn form(text: &str) -> String {
    if text.starts_with("${env:") {
        return text.to_owned();
    }
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
