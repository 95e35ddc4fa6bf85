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
