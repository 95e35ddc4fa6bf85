//! W3C Trace Context and Baggage: how an event's trace goes on in what its hooks send.
//!
//! Sources: <https://www.w3.org/TR/trace-context/>, level 1 of 2021, and <https://www.w3.org/TR/baggage/>. The parent is
//! passed on as it came; the state goes with it and never without it. Baggage may hold what is none of a receiver's
//! business, so that it is passed on only where the setting `events.baggage` says so.

use super::message::Message;

/// Header that carries the trace parent.
pub const TRACEPARENT: &str = "traceparent";
/// Header that carries the trace state.
pub const TRACESTATE: &str = "tracestate";
/// Header that carries the baggage.
pub const BAGGAGE: &str = "baggage";
/// Bytes of a parent of version 00: `00-{trace}-{parent}-{flags}`. Later versions may have more behind a further hyphen.
const PARENT_BYTES: usize = 55;
/// Longest parent that is passed on, in bytes.
const PARENT_BYTES_MAX: usize = 512;
/// Longest state that is passed on, in bytes: what section 3.3.1.5 asks for at the least.
const STATE_BYTES_MAX: usize = 512;
/// Entries of a state that is too long and that have more bytes than this are left out first (section 3.3.1.5).
const LARGE_ENTRY_BYTES: usize = 128;
/// Longest baggage that is passed on, in bytes: what its section 3.3.2 asks for at the least.
const BAGGAGE_BYTES_MAX: usize = 8192;

/// The trace that an event belongs to, and what its publisher gives it along.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// `traceparent`, in the form that the standard gives it.
    parent: Option<Box<str>>,
    /// `tracestate`: printable ASCII, not empty. None without a parent.
    state: Option<Box<str>>,
    /// `baggage`: printable ASCII, not empty.
    baggage: Option<Box<str>>,
}

impl TraceContext {
    /// A context of these headers. A parent that is none is left out, and the state with it (sections 3.2.3 and 3.3); a
    /// state or a baggage that cannot be passed on as a header is left out too. `None` if nothing is left.
    #[must_use]
    pub fn new(parent: Option<&str>, state: Option<&str>, baggage: Option<&str>) -> Option<Self> {
        let parent = parent.map(str::trim).filter(|parent| is_parent(parent));
        let state = parent.and(state).and_then(bounded_state);
        let baggage = baggage.and_then(bounded_baggage);
        (parent.is_some() || baggage.is_some()).then(|| Self { parent: parent.map(Into::into), state, baggage })
    }

    /// The context in the headers of a message.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        Self::new(message.text(TRACEPARENT), message.text(TRACESTATE), message.text(BAGGAGE))
    }

    /// The same with parent and state of another one, if it has no parent itself.
    #[must_use]
    pub fn or(context: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (context, other) {
            (Some(own), Some(other)) if own.parent.is_none() => Some(Self { baggage: own.baggage, ..other }),
            (own, other) => own.or(other),
        }
    }

    /// The same without its baggage; `None` if nothing is left.
    #[must_use]
    pub fn without_baggage(self) -> Option<Self> {
        self.parent.is_some().then_some(Self { baggage: None, ..self })
    }

    /// The value of `traceparent`, if there is any.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    /// The value of `tracestate`, if there is any.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The value of `baggage`, if there is any.
    #[must_use]
    pub fn baggage(&self) -> Option<&str> {
        self.baggage.as_deref()
    }

    /// Names and values of the headers that carry it on.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [(TRACEPARENT, self.parent()), (TRACESTATE, self.state()), (BAGGAGE, self.baggage())];
        all.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    /// The message with the headers of this context, if there is one; chainable.
    #[must_use]
    pub fn onto(context: Option<&Self>, message: Message) -> Message {
        let headers = context.into_iter().flat_map(Self::headers);
        headers.fold(message, |message, (name, value)| message.with(name, value))
    }
}

