//! `hookfleet hooks test`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use serde_json::json;

use crate::cli::output;
use crate::config::{Backend, Settings};
use crate::dialect;
use crate::domain::claim::{Next, Settlement};
use crate::domain::dialect::Dialect;
use crate::domain::escape::{name, quoted};
use crate::domain::event::{Event, Reading};
use crate::domain::expression::Facts;
use crate::domain::failure::Class;
use crate::domain::hook::{Action, CommandAction, Format, Hook, Matcher, PublishAction};
use crate::domain::invocation::Invocation;
use crate::domain::matching::{HookSet, Unmatched};
use crate::domain::message::{Destination, Outgoing};
use crate::domain::outcome::Outcome;
use crate::domain::pattern::{Glob, Pattern};
use crate::domain::publication;
use crate::domain::redaction::Secrets;
use crate::domain::request::Shown;
use crate::domain::settle::{Tried, settle};
use crate::domain::template::Text;
use crate::executor::callback::Callbacks;
use crate::executor::publish::Home;
use crate::executor::{self, Execute as _, Executors};
use crate::publish::{foreign, prepare};
use crate::telemetry::now_ms;
use crate::yaml::scalar::show_duration;

/// What an event would do, without doing it: which hooks want it, what they would send, and why the others do not.
#[derive(Debug, Args)]
pub(in crate::cli) struct Test {
    /// One CloudEvent in JSON, or what another system hands to its hooks
    #[arg(value_name = "EVENT.json")]
    event: PathBuf,
    /// Whose words the file is in, such as kheish
    #[arg(long, default_value = "native", value_parser = Dialect::named)]
    dialect: Dialect,
    /// This hook only
    #[arg(long, value_name = "ID")]
    hook: Option<String>,
    /// Run it for real, once, under the event's own Idempotency-Key, and tell what would follow; nothing is claimed,
    /// published or retried
    #[arg(long)]
    pub(super) send: bool,
}

pub(super) async fn run(test: &Test, settings: &Settings, hooks: &HookSet) -> anyhow::Result<()> {
    let bytes = std::fs::read(&test.event).with_context(|| format!("cannot read {}", test.event.display()))?;
    let event = read(&Bytes::from(bytes), test.dialect, &settings.events);
    let event = event.with_context(|| test.event.display().to_string())?;
    let only = match &test.hook {
        Some(id) if hooks.get(id).is_none() => bail!("no hook has the id {}: see `hookfleet hooks list`", quoted(id)),
        id => id.as_deref(),
    };
    let told = told(&event, hooks, only);
    if !test.send {
        return output::answer(&json!({ "items": told.lines().collect::<Vec<_>>() }), || told.clone());
    }
    if !output::is_json() {
        output::out(&told); // before something is done
    }
    if hooks.types().misfit(&event).is_some_and(|misfit| misfit.strict) {
        bail!("nothing was sent: the fleet refuses this event");
    }
    let facts = Facts::new(&event);
    let candidates = hooks.hooks().iter().filter(|hook| only.is_none_or(|id| hook.id.as_str() == id));
    let wanting: Vec<_> = candidates.filter(|hook| unmatched(hook, &facts).is_none()).collect();
    match wanting.as_slice() {
        [hook] => {
            let sent = send(settings, hook, &invocation(&event, hook, hooks), hooks.secrets()).await?;
            let answer = json!({ "items": told.lines().collect::<Vec<_>>(), "sent": sent });
            output::answer(&answer, || sent.clone())
        }
        [] => bail!("nothing was sent: no hook wants this event"),
        several => bail!("nothing was sent: {} hooks want this event, say which with --hook", several.len()),
    }
}

fn read(text: &Bytes, dialect: Dialect, reading: &Reading) -> anyhow::Result<Event> {
    let prepared = if dialect.is_native() {
        prepare(text, None, None, reading)
    } else {
        foreign(dialect, &[], text, Some("test"), reading)
    };
    let prepared = prepared.map_err(|rejected| anyhow!(rejected.sentence().to_owned()))?;
    Event::decode(&prepared.outgoing().message, reading).map_err(|malformed| anyhow!(malformed.error))
}

fn invocation(event: &Event, hook: &Hook, hooks: &HookSet) -> Invocation {
    Invocation::first(event.clone().into(), hook.id.clone(), hooks.revision().clone())
}

