//! W3C Trace Context: how an event's trace goes on in what its hooks send.
//!
//! Source: <https://www.w3.org/TR/trace-context/>, level 1 of 2021. The parent is passed on as it came; the state goes with
//! it and never without it.

use super::message::Message;

/// Header that carries the trace parent.
pub const TRACEPARENT: &str = "traceparent";
/// Header that carries the trace state.
pub const TRACESTATE: &str = "tracestate";
/// Longest parent that is passed on, in bytes. Version 00 has 55, later ones may have more.
const PARENT_BYTES_MAX: usize = 512;
/// Longest state that is passed on, in bytes: what section 3.3.1.5 asks for at the least.
const STATE_BYTES_MAX: usize = 512;
/// Entries of a state that is too long and that have more bytes than this are left out first (section 3.3.1.5).
const LARGE_ENTRY_BYTES: usize = 128;

/// The trace that an event belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// `traceparent`: printable ASCII without blanks, not empty.
    parent: Box<str>,
    /// `tracestate`: printable ASCII, not empty.
    state: Option<Box<str>>,
}

impl TraceContext {
    /// A context of these two headers. `None` if there is no parent, or one that cannot be passed on as a header: then the
    /// state means nothing either (sections 3.2.3 and 3.3). A state that cannot be passed on is left out.
    #[must_use]
    pub fn new(parent: Option<&str>, state: Option<&str>) -> Option<Self> {
        let parent = parent.filter(|parent| is_parent(parent))?;
        Some(Self { parent: parent.into(), state: state.and_then(bounded_state) })
    }

    /// The context in the headers of a message.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        Self::new(message.text(TRACEPARENT), message.text(TRACESTATE))
    }

    /// The value of `traceparent`.
    #[must_use]
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// The value of `tracestate`, if there is any.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Names and values of the headers that carry it on.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let state = self.state().map(|state| (TRACESTATE, state));
        std::iter::once((TRACEPARENT, self.parent())).chain(state)
    }

    /// The message with the headers of this context, if there is one; chainable.
    #[must_use]
    pub fn onto(context: Option<&Self>, message: Message) -> Message {
        let headers = context.into_iter().flat_map(Self::headers);
        headers.fold(message, |message, (name, value)| message.with(name, value))
    }
}

fn is_parent(text: &str) -> bool {
    (1..=PARENT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A state that fits: without its large entries, and without its last ones, where it has to be cut.
fn bounded_state(text: &str) -> Option<Box<str>> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t')) {
        return None;
    }
    let entries = || text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    if text.len() <= STATE_BYTES_MAX {
        return Some(text.trim()).filter(|text| !text.is_empty()).map(Into::into);
    }
    let mut kept = String::new();
    for entry in entries().filter(|entry| entry.len() <= LARGE_ENTRY_BYTES) {
        if kept.len() + 1 + entry.len() > STATE_BYTES_MAX {
            break;
        }
        if !kept.is_empty() {
            kept.push(',');
        }
        kept.push_str(entry);
    }
    Some(kept.into_boxed_str()).filter(|kept| !kept.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn check(parent: Option<&str>, state: Option<&str>, expected: Option<(&str, Option<&str>)>) {
        let found = TraceContext::new(parent, state);
        assert_eq!(found.as_ref().map(|found| (found.parent(), found.state())), expected, "{parent:?} {state:?}");
    }

    #[test]
    fn what_is_passed_on() {
        check(Some(PARENT), None, Some((PARENT, None)));
        check(Some(PARENT), Some("a=1,b=2"), Some((PARENT, Some("a=1,b=2"))));
        check(Some(PARENT), Some(" a=1 , b=2\t"), Some((PARENT, Some("a=1 , b=2"))));
        check(Some(PARENT), Some(""), Some((PARENT, None)));
        check(Some(PARENT), Some(" "), Some((PARENT, None)));
        check(Some(PARENT), Some("a=1\r\nx: y"), Some((PARENT, None)));
        check(Some(PARENT), Some("a=\u{e4}"), Some((PARENT, None)));
        check(None, Some("a=1"), None);
        check(Some(""), Some("a=1"), None);
        check(Some("00-1\r\nx: y"), Some("a=1"), None);
        check(Some("00 1"), None, None);
        check(Some(&"x".repeat(513)), None, None);
    }

    #[test]
    fn a_long_state_loses_its_large_entries_first_and_then_its_last_ones() {
        let large = format!("large={}", "x".repeat(LARGE_ENTRY_BYTES));
        let small = |number: usize| format!("k{number:03}={}", "x".repeat(95)); // 100 bytes
        let state = [small(1), large, small(2), small(3), small(4), small(5), small(6)].join(",");
        let kept = [1, 2, 3, 4, 5].map(small).join(",");
        check(Some(PARENT), Some(&state), Some((PARENT, Some(&kept))));
        check(Some(PARENT), Some(&format!("a={}", "x".repeat(600))), Some((PARENT, None)));
    }

    #[test]
    fn it_travels_in_headers() {
        let context = TraceContext::new(Some(PARENT), Some("a=1"));
        let message = TraceContext::onto(context.as_ref(), Message::default());
        assert_eq!(TraceContext::of(&message), context);
        assert_eq!(TraceContext::of(&TraceContext::onto(None, Message::default())), None);
    }
}
