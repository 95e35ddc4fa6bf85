//! The failed attempts that an invocation carries along, over all its generations.

use crate::domain::failure::AttemptReport;

/// Attempts that a message's history lists at most, and its bytes; the newest stay. Headers have to fit a frame.
const HISTORY_MAX: usize = 100;
const HISTORY_BYTES_MAX: usize = 32 * 1024;

/// The same with one more, of this generation; the newest stay.
pub(super) fn with(history: &[AttemptReport], report: Option<&AttemptReport>, generation: u32) -> Vec<AttemptReport> {
    let mut history = history.to_vec();
    history.extend(report.map(|report| AttemptReport { generation, ..report.clone() }));
    let surplus = history.len().saturating_sub(HISTORY_MAX);
    history.drain(..surplus);
    history
}

/// The newest attempts that fit, as JSON.
pub(super) fn text(attempts: &[AttemptReport]) -> String {
    let mut bytes = 1; // of the brackets, less the first comma
    let texts = attempts.iter().rev().take(HISTORY_MAX).map(|report| serde_json::to_string(report).unwrap_or_default());
    let fit = texts.take_while(|text| {
        bytes += text.len() + 1;
        bytes <= HISTORY_BYTES_MAX
    });
    let mut fit: Vec<String> = fit.collect();
    fit.reverse();
    format!("[{}]", fit.join(","))
}