/// Runs a hook, and says what came of it.
async fn send(settings: &Settings, hook: &Hook, invocation: &Invocation, secrets: &Secrets) -> anyhow::Result<String> {
    executor::install_crypto();
    let home = match &settings.backend {
        Backend::Servers { broker, .. } => Home::Server(broker.clone(), settings.namespace.clone()),
        Backend::Embedded { .. } => Home::None, // it has an owner
    };
    let executors = Executors::new(&settings.egress, &settings.commands, Callbacks::default())?.at(home);
    let (at_ms, began) = (now_ms(), Instant::now());
    let outcome = executors.run(hook, invocation).await.redacted(secrets);
    let took = began.elapsed();
    let said = match &outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Failed(failure) => format!("failed: {}", failure.error),
        Outcome::Interrupted => "interrupted".to_owned(),
    };
    let tried = Tried { attempt: invocation.at.attempt, spent: invocation.spent, at_ms, took };
    let follows = match settle(&tried, outcome, &hook.retry, fastrand::f64()) {
        Some(Settlement::Done) => "it would be finished".to_owned(),
        None => "it would be handed back".to_owned(),
        Some(Settlement::Next(Next::Retry { delay_ms, .. })) => {
            format!("it would be tried again in {delay_ms} ms, {} times at most in all", hook.retry.attempts)
        }
        Some(Settlement::Next(Next::Bury { class, .. })) => format!("it would become a dead letter `{}`", class.name()),
    };
    Ok(format!("{} after {} ms: {said}; {follows}", hook.id, took.as_millis()))
}

fn told(event: &Event, hooks: &HookSet, only: Option<&str>) -> String {
    let mut lines = vec![format!("{} (source {}, type {})", event.id, event.source, event.kind)];
    if let Some(misfit) = hooks.types().misfit(event) {
        let follows = if misfit.strict { "refused" } else { "taken, with a warning" };
        lines.push(format!("{follows}: {}", misfit.sentence()));
        if misfit.strict {
            return lines.join("\n"); // no hook runs
        }
    }
    let facts = Facts::new(event);
    for hook in hooks.hooks().iter().filter(|hook| only.is_none_or(|id| hook.id.as_str() == id)) {
        match unmatched(hook, &facts) {
            Some(why) => lines.push(format!("- {}: {}", called(hook), why_not(&why, hook, event))),
            None => lines.extend(would_run(hook, &invocation(event, hook, hooks))),
        }
    }
    lines.iter().map(|line| visible(line)).collect::<Vec<_>>().join("\n")
}

/// What another system hands to its hooks is a question, which its gates answer.
fn unmatched(hook: &Hook, facts: &Facts<'_>) -> Option<Unmatched> {
    if facts.event().dialect.is_native() { hook.unmatched(facts) } else { hook.unmatched_when_asked(facts) }
}

/// By its id, and as its own system speaks of it.
fn called(hook: &Hook) -> String {
    dialect::words(hook).map_or_else(|| hook.id.to_string(), |words| format!("{} ({words})", hook.id))
}

/// What an event says may hold what a terminal takes for a command.
fn visible(line: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    line.chars().map(shown).collect()
}

fn why_not(why: &Unmatched, hook: &Hook, event: &Event) -> String {
    let any = |texts: Vec<&str>| texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(" or ");
    match why {
        Unmatched::Type => {
            let patterns = hook.on.iter().map(Pattern::as_str).collect();
            format!("the type is {}, `on` asks for {}", quoted(&event.kind), any(patterns))
        }
        Unmatched::Source => {
            let globs = hook.source.iter().map(Glob::as_str).collect();
            format!("the source is {}, `source` asks for {}", quoted(&event.source), any(globs))
        }
        Unmatched::Subject => {
            let globs = hook.subject.iter().map(Glob::as_str).collect();
            let found = event.subject.as_deref().map_or_else(|| "none".to_owned(), quoted);
            format!("the subject is {found}, `subject` asks for {}", any(globs))
        }
        Unmatched::Matcher => {
            let matcher = hook.matcher.as_ref().map_or("", Matcher::as_str);
            if let Some(Matcher::Tool(_)) = hook.matcher {
                return format!("the tool, or what it is used on, is not what `matcher` asks for: `{matcher}`");
            }
            let found = event.subject.as_deref().map_or_else(|| "none".to_owned(), quoted);
            format!("the subject is {found}, `matcher` asks for `{matcher}`")
        }
        Unmatched::Disabled | Unmatched::Gate | Unmatched::When | Unmatched::WhenFailed(_) => why.to_string(),
    }
}