/// Section 3.2: version, trace, parent and flags in lower-case hexadecimal digits, of which neither trace nor parent is
/// all zeros. Version ff is none; a later one may go on behind a hyphen.
fn is_parent(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &str, digits| part.len() == digits && is_hex(part) && part.bytes().any(|byte| byte != b'0');
    let mut parts = text.splitn(5, '-');
    let mut next = || parts.next().unwrap_or_default();
    let (version, trace, parent, flags) = (next(), next(), next(), next());
    let is_known = version == "00" && text.len() == PARENT_BYTES;
    let is_later = version.len() == 2 && is_hex(version) && !matches!(version, "00" | "ff");
    let is_whole = is_id(trace, 32) && is_id(parent, 16) && flags.len() == 2 && is_hex(flags);
    (is_known || is_later)
        && is_whole
        && text.len() <= PARENT_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A baggage that fits: without its last members, where it has to be cut.
fn bounded_baggage(text: &str) -> Option<Box<str>> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t')) {
        return None;
    }
    let mut kept = text.trim();
    while kept.len() > BAGGAGE_BYTES_MAX {
        // Behind the last comma within the limit a member is not whole.
        kept = kept[..=BAGGAGE_BYTES_MAX].rsplit_once(',').map_or("", |(whole, _)| whole).trim_end();
    }
    Some(kept).filter(|kept| kept.contains('=')).map(Into::into)
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
        let found = TraceContext::new(parent, state, None);
        let found = found.as_ref().map(|found| (found.parent().unwrap(), found.state()));
        assert_eq!(found, expected, "{parent:?} {state:?}");
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
    }

    #[test]
    fn what_is_no_parent_is_left_out() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (good, text) in [
            (true, format!("00-{trace}-{parent}-00")),
            (true, format!(" 00-{trace}-{parent}-ff ")),
            (true, format!("cc-{trace}-{parent}-01")),
            (true, format!("01-{trace}-{parent}-01-what-the-future-has")),
            (false, format!("00-{trace}-{parent}-01-more")),
            (false, format!("ff-{trace}-{parent}-01")),
            (false, format!("00-{trace}-{parent}-1")),
            (false, format!("00-{trace}-{parent}")),
            (false, format!("00-{}-{parent}-01", trace.to_uppercase())),
            (false, format!("00-{}-{parent}-01", "0".repeat(32))),
            (false, format!("00-{trace}-{}-01", "0".repeat(16))),
            (false, format!("00-{trace}-{parent}-01\r\nx: y")),
            (false, format!("01-{trace}-{parent}-01-{}", "x".repeat(512))),
            (false, "MDAtNGJmOTJmMzU3N2IzNGRhNmEzY2U5MjlkMGUwZTQ3MzY=".to_owned()),
            (false, "00-1-2-01".to_owned()),
            (false, String::new()),
        ] {
            let expected = good.then(|| (text.trim(), Some("a=1")));
            check(Some(&text), Some("a=1"), expected);
        }
    }

    #[test]
    fn baggage_goes_along_or_is_left_out() {
        let check = |baggage: &str, expected: Option<&str>| {
            let found = TraceContext::new(None, Some("a=1"), Some(baggage));
            assert_eq!(found.as_ref().and_then(TraceContext::baggage), expected, "{baggage}");
            assert_eq!(found.is_some(), expected.is_some());
            assert_eq!(found.and_then(TraceContext::without_baggage), None);
        };
        check("user=7, tenant=a%20b;secret", Some("user=7, tenant=a%20b;secret"));
        check(" user=7\t", Some("user=7"));
        check("", None);
        check("user", None);
        check("user=7\r\nx: y", None);
        check("user=\u{e4}", None);
        let member = |number: usize| format!("k{number:03}={}", "x".repeat(95)); // 100 bytes
        let many: Vec<String> = (0..200).map(member).collect();
        check(&many.join(","), Some(&many[..81].join(","))); // 8,180 bytes; another one would be 101 more
        check(&format!("a={}", "x".repeat(9000)), None);
    }

    #[test]
    fn parent_and_state_are_of_one_place() {
        let of = |parent, state, baggage| TraceContext::new(parent, state, baggage);
        let (header, attributes) = (of(None, None, Some("b=1")), of(Some(PARENT), Some("a=1"), None));
        let both = TraceContext::or(header, attributes.clone()).unwrap();
        assert_eq!((both.parent(), both.state(), both.baggage()), (Some(PARENT), Some("a=1"), Some("b=1")));
        assert_eq!(both.without_baggage(), attributes);
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
        let context = TraceContext::new(Some(PARENT), Some("a=1"), Some("b=2"));
        let message = TraceContext::onto(context.as_ref(), Message::default());
        assert_eq!(TraceContext::of(&message), context);
        assert_eq!(TraceContext::of(&TraceContext::onto(None, Message::default())), None);
    }
}
