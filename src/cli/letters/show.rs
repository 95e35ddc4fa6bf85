//! `hookfleet dead-letters show`: for people first.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::Client;
use super::{one_line, word};
use crate::cli::answer::is_unknown;
use crate::cli::exit::Exit;
use crate::cli::output::{self, table, time};
use crate::domain::dead_letter::{Body, Letter};
use crate::domain::escape::quoted;
use crate::domain::failure::{AttemptReport, Class};
use crate::domain::fold::State;
use crate::domain::id::{EventDigest, HookId, InvocationKey};
use crate::operations::Detail;
use crate::operations::api_types::{Asked, PageAsked};

/// The letter with this id, else those of the event with this id, as a list.
pub(super) async fn run(client: &Client, id: &str, body: bool) -> anyhow::Result<ExitCode> {
    let found = match client.show(id, body).await {
        Ok(found) => {
            let text = shown(found.clone(), body)?;
            output::answer(&found, || text)?;
            return Ok(Exit::Done.into());
        }
        Err(error) if is_unknown(&error) => {
            let of_event = of_event(client, id, body).await?;
            if of_event.is_empty() {
                let id = quoted(id);
                output::err(&format!(
                    "error: no letter has the id {id}, nor is of an event that has it: see `hookfleet dead-letters list`"
                ));
                return Ok(Exit::Ask.into());
            }
            of_event
        }
        Err(error) => return Err(error),
    };
    let texts = found.iter().map(|view| shown(view.clone(), body)).collect::<Result<Vec<_>, _>>()?;
    output::answer(&json!({ "items": found }), || texts.join("\n\n"))?;
    Ok(Exit::Done.into())
}

async fn of_event(client: &Client, id: &str, body: bool) -> anyhow::Result<Vec<Value>> {
    let which = Asked { event: Some(id.to_owned()), ..Asked::default() };
    let listed = client.list(&PageAsked { which, ..PageAsked::default() }).await?;
    let mut found = Vec::new();
    for entry in listed.items {
        found.push(client.show(entry.letter.id.as_str(), body).await?);
    }
    Ok(found)
}

/// One letter as people read it.
fn shown(mut view: Value, body: bool) -> anyhow::Result<String> {
    if let Some(letter) = view.get_mut("letter").and_then(Value::as_object_mut) {
        letter.entry("body").or_insert_with(|| serde_json::json!({ "text": "" })); // it was not asked for
    }
    let detail: Detail = serde_json::from_value(view)?;
    let mut lines = about(&detail);
    lines.extend(request(&detail.letter));
    if body {
        lines.push(format!("event     {}", event_text(&detail.letter.body)));
    }
    lines.extend(attempts(&detail.letter.attempts));
    lines.push(String::new());
    lines.extend(next(&detail).into_iter().map(|line| format!("next      {line}")));
    Ok(lines.join("\n"))
}

/// What it is about, when it came about, and why.
fn about(Detail { letter, state, count, newest_ms, mark, .. }: &Detail) -> Vec<String> {
    let mut lines = vec![format!("letter    {} ({})", letter.id, word(state))];
    if let Some(event) = &letter.event {
        let subject = event.subject.as_deref().map(|subject| format!(", subject {}", one_line(subject)));
        let (id, source, kind) = (one_line(&event.id), one_line(&event.source), one_line(&event.kind));
        lines.push(format!("event     {id} of {source}, type {kind}{}", subject.unwrap_or_default()));
    }
    if let Some(from) = &letter.edited_from {
        let from = from.id.as_deref().map_or_else(|| from.event.to_string(), one_line);
        lines.push(format!("          edited from event {from}"));
    }
    match &letter.hook {
        Some(hook) => {
            let revision = Some(&letter.revision).filter(|revision| !revision.is_empty());
            let revision = revision.map(|revision| format!(", of catalog {revision}")).unwrap_or_default();
            lines.push(format!("hook      {hook}{revision}"));
        }
        None => lines.push(format!("message   from {}, for no hook yet", letter.queue)),
    }
    lines.push(format!("when      {}, generation {}", time(letter.at_ms), letter.generation));
    if *count > 1 {
        lines.push(format!("          {count} letters are one, the newest of {}", time(*newest_ms)));
    }
    let names = [("session", &letter.session), ("run", &letter.run)];
    let origin = names.into_iter().filter_map(|(what, name)| Some(format!("{what:<10}{}", one_line(name.as_ref()?))));
    lines.extend(origin);
    lines.push(format!("why       {}: {}", letter.class.name(), letter.error));
    if letter.deaths > 0 {
        let died = match letter.deaths {
            1 => "1 worker died while it had it".to_owned(),
            deaths => format!("{deaths} workers died while they had it"),
        };
        lines.push(format!("          {died}; each run after that had the whole timeout again"));
    }
    if letter.unprotected {
        lines.push("          it ran while the store of claims was away: it may have run twice".to_owned());
    }
    if let Some(mark) = mark {
        let what = if *state == State::Resolved { "resolved" } else { "sent out" };
        let reason = mark.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let (at, by) = (time(mark.at_ms), one_line(&mark.by));
        lines.push(format!("since     {what} {at} by {by}, as generation {}{reason}", mark.generation));
    }
    lines
}

