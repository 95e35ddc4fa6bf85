//! What scripts of Bernstein say: its lifecycle scripts, and executable files for hooks of plugins.

use serde_json::Value;

use super::names::{Argument, arguments};
use super::python::{Members, merged, repr, str_of, strict, stripped, updated};
use crate::domain::decision::Answer;

/// What a lifecycle script has decided that ended with 0. `data` is what it was given.
///
/// The whole output is one JSON object whose `decision` is `deny`, `mutate` or `annotate`, in these letters. Anything else is
/// no objection.
pub(super) fn script(stdout: &str, data: &str) -> Answer {
    let stdout = strict(stripped(stdout));
    let said = Members::read(&stdout).unwrap_or_default();
    let given = said.get("data").filter(|data| data.starts_with('{')).unwrap_or("{}");
    match said.text("decision").as_deref() {
        Some("deny") => {
            let reason = said.get("reason").map(str_of).filter(|reason| !reason.is_empty());
            Answer::refusal(reason.as_deref().unwrap_or("denied"))
        }
        Some("mutate") => Answer::replacing(given),
        Some("annotate") => Answer::replacing(&updated(data, given)),
        _ => Answer::default(),
    }
}

/// What a file has said for a hook of plugins, and ended with 0. `payload` is what it was given.
pub(super) fn file(hook: &str, stdout: &str, payload: &str) -> Answer {
    let stdout = strict(stripped(stdout));
    let Some(said) = Members::read(&stdout) else { return Answer::default() };
    let value = |name: &str| said.get(name).and_then(|json| serde_json::from_str::<Value>(json).ok());
    let mut answer = Answer::default();
    if let Some(data) = said.get("data").filter(|data| data.starts_with('{')) {
        let merged = merged(payload, data);
        if let Err(wrong) = check(hook, &merged) {
            return invalid(hook, &wrong);
        }
        answer = Answer::replacing(&merged);
    }
    let aborts = value("abort").is_some_and(|abort| is_truthy(&abort))
        || value("continue") == Some(Value::Bool(false))
        || said.get("status").is_some_and(|status| stripped(&str_of(status)).to_lowercase() == "abort");
    if aborts { answer.ending() } else { answer }
}

/// The refusal of arguments that a hook may not be given.
pub(super) fn invalid(hook: &str, wrong: &str) -> Answer {
    Answer::refusal(&format!("Invalid payload for '{hook}': {wrong}"))
}

/// Why a file has blocked, that ended with 2: the `message` of its JSON, else its stderr, else its output.
pub(super) fn blocked(hook: &str, stdout: &str, stderr: &str) -> Answer {
    let json = strict(stripped(stdout));
    let said = Members::read(&json).unwrap_or_default();
    let is_said = |message: &&str| serde_json::from_str::<Value>(message).is_ok_and(|message| is_truthy(&message));
    let message = said.get("message").filter(is_said).map(str_of);
    let detail = message.unwrap_or_else(|| {
        let said = [stripped(stderr), stripped(stdout)];
        said.into_iter().find(|text| !text.is_empty()).unwrap_or_default().to_owned()
    });
    Answer::refusal(&format!("Hook '{hook}' blocked orchestration: {detail}"))
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// Whether a hook of plugins may be given this. Further arguments are fine.
///
/// # Errors
/// What is wrong with the first argument that is.
pub(super) fn check(hook: &str, payload: &str) -> Result<(), String> {
    let payload = strict(payload);
    let members = Members::read(&payload).unwrap_or_default();
    for (name, argument) in arguments(hook).unwrap_or_default() {
        let Some(json) = members.get(name) else { return Err(format!("'{name}' is a required property")) };
        let value: Value = serde_json::from_str(json).unwrap_or_default();
        let items = value.as_array().filter(|_| *argument == Argument::Texts);
        let wrong = items.map_or_else(
            || (!argument.takes(&value)).then(|| (json.to_owned(), argument.name())),
            |items| items.iter().find(|item| !item.is_string()).map(|item| (item.to_string(), Argument::Text.name())),
        );
        if let Some((wrong, expected)) = wrong {
            return Err(format!("{} is not of type '{expected}'", repr(&wrong)));
        }
    }
    Ok(())
}
