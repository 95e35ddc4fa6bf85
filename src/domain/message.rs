//! A broker message, free of any broker: body, properties, headers. And the lanes and queues it travels by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Version of the format of our own messages. A newer one is left to newer workers.
pub const FORMAT_VERSION: i64 = 1;

/// What a test has this process take for [`FORMAT_VERSION`].
static PRETENDED_VERSION: OnceLock<i64> = OnceLock::new();

/// The version that this process writes: [`FORMAT_VERSION`], unless a test of two versions side by side pretends another.
/// The constant in release builds.
#[must_use]
pub fn format_version() -> i64 {
    if cfg!(debug_assertions) { PRETENDED_VERSION.get().copied().unwrap_or(FORMAT_VERSION) } else { FORMAT_VERSION }
}

/// Makes this process write another version. Without effect in release builds, and after the first call.
pub fn pretend_format_version(version: i64) {
    let _ = PRETENDED_VERSION.set(version);
}

/// A named queue of invocations with its own prefetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    Default,
    Slow,
    Replay,
    /// Where what killed a worker is run alone.
    Suspect,
    /// Where what is over its hook's capacity waits: 0 to [`OVERFLOWS`] less one, by hook.
    Overflow(u8),
}

/// Overflow queues in all.
pub const OVERFLOWS: u8 = 8;

impl Lane {
    pub const ALL: [Self; 12] = [
        Self::Default,
        Self::Slow,
        Self::Replay,
        Self::Suspect,
        Self::Overflow(0),
        Self::Overflow(1),
        Self::Overflow(2),
        Self::Overflow(3),
        Self::Overflow(4),
        Self::Overflow(5),
        Self::Overflow(6),
        Self::Overflow(7),
    ];

    /// The name as it stands in queue names and routing keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Slow => "slow",
            Self::Replay => "replay",
            Self::Suspect => "suspect",
            Self::Overflow(0) => "overflow.0",
            Self::Overflow(1) => "overflow.1",
            Self::Overflow(2) => "overflow.2",
            Self::Overflow(3) => "overflow.3",
            Self::Overflow(4) => "overflow.4",
            Self::Overflow(5) => "overflow.5",
            Self::Overflow(6) => "overflow.6",
            Self::Overflow(_) => "overflow.7",
        }
    }
}

/// Where a worker receives from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// Lifecycle events, written by anyone: our headers are not believed here.
    Events,
    /// Written by the fleet only.
    Lane(Lane),
    /// Requests to gates, written by anyone. On servers only.
    Gates,
    /// Requests that nobody has decided in time; written by the broker. On servers only.
    Undecided,
}

impl Queue {
    /// The queues that requests go through, which a broker in a file has not: its gates are asked over HTTP.
    pub const OF_GATES: [Self; 2] = [Self::Gates, Self::Undecided];

    /// Every queue that every broker has.
    pub const ALL: [Self; 13] = {
        let mut all = [Self::Events; 13];
        let mut at = 0;
        while at < Lane::ALL.len() {
            all[at + 1] = Self::Lane(Lane::ALL[at]);
            at += 1;
        }
        all
    };

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Lane(lane) => lane.name(),
            Self::Gates => "gates",
            Self::Undecided => "gates.expired",
        }
    }

    /// The lane that a message from here goes back to. Events go back wrapped, to the default lane.
    #[must_use]
    pub const fn lane(self) -> Lane {
        match self {
            Self::Events | Self::Gates | Self::Undecided => Lane::Default,
            Self::Lane(lane) => lane,
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a message is published to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The events exchange, as any publisher would.
    Events,
    /// A lane, at once or over the delay ladder.
    Lane(Lane),
    /// A lane, after a wait of two seconds to the power of this level, in one hop.
    Parked(Lane, u8),
    /// A lane, once the lease of a run that is under way has ended. What waits here wants no worker yet.
    Running(Lane),
    /// The dead-letter log.
    Dead,
    /// The requests' exchange, as who asks would.
    Gates,
    /// The queue that the asker of a request reads answers from. No queue of the fleet is one.
    Reply(String),
    /// An exchange of any broker, by a routing key.
    Exchange(Box<Exchange>),
}

/// Where a message goes that a hook publishes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Exchange {
    /// `None`: the fleet's exchange for events.
    pub name: Option<String>,
    pub routing_key: String,
}

/// The value of a header, as far as a stream keeps it: no tables, no arrays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Header {
    Flag(bool),
    Number(i64),
    Text(String),
}

impl Header {
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Flag(_) | Self::Number(_) => None,
        }
    }
}

impl From<&str> for Header {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Header {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Header {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Header {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Headers by name.
pub type Headers = BTreeMap<String, Header>;

/// The properties of a message that its publisher chose. Kept for letters, never copied onto a republish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Properties {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The property `type`: the event's type for plain JSON.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
}

/// A message: what arrives and what is published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub body: Bytes,
    pub properties: Properties,
    pub headers: Headers,
    /// The key by which its publisher routed it, of what comes from clients without the property `type`.
    pub routing_key: Option<String>,
    /// Of requests and of their answers only: neither is kept, and neither outlives the broker.
    pub asking: Option<Asking>,
}

/// What a request says of its answer, and an answer of its request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asking {
    /// The queue that the answer goes to; none: nobody waits for it.
    pub reply_to: Option<String>,
    /// Tells answers apart; goes back as it came.
    pub correlation_id: Option<String>,
    /// How long the broker keeps the request for somebody to take it.
    pub expiration: Option<Duration>,
}

impl Message {
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(Header::as_text)
    }