/// What would be sent, as far as it may be shown.
fn would_run(hook: &Hook, invocation: &Invocation) -> Vec<String> {
    let key = invocation.idempotency_key();
    let exchange = match dialect::encode(hook, invocation, &key, None) {
        Ok(exchange) => exchange,
        Err(error) => return vec![invalid(hook, &error)],
    };
    let payload = || String::from_utf8_lossy(&exchange.body).into_owned();
    let mut lines = Vec::new();
    match &hook.action {
        Action::Http(action) => match Shown::new(action, hook, invocation, &key) {
            Ok(Shown { method, url, headers, body }) => {
                lines.push(format!("+ {}: {method} {url}", called(hook)));
                let own = exchange.headers.iter().find(|(name, _)| name == "idempotency-key");
                lines.push(format!("    idempotency-key: {}", own.map_or(key.as_str(), |(_, own)| own)));
                lines.extend(headers.iter().map(|(name, value)| format!("    {name}: {value}")));
                if action.body.is_none() && action.format != Format::Native {
                    let of_event = |name: &str| name == "content-type" || name.starts_with("ce-");
                    let own = exchange.headers.iter().filter(|(name, _)| of_event(name));
                    lines.extend(own.map(|(name, value)| format!("    {name}: {value}")));
                }
                lines.push(format!("    {}", body.unwrap_or_else(payload)));
                lines.extend(unknown(action.texts().flat_map(Text::unknown).chain(action.tls.unknown())));
            }
            Err(error) => lines.push(invalid(hook, &error)),
        },
        Action::Command(CommandAction { argv, env, cwd, .. }) => {
            let words: Vec<String> = argv.iter().map(|word| word_shown(word)).collect();
            lines.push(format!("+ {}: {}", called(hook), words.join(" ")));
            lines.extend(env.keys().map(|name| format!("    {name}=[hidden]")));
            lines.extend(cwd.iter().map(|folder| format!("    in {}", folder.display())));
            lines.push(format!("    stdin: {}", payload()));
        }
        Action::Model(model) => {
            lines.push(format!("+ {}: {}, which no version runs yet", called(hook), model.target()));
            lines.extend(model.prompt().map(|_| format!("    prompt: {}", payload())));
        }
        Action::Callback(name) => lines.push(format!("+ {}: the callback {name}", called(hook))),
        Action::Publish(action) => match publication::shown(action, hook, invocation, &key) {
            Ok(outgoing) => lines.extend(would_publish(hook, action, &outgoing)),
            Err(error) => lines.push(invalid(hook, &error)),
        },
    }
    if hook.paused {
        lines.push("    it is paused: this waits until it is not".to_owned());
    }
    if let Some(once) = &hook.once_per {
        lines.push(format!("    unless another event like it did within {}", show_duration(once.window)));
    }
    lines
}

fn invalid(hook: &Hook, error: &str) -> String {
    format!("+ {}: a letter `{}`: {error}", called(hook), Class::Invalid.name())
}

fn would_publish(hook: &Hook, action: &PublishAction, outgoing: &Outgoing) -> Vec<String> {
    let Outgoing { to, message, .. } = outgoing;
    let routing_key = if let Destination::Exchange(exchange) = to { exchange.routing_key.as_str() } else { "" };
    let properties = &message.properties;
    let named = [
        ("message_id", &properties.message_id),
        ("type", &properties.kind),
        ("content_type", &properties.content_type),
    ];
    let mut lines = vec![format!("+ {}: {} routing key {}", hook.id, action.target(), quoted(routing_key))];
    lines.extend(named.into_iter().filter_map(|(name, value)| Some(format!("    {name}: {}", value.as_ref()?))));
    let own = action.headers.iter().filter_map(|(name, _)| Some(format!("    header {name}: {}", message.text(name)?)));
    lines.extend(own);
    lines.push(format!("    {}", String::from_utf8_lossy(&message.body)));
    let tls = action.server.iter().flat_map(|server| server.tls.unknown());
    lines.extend(unknown(action.texts().flat_map(Text::unknown).chain(tls)));
    lines
}

