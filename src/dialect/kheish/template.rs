//! Templates of hooks that ask a model.

use super::invocation::HookInvocation;

/// Puts an invocation into a template. The seven placeholders are replaced one after the other in a fixed order, as text, so
/// that a value which holds a placeholder that comes later has that one replaced too. Anything else in braces stays.
///
/// | placeholder | stands for |
/// |---|---|
/// | `{{event}}` | the event's name as `PreToolUse` |
/// | `{{subject}}`, `{{session_id}}`, `{{agent_id}}`, `{{run_id}}` | the field; nothing where it is absent |
/// | `{{payload}}` | the payload as compact JSON, or `null` if the invocation has no payload |
/// | `{{invocation_json}}` | what a program gets on stdin, over several lines |
pub(super) fn render(template: &str, invocation: &HookInvocation<'_>) -> String {
    let HookInvocation { event, subject, session_id, agent_id, run_id, payload } = invocation;
    let pretty = || {
        let wire: serde_json::Value = serde_json::from_str(&invocation.wire()).unwrap_or_default();
        serde_json::to_string_pretty(&wire).unwrap_or_default() // a value always serializes
    };
    let mut text = template.replace("{{event}}", event.pascal);
    let fields =
        [("{{subject}}", subject), ("{{session_id}}", session_id), ("{{agent_id}}", agent_id), ("{{run_id}}", run_id)];
    for (placeholder, value) in fields {
        text = text.replace(placeholder, value.as_deref().unwrap_or_default());
    }
    text = text.replace("{{payload}}", payload.as_deref().unwrap_or("null"));
    if text.contains("{{invocation_json}}") { text.replace("{{invocation_json}}", &pretty()) } else { text }
}
