//! Where the program speaks to its user; everything else logs.

use std::io::Write as _;

/// One line or more to standard output. A closed pipe is no error of ours: `hookfleet … | head` ends quietly.
pub(super) fn out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
    let _ = out.flush();
}

/// One line or more to standard error.
pub(super) fn err(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end_matches('\n'));
}

/// A time as people read it, from milliseconds since 1970.
pub(super) fn time(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    seconds.map_or_else(|| ms.to_string(), |time| time.to_string())
}