/// What a worker must know, and this process does not.
fn unknown<'a>(written: impl Iterator<Item = &'a str>) -> Vec<String> {
    let sentence = |written: &str| {
        let trouble = if written.starts_with("${env:") { "is not set" } else { "cannot be read" };
        format!("    {} {trouble} here", name(written))
    };
    written.collect::<BTreeSet<_>>().into_iter().map(sentence).collect()
}

/// As a shell would take it.
fn word_shown(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Document, Terms, parse, read_partly};

    const HOOKS: &str = "version: 1\nhooks:\n\
        \x20 - { id: a, on: task.*, source: /s, run: { http: { url: '${env:URL}/{{ event.data.n }}', headers: { x: '${env:KEY}' }, body: 'n={{ event.data.n }}' } } }\n\
        \x20 - { id: b, on: [order.paid, agent.*], run: { command: { argv: [echo] } } }\n\
        \x20 - { id: c, on: task.failed, when: event.data.n > 1, run: { command: { argv: [echo, \"it's\"], env: { T: '${env:KEY}' } } } }\n\
        events:\n  task.failed: { schema: { required: [n] } }\n  task.strict: { schema: { type: object }, validate: strict }\n";

    fn check(event: &str, only: Option<&str>, expected: &[&str]) {
        let env = |name: &str| Some(if name == "URL" { "https://x.example/hunter2" } else { "hunter2" }.to_owned());
        let terms = Terms { hint_max: std::time::Duration::from_secs(1), env: &env, egress: &[], callbacks: None };
        let hooks = parse(HOOKS, "hooks.yaml", &terms).unwrap().hooks;
        let event = read(&Bytes::copy_from_slice(event.as_bytes()), Dialect::Native, &Reading::default()).unwrap();
        let told = told(&event, &hooks, only);
        let lines: Vec<&str> = told.lines().filter(|line| !line.contains("idempotency-key: ")).collect();
        assert_eq!(lines, expected);
        assert!(!told.contains("hunter2"), "{told}");
    }

    #[test]
    fn every_hook_says_whether_and_why_not() {
        check(
            r#"{"id":"1","source":"/s","type":"task.failed","data":{"n":1}}"#,
            None,
            &[
                "1 (source /s, type task.failed)",
                "+ a: POST [hidden]/1",
                "    x: [hidden]",
                "    n=1",
                "- b: the type is \"task.failed\", `on` asks for `order.paid` or `agent.*`",
                "- c: `when` is false",
            ],
        );
        check(
            r#"{"id":"1","source":"/t","type":"task.failed","data":{}}"#,
            Some("a"),
            &[
                "1 (source /t, type task.failed)",
                "taken, with a warning: the data is not what the type `task.failed` declares: data: \"n\" is a required \
                 property (rule /required)",
                "- a: the source is \"/t\", `source` asks for `/s`",
            ],
        );
        check(
            r#"{"id":"1","source":"/s","type":"task.strict","data":[]}"#,
            None,
            &[
                "1 (source /s, type task.strict)",
                "refused: the data is not what the type `task.strict` declares: data: value is not of type \"object\" \
                 (rule /type)",
            ],
        );
    }

    /// In the words of their own system, with what they would get there.
    #[test]
    fn hooks_of_another_system() {
        let text = "version: 1\nhooks:\n\
            \x20 - { id: g, name: bash guard, dialect: kheish, on: kheish.pre_tool_use, mode: gate, matcher: 'bash*', \
            run: { http: { url: 'https://x.example/a' } } }\n\
            \x20 - { id: p, name: p, dialect: kheish, on: kheish.pre_tool_use, mode: gate, matcher: 'write*', \
            run: { callback: c } }\n";
        let terms = Terms { hint_max: std::time::Duration::from_secs(1), env: &|_| None, egress: &[], callbacks: None };
        let hooks = parse(text, "hooks.yaml", &terms).unwrap().hooks;
        let invocation = Bytes::from(r#"{"event":"pre_tool_use","subject":"bash"}"#);
        let event = read(&invocation, Dialect::Kheish, &settings_reading()).unwrap();
        let told = told(&event, &hooks, None);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "test (source /kheish/anonymous, type kheish.pre_tool_use)");
        assert_eq!(lines[1], "+ g (PreToolUse \"bash guard\", matcher bash*, http): POST https://x.example/a");
        assert!(lines[2].starts_with("    idempotency-key: hook-execution-"), "{told}");
        assert!(lines[3].contains(r#"{"event":"pre_tool_use","subject":"bash","contract_version":1"#), "{told}");
        let unmatched =
            "- p (PreToolUse \"p\", matcher write*, callback): the subject is \"bash\", `matcher` asks for `write*`";
        assert_eq!(lines[4..], [unmatched]);
        let refused = read(&Bytes::from("{}"), Dialect::Kheish, &settings_reading()).unwrap_err().to_string();
        assert!(refused.contains("expected an invocation of a hook of Kheish"), "{refused}");
    }

    fn settings_reading() -> Reading {
        Reading { foreign: crate::domain::event::Foreign(dialect::decode), ..Reading::default() }
    }

    /// Workers know them: of the request is shown what stands in the file.
    #[test]
    fn what_is_not_set_here_is_named() {
        let check = |http: &str, set: &[(&str, &str)], expected: &[&str]| {
            let text = format!("version: 1\nhooks: [{{ id: a, on: t, run: {{ http: {http} }} }}]");
            let env = |name: &str| set.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned());
            let terms = Terms { hint_max: std::time::Duration::from_secs(1), env: &env, egress: &[], callbacks: None };
            let hooks = read_partly(&[Document::native("hooks.yaml", text)], &terms).unwrap().hooks;
            let event = Bytes::from(r#"{"id":"1","source":"/s","type":"t","data":{"n":"1/2"}}"#);
            let told = told(&read(&event, Dialect::Native, &Reading::default()).unwrap(), &hooks, None);
            let lines: Vec<&str> = told.lines().skip(1).filter(|line| !line.contains("idempotency-key: ")).collect();
            assert_eq!(lines, expected);
        };
        let body = "body: '{{ event.data.n }}'";
        check(
            &format!("{{ url: 'https://x.example/${{env:PATH}}/{{{{ event.data.n }}}}?a=${{env:A}}', {body} }}"),
            &[("A", "hunter2")],
            &["+ a: POST https://x.example/${env:PATH}/1%2F2?a=[hidden]", "    1/2", "    ${env:PATH} is not set here"],
        );
        check(
            &format!(
                "{{ url: '${{env:URL}}/{{{{ event.data.n }}}}', headers: {{ x: 'Bearer ${{file:/none}}' }}, {body} }}"
            ),
            &[],
            &[
                "+ a: POST ${env:URL}/1%2F2",
                "    x: Bearer ${file:/none}",
                "    1/2",
                "    ${env:URL} is not set here",
                "    ${file:/none} cannot be read here",
            ],
        );
        check(
            "{ url: 'https://x.example/', auth: { oauth2: { token_url: 'https://${env:IDP}/hunter2', client_id: c, \
             client_secret: '${env:A}' } }, body: b }",
            &[("A", "hunter2")],
            &[
                "+ a: POST https://x.example/",
                "    authorization: Bearer [a token from https://${env:IDP}, by client credentials]",
                "    b",
                "    ${env:IDP} is not set here",
            ],
        );
        check(
            &format!("{{ url: 'https://${{env:HOST}}:8443/{{{{ event.data.none }}}}', {body} }}"),
            &[],
            &[
                "+ a: a letter `invalid`: the hook's `url`: the template fails on line 1: it uses a value that the event \
               does not have",
            ],
        );
    }

    #[test]
    fn a_command_is_shown_as_a_shell_would_take_it() {
        let event = read(
            &Bytes::from(r#"{"id":"1","source":"/s","type":"task.failed","data":{"n":2}}"#),
            Dialect::Native,
            &Reading::default(),
        );
        let env = |_: &str| Some("https://x.example/hunter2".to_owned());
        let terms = Terms { hint_max: std::time::Duration::from_secs(1), env: &env, egress: &[], callbacks: None };
        let hooks = parse(HOOKS, "hooks.yaml", &terms).unwrap().hooks;
        let told = told(&event.unwrap(), &hooks, Some("c"));
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[1..3], [r"+ c: echo 'it'\''s'", "    T=[hidden]"]);
        assert!(lines[3].starts_with("    stdin: {\"contract_version\":1,"), "{told}");
    }
}
