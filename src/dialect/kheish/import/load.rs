//! How often the hooks of a file run.

use super::Taken;

/// Sentences about the runs that the hooks make, matchers left aside: at most so many.
pub(super) fn of(taken: &[Taken]) -> Vec<String> {
    let count = |event: &str| taken.iter().filter(|taken| taken.hook.enabled && taken.event.snake == event).count();
    let mut sentences = Vec::new();
    let (before, after, failed) = (count("pre_tool_use"), count("post_tool_use"), count("post_tool_use_failure"));
    let (asked, denied, file) = (count("permission_request"), count("permission_denied"), count("file_changed"));
    let total = before + asked + after.max(failed).max(denied);
    if total + file > 0 {
        let parts = [
            (before, "before it (pre_tool_use)"),
            (asked, "where it has to be permitted (permission_request)"),
            (after, "behind it (post_tool_use)"),
            (failed, "where it fails (post_tool_use_failure)"),
            (denied, "where it is denied (permission_denied)"),
            (file, "for each file that it reads or changes (file_changed)"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, when)| format!("{count} {when}"));
        let parts = parts.collect::<Vec<_>>().join(", ");
        let files = if file > 0 { " and those for files" } else { "" };
        sentences.push(format!("Load: a tool call makes at most {total} runs{files}: {parts}."));
    }
    let of_tools =
        |event: &str| event.contains("tool_use") || event.starts_with("permission_") || event == "file_changed";
    let mut others: Vec<(&str, usize)> = Vec::new();
    let enabled = taken.iter().filter(|taken| taken.hook.enabled).map(|taken| taken.event.snake);
    for event in enabled.filter(|event| !of_tools(event)) {
        if !others.iter().any(|(known, _)| *known == event) {
            others.push((event, count(event)));
        }
    }
    if !others.is_empty() {
        let others: Vec<_> = others.iter().map(|(event, count)| format!("{event} {count}")).collect();
        sentences.push(format!("Load: runs for each event, at most: {}.", others.join(", ")));
    }
    let off = taken.iter().filter(|taken| !taken.hook.enabled).count();
    if off > 0 {
        sentences.push(format!("{off} of {} hooks are switched off, and make no load.", taken.len()));
    }
    sentences
}