/// Where its hook's requests went, and under which key.
fn request(letter: &Letter) -> Vec<String> {
    let mut lines: Vec<String> = letter.target.iter().map(|target| format!("request   {}", one_line(target))).collect();
    if let Some((event, hook)) = letter.event.as_ref().zip(letter.hook.as_deref())
        && let Ok(hook) = HookId::new(hook)
    {
        let key = InvocationKey { event: EventDigest::of(&event.source, &event.id), hook };
        let forced = if letter.forced > 0 { format!("/{}", letter.forced) } else { String::new() };
        lines.push(format!("          idempotency-key: {key}{forced}"));
    }
    if let Some(parent) = &letter.traceparent {
        lines.push(format!("          traceparent of the event: {}", one_line(parent)));
    }
    lines
}

fn attempts(attempts: &[AttemptReport]) -> Vec<String> {
    if attempts.is_empty() {
        return vec!["attempts  none".to_owned()];
    }
    let row = |report: &AttemptReport| {
        vec![
            report.generation.to_string(),
            report.attempt.to_string(),
            time(report.at_ms),
            format!("{} ms", report.took_ms),
            report.status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
            report.error.clone(),
        ]
    };
    let table = table(&["GENERATION", "ATTEMPT", "AT", "TOOK", "STATUS", "ERROR"], attempts.iter().map(row));
    let mut lines = vec!["attempts".to_owned()];
    lines.extend(table.lines().map(|line| format!("  {line}")));
    lines
}

/// What can be done about it.
fn next(Detail { letter, state, .. }: &Detail) -> Vec<String> {
    let (id, command) = (&letter.id, "hookfleet dead-letters");
    let replay = format!("{command} replay {id}");
    match state {
        State::Resolved if letter.for_record && letter.foreign.is_none() => Vec::new(),
        State::Resolved => vec![format!("nothing; {replay} --force runs it again, under a key of its own")],
        State::Replaying => match letter.event.as_ref().filter(|_| letter.edited_from.is_none()) {
            Some(event) => {
                let (event, source) = (quoted(&event.id), quoted(&event.source));
                vec![format!("wait: hookfleet events show {event} --source {source}")]
            }
            None => vec!["wait until what was sent has ended".to_owned()],
        },
        State::Open if letter.for_record => {
            let observed = letter.foreign.is_some();
            let observed = observed.then(|| format!("{replay} runs it as an observer, and its answer is not used"));
            let seen_to = format!("see to the gate; who asked has an answer: {command} resolve {id} --reason ...");
            std::iter::once(seen_to).chain(observed).collect()
        }
        State::Open => advice(letter, &replay),
    }
}

fn advice(letter: &Letter, replay: &str) -> Vec<String> {
    let id = &letter.id;
    let edit = format!("hookfleet dead-letters edit {id} --patch ... sends it with other data");
    let resolve = format!("hookfleet dead-letters resolve {id} --reason ... if nothing is to be done");
    let first = match letter.class {
        Class::Exhausted => format!("when the target is well again: {replay}"),
        Class::Rejected => format!("when the target takes it: {replay}"),
        Class::TargetBlocked => format!("when egress.allow has the target: {replay}"),
        Class::Poisoned => format!("when it is known what its workers died of: {replay}"),
        Class::HookRemoved => format!("when the hook is back: {replay}, or with --to-hook ID"),
        Class::HookDisabled => format!("when the hook is enabled: {replay}, or with --to-hook ID"),
        Class::Expired | Class::Unrouted => replay.to_owned(),
        Class::Unidentified => format!("{replay} gives it the letter's id"),
        Class::Unreadable => {
            return vec![format!("hookfleet dead-letters edit {id} --data ... sends another body"), resolve];
        }
        Class::Invalid => format!("when the fleet takes such: {replay}"),
    };
    vec![first, edit, resolve]
}

/// The event of a letter's body, as it is shown.
fn event_text(body: &Body) -> String {
    match body {
        Body::Text(text) => text.clone(),
        Body::Base64(text) => format!("base64 {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dead_letter::Offset;
    use crate::domain::event::Malformed;
    use crate::domain::invocation::Client;

    fn detail(class: Class, state: State) -> Detail {
        let letter = Letter::of_message(&Malformed::new(class, "x"), Client::default(), b"{", "events", 7_000);
        Detail { letter, state, count: 2, newest_ms: 9_000, mark: None, offset: Offset(1) }
    }

    /// There is something to do about every letter that is open, and times are none of a machine.
    #[test]
    fn every_class_has_its_advice() {
        for class in Class::ALL {
            let advice = next(&detail(class, State::Open));
            assert!(advice.len() >= 2 && advice.iter().all(|line| !line.is_empty()), "{class:?} {advice:?}");
        }
        assert!(next(&detail(Class::Exhausted, State::Resolved))[0].contains("--force"));
        let about = about(&detail(Class::Unreadable, State::Open)).join("\n");
        assert!(about.contains("when      1970-01-01T00:00:07Z, generation 0"), "{about}");
        assert!(about.contains("2 letters are one, the newest of 1970-01-01T00:00:09Z"), "{about}");
    }
}
