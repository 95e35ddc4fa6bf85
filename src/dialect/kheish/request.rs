//! The body of `POST /v1/runtime/hooks`: new settings, bare or in an envelope.

use serde_json::{Map, Value};

use super::settings::{Fault, HookSettings};

/// New settings, and under which conditions they count.
#[derive(Debug, Clone, PartialEq)]
pub struct SetHooks {
    pub settings: HookSettings,
    /// The revision that they were made for; `None`: any.
    pub expected_revision: Option<u64>,
    /// The hooks of `config_change` are not asked.
    pub skip_hooks: bool,
}

/// Why a body is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    /// It is no JSON.
    Syntax(String),
    /// It is JSON of another shape.
    Shape(String),
    /// A rule of their settings is broken: `invalid_hook_settings`.
    Invalid(Fault),
}

impl SetHooks {
    /// Reads a body. With a field `settings`, that has them, and a field `hooks` beside it is passed over, as there.
    ///
    /// # Errors
    /// [`NotTaken`]: the first mistake, in the order in which Kheish looks for them.
    pub fn read(body: &[u8]) -> Result<Self, NotTaken> {
        let body: Value = serde_json::from_slice(body).map_err(|error| NotTaken::Syntax(error.to_string()))?;
        let shape = |message: &str| NotTaken::Shape(message.to_owned());
        let Value::Object(body) = body else { return Err(shape("hooks request must be an object")) };
        let expected_revision = match body.get("expected_revision") {
            None | Some(Value::Null) => None,
            Some(number) => {
                Some(number.as_u64().ok_or_else(|| shape("`expected_revision`: expected an unsigned integer"))?)
            }
        };
        let skip_hooks = match body.get("skip_hooks") {
            None => false,
            Some(flag) => flag.as_bool().ok_or_else(|| shape("`skip_hooks`: expected true or false"))?,
        };
        let settings = match (body.get("settings"), body.get("hooks")) {
            (Some(settings), _) => settings.clone(),
            (None, Some(hooks)) => Value::Object(Map::from_iter([("hooks".to_owned(), hooks.clone())])),
            (None, None) => return Err(shape("hooks request must include settings or legacy hooks")),
        };
        let read = HookSettings::of_value(&settings).map_err(refused)?;
        Ok(Self { settings: read.settings, expected_revision, skip_hooks })
    }
}

fn refused(faults: Vec<Fault>) -> NotTaken {
    match faults.into_iter().next() {
        Some(fault) if fault.is_of_a_rule() => NotTaken::Invalid(fault),
        Some(fault) => NotTaken::Shape(fault.to_string()),
        None => NotTaken::Shape("expected hook settings".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: &Value, expected: Result<(usize, Option<u64>, bool), &str>) {
        let found = SetHooks::read(body.to_string().as_bytes());
        let found =
            found.map(|set| (set.settings.count(), set.expected_revision, set.skip_hooks)).map_err(
                |error| match error {
                    NotTaken::Syntax(message) => format!("syntax: {message}"),
                    NotTaken::Shape(message) => format!("shape: {message}"),
                    NotTaken::Invalid(fault) => format!("rule: {}", fault.message),
                },
            );
        match (found, expected) {
            (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{body}: {found}"),
            (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{body}"),
        }
    }

    #[test]
    fn bodies() {
        let hooks = json!({ "stop": [{ "name": "a", "executor": { "type": "callback", "name": "c" } }] });
        check(&json!({ "hooks": hooks }), Ok((1, None, false)));
        check(&json!({ "hooks": hooks, "expected_revision": 3, "skip_hooks": true }), Ok((1, Some(3), true)));
        check(&json!({ "settings": { "hooks": hooks }, "expected_revision": null }), Ok((1, None, false)));
        check(&json!({ "settings": {}, "hooks": hooks }), Ok((0, None, false))); // what stands beside is passed over
        check(&json!({ "settings": { "schema_version": 9 } }), Ok((0, None, false))); // and so is this
        check(&json!({}), Err("shape: hooks request must include settings"));
        check(
            &json!({ "expected_revision": 3, "skip_hooks": true }),
            Err("shape: hooks request must include settings"),
        );
        check(&json!([hooks]), Err("shape: hooks request must be an object"));
        check(&json!({ "settings": null }), Err("shape: "));
        check(&json!({ "hooks": hooks, "expected_revision": -1 }), Err("shape: `expected_revision`"));
        check(&json!({ "hooks": hooks, "expected_revision": "3" }), Err("shape: `expected_revision`"));
        check(&json!({ "hooks": hooks, "skip_hooks": "yes" }), Err("shape: `skip_hooks`"));
        check(&json!({ "hooks": { "PreToolUse": [] } }), Err("shape: (hooks.PreToolUse): unknown event"));
        let blank = json!({ "name": "x", "executor": { "type": "callback", "name": "c", "timeout_ms": 0 } });
        let rule = "rule: PreToolUse[0]:x: hook timeout_ms must be greater than zero";
        check(&json!({ "hooks": { "pre_tool_use": [blank] } }), Err(rule));
        assert!(matches!(SetHooks::read(b"{"), Err(NotTaken::Syntax(_))));
    }
}