    /// A number header; text that reads as a number counts too, because some clients send everything as text.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.headers.get(name)? {
            Header::Number(number) => Some(*number),
            Header::Text(text) => text.parse().ok(),
            Header::Flag(_) => None,
        }
    }

    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.headers.get(name) == Some(&Header::Flag(true))
    }

    /// Sets a header; chainable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Header>) -> Self {
        self.headers.insert(name.to_owned(), value.into());
        self
    }
}

/// A message on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub to: Destination,
    /// Time before it arrives; only for lanes. On the delay ladder a whole number of [`LADDER_UNIT`]s.
    pub delay: Duration,
    pub message: Message,
}

/// Levels of parking: 2, 4, … 256 seconds.
pub const PARK_LEVELS: std::ops::RangeInclusive<u8> = 1..=8;

/// The smallest step of the delay ladder.
pub const LADDER_UNIT: Duration = Duration::from_millis(250);
/// Levels of the ladder: level k holds a message for `LADDER_UNIT << k`.
pub const LADDER_LEVELS: u32 = 19;
/// The longest wait behind a run: longer than a lease may be.
pub const BEHIND_MAX: Duration = Duration::from_hours(36);
/// Header with the milliseconds that remain to be waited when the message arrives. Never a clock.
pub const WAIT_AFTER: &str = "hookfleet-wait-after-ms";
/// Header of a request that came more than once before it was handed back: published again, it is a new message to the broker.
pub const CAME_BEFORE: &str = "hookfleet-came-before";

impl Outgoing {
    /// To a lane after `wait`: the whole units by ladder, the rest by the worker that receives it.
    #[must_use]
    pub fn to_lane(lane: Lane, wait: Duration, mut message: Message) -> Self {
        let unit = LADDER_UNIT.as_millis();
        let longest = (1u128 << LADDER_LEVELS) - 1;
        let units = (wait.as_millis() / unit).min(longest);
        let delay = LADDER_UNIT.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX));
        let rest = i64::try_from(wait.saturating_sub(delay).as_millis()).unwrap_or(i64::MAX);
        if rest > 0 {
            message.headers.insert(WAIT_AFTER.to_owned(), Header::Number(rest));
        } else {
            message.headers.remove(WAIT_AFTER);
        }
        Self { to: Destination::Lane(lane), delay, message }
    }

    /// To a lane once a run that is under way should have ended. Those wait in one line, each for as long as a lease at most:
    /// behind one that waits longer it comes later by that.
    #[must_use]
    pub fn behind(lane: Lane, wait: Duration, mut message: Message) -> Self {
        message.headers.remove(WAIT_AFTER);
        if wait < Duration::from_millis(1) {
            return Self { to: Destination::Lane(lane), delay: Duration::ZERO, message };
        }
        Self { to: Destination::Running(lane), delay: wait.min(BEHIND_MAX), message }
    }

    /// To a lane after about `wait`: what waits for something that nobody knows the end of needs no exact time.
    #[must_use]
    pub fn parked(lane: Lane, wait: Duration, message: Message) -> Self {
        let level = PARK_LEVELS.clone().find(|&level| Self::park_time(level) >= wait).unwrap_or(*PARK_LEVELS.end());
        let mut message = message;
        message.headers.remove(WAIT_AFTER);
        Self { to: Destination::Parked(lane, level), delay: Duration::ZERO, message }
    }

    /// How long a message is parked at a level.
    #[must_use]
    pub const fn park_time(level: u8) -> Duration {
        Duration::from_secs(1 << level)
    }

    /// To the dead-letter log.
    #[must_use]
    pub const fn to_dead(message: Message) -> Self {
        Self { to: Destination::Dead, delay: Duration::ZERO, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wait_ms: u64, delay_ms: u64, after_ms: Option<i64>) {
        let out = Outgoing::to_lane(Lane::Default, Duration::from_millis(wait_ms), Message::default());
        assert_eq!((out.delay.as_millis(), out.message.number(WAIT_AFTER)), (u128::from(delay_ms), after_ms));
    }

    #[test]
    fn waits_are_split_between_ladder_and_worker() {
        check(0, 0, None);
        check(249, 0, Some(249));
        check(250, 250, None);
        check(1_700, 1_500, Some(200));
        let longest = 250 * ((1 << 19) - 1);
        check(longest, longest, None);
        check(longest + 10_000, longest, Some(10_000)); // longer waits go round again
    }

    #[test]
    fn parking_takes_the_next_level() {
        for (wait_ms, level) in [(0, 1), (2000, 1), (2001, 2), (100_000, 7), (900_000, 8)] {
            let parked = Outgoing::parked(Lane::Slow, Duration::from_millis(wait_ms), Message::default());
            assert_eq!(parked.to, Destination::Parked(Lane::Slow, level), "{wait_ms}");
        }
    }

    #[test]
    fn guards_wait_for_leases() {
        let check = |wait_ms: u64, to: Destination, delay_ms: u128| {
            let message = Message::default().with(WAIT_AFTER, 7);
            let behind = Outgoing::behind(Lane::Slow, Duration::from_millis(wait_ms), message);
            assert_eq!((behind.to, behind.delay.as_millis(), behind.message), (to, delay_ms, Message::default()));
        };
        check(0, Destination::Lane(Lane::Slow), 0);
        check(1, Destination::Running(Lane::Slow), 1);
        check(30_250, Destination::Running(Lane::Slow), 30_250);
        check(u64::MAX, Destination::Running(Lane::Slow), BEHIND_MAX.as_millis());
    }

    #[test]
    fn queues_have_names_of_their_own() {
        let names: std::collections::BTreeSet<&str> = Queue::ALL.iter().map(|queue| queue.name()).collect();
        assert_eq!(names.len(), 13);
    }
}
