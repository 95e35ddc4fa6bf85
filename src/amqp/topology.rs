//! The exchanges and queues of a namespace: a pure description. `declare` makes and checks it.
//!
//! Arguments hold only what can never change (type, dead-letter route and strategy, overflow, times); limits and
//! retention are policies, which operators may change while the fleet runs.

use std::fmt;
use std::time::Duration;

use crate::domain::message::{BEHIND_MAX, LADDER_LEVELS, LADDER_UNIT, Lane, Outgoing, PARK_LEVELS, Queue};

/// A value of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    Text(String),
    Number(i64),
}

/// An exchange to declare; all are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    pub name: String,
    pub kind: &'static str,
    pub arguments: Vec<(&'static str, Argument)>,
}

/// A queue to declare; all are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    pub name: String,
    pub arguments: Vec<(&'static str, Argument)>,
}

impl QueueSpec {
    /// Whether it is gone as long as its node is.
    #[must_use]
    pub fn is_on_one_node(&self) -> bool {
        self.arguments.contains(&("x-queue-type", text("classic")))
    }
}

/// What a binding feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    Queue,
    Exchange,
}

/// A binding from an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub from: String,
    pub to: String,
    pub fed: Fed,
    pub key: String,
}

/// How long a copy of a dead letter is kept beside the stream: far longer than a system takes to write what it holds in
/// memory to disk.
const RECENT_KEPT: Duration = Duration::from_hours(1);
/// The oldest copies make room for new ones beyond this: the copies must never hold up what they are copies of.
const RECENT_BYTES_MAX: i64 = 256 * 1024 * 1024;
/// Deliveries of what the broker dead-lettered, beyond the first, before it counts as unreadable. An argument and no
/// policy, because policies may be missing.
const BURIED_REDELIVERIES_MAX: i64 = 3;
/// Deliveries of what is unreadable, for those who look whether it is. RabbitMQ 4 would drop it after 20.
const UNREADABLE_REDELIVERIES_MAX: i64 = 1_000_000;

/// The last word of a probe's routing key, where others name their lane.
pub const PROBES: &str = "probe";
/// Probes that nobody takes are of no use later.
const PROBES_KEPT: Duration = Duration::from_mins(5);

/// Everything the fleet needs on a broker, in the order in which it must be declared: targets before what feeds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    pub exchanges: Vec<Exchange>,
    pub queues: Vec<QueueSpec>,
    pub bindings: Vec<Binding>,
    /// What older versions bound and must no longer be there: the keeper of the letters removes it once it reads what the
    /// broker dead-letters.
    pub former: Vec<Binding>,
}

/// The names within a namespace.
#[derive(Debug, Clone)]
pub struct Names(String);

impl Names {
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self(namespace.to_owned())
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn events(&self) -> String {
        format!("{}.events", self.0)
    }

    #[must_use]
    pub fn lanes(&self) -> String {
        format!("{}.lane", self.0)
    }

    #[must_use]
    pub fn gates(&self) -> String {
        format!("{}.gates", self.0)
    }

    /// Whether a queue is one of the namespace's.
    #[must_use]
    pub fn is_ours(&self, queue: &str) -> bool {
        queue.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.starts_with('.'))
    }

    /// The exchange that the broker dead-letters to, and the stream of the dead-letter log. They are bound no more: see
    /// [`Self::letters`].
    #[must_use]
    pub fn dead(&self) -> String {
        format!("{}.dead", self.0)
    }

    /// The exchange of the log's records. Only this program publishes to it.
    #[must_use]
    pub fn letters(&self) -> String {
        format!("{}.letters", self.0)
    }

    /// What the broker dead-lettered. The keeper makes letters of it.
    #[must_use]
    pub fn buried(&self) -> String {
        format!("{}.buried", self.0)
    }

    /// What the broker could hand to no consumer: exchange and queue. Nobody consumes it.
    #[must_use]
    pub fn unreadable(&self) -> String {
        format!("{}.unreadable", self.0)
    }

    /// Copies of what the dead-letter stream got of late: streams are not fsynced, quorum queues are.
    #[must_use]
    pub fn recent(&self) -> String {
        format!("{}.dead.recent", self.0)
    }

    /// The name of the queue itself.
    #[must_use]
    pub fn queue(&self, queue: Queue) -> String {
        match queue {
            Queue::Events => self.events(),
            Queue::Lane(lane) => format!("{}.lane.{}", self.0, lane.name()),
            Queue::Gates => self.gates(),
            Queue::Undecided => format!("{}.gates.expired", self.0),
        }
    }

    /// Where the ladder begins.
    #[must_use]
    pub fn ladder(&self) -> String {
        format!("{}.delay", self.0)
    }

    /// Queue of one level of the delay ladder, and the exchange that hands on what comes from the level above.
    #[must_use]
    pub fn level(&self, level: u32) -> String {
        format!("{}.delay.{level}", self.0)
    }

    /// Exchange and queue of what waits behind a run that is under way.
    #[must_use]
    pub fn running(&self) -> String {
        format!("{}.running", self.0)
    }

    /// Exchange and queue of one level of parking.
    #[must_use]
    pub fn park(&self, level: u8) -> String {
        format!("{}.park.{level}", self.0)
    }

    /// Where probes of the ladder come out.
    #[must_use]
    pub fn ladder_probes(&self) -> String {
        format!("{}.delay.probes", self.0)
    }

    /// Where the ladder ends.
    #[must_use]
    pub fn ladder_end(&self) -> String {
        format!("{}.delay.end", self.0)
    }

    /// The queue that a broker-made name belongs to, for letters.
    #[must_use]
    pub fn short<'a>(&self, queue: &'a str) -> &'a str {
        queue.strip_prefix(self.0.as_str()).map_or(queue, |rest| rest.trim_start_matches('.'))
    }
}

impl Topology {
    /// The topology of a namespace.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        let names = Names::new(namespace);
        let mut topology = Self { exchanges: Vec::new(), queues: Vec::new(), bindings: Vec::new(), former: Vec::new() };
        topology.dead(&names);
        topology.work(&names);
        topology.gates(&names);
        topology.ladder(&names);
        topology.parks(&names);
        topology
    }

    /// The log, and what the broker dead-letters. A broker converts a message when it hands it out, and a worker of its own
    /// that fails at that ends at-least-once dead-lettering for the whole node. So nothing that a client wrote gets into a
    /// stream by the broker's hand: it goes from quorum queue to quorum queue, which converts nothing, and the keeper writes
    /// the letter.
    fn dead(&mut self, names: &Names) {
        for name in [names.dead(), names.letters(), names.unreadable()] {
            self.way(name, "fanout");
        }
        self.queues.push(QueueSpec { name: names.dead(), arguments: vec![("x-queue-type", text("stream"))] });
        self.bind_queue(&names.letters(), &names.dead(), "");
        let kept_ms = i64::try_from(RECENT_KEPT.as_millis()).unwrap_or(i64::MAX);
        let arguments = vec![
            ("x-queue-type", text("quorum")),
            ("x-overflow", text("drop-head")),
            ("x-message-ttl", Argument::Number(kept_ms)),
            ("x-max-length-bytes", Argument::Number(RECENT_BYTES_MAX)),
        ];
        self.queues.push(QueueSpec { name: names.recent(), arguments });
        self.bind_queue(&names.letters(), &names.recent(), "");
        let limit = ("x-delivery-limit", Argument::Number(UNREADABLE_REDELIVERIES_MAX));
        let arguments = vec![("x-queue-type", text("quorum")), limit];
        self.queues.push(QueueSpec { name: names.unreadable(), arguments });
        self.bind_queue(&names.unreadable(), &names.unreadable(), "");
        let mut arguments = safe_queue(&names.unreadable());
        arguments.push(("x-delivery-limit", Argument::Number(BURIED_REDELIVERIES_MAX)));
        self.queues.push(QueueSpec { name: names.buried(), arguments });
        self.bind_queue(&names.dead(), &names.buried(), "");
        let former = |to: String| Binding { from: names.dead(), to, fed: Fed::Queue, key: String::new() };
        self.former = vec![former(names.dead()), former(names.recent())];
    }

    fn work(&mut self, names: &Names) {
        self.exchange(names, names.events(), "topic");
        self.exchange(names, names.lanes(), "direct");
        for queue in Queue::ALL {
            let name = names.queue(queue);
            self.queues.push(QueueSpec { name: name.clone(), arguments: safe_queue(&names.dead()) });
            match queue {
                Queue::Events => self.bind_queue(&names.events(), &name, "#"),
                Queue::Lane(lane) => self.bind_queue(&names.lanes(), &name, lane.name()),
                Queue::Gates | Queue::Undecided => {}
            }
        }
    }

    /// A classic queue: somebody waits for the answer, and a quorum queue hands nothing out before it is on disk, which takes
    /// twice as long and more (`cargo bench --bench overhead -- --gates`). What it gives up goes where its events still reach
    /// those who observe them.
    fn gates(&mut self, names: &Names) {
        let undecided = names.queue(Queue::Undecided);
        self.way(undecided.clone(), "fanout");
        self.queues.push(QueueSpec { name: undecided.clone(), arguments: safe_queue(&names.dead()) });
        self.bind_queue(&undecided, &undecided, "");
        let gates = names.gates();
        self.exchange(names, gates.clone(), "topic");
        let arguments = vec![("x-queue-type", text("classic")), ("x-dead-letter-exchange", text(&undecided))];
        self.queues.push(QueueSpec { name: gates.clone(), arguments });
        self.bind_queue(&gates, &gates, "#");
    }

    /// NServiceBus' delay infrastructure: level k holds a message for `LADDER_UNIT << k` if bit k of its delay is
    /// set, and is passed by else. The routing key is the bits, highest first, then the lane.
    ///
    /// Publishers have an exchange of their own: see [`Self::exchange`] and [`Self::way`].
    fn ladder(&mut self, names: &Names) {
        let end = names.ladder_end();
        self.way(end.clone(), "topic");
        let probes = names.ladder_probes();
        let kept_ms = i64::try_from(PROBES_KEPT.as_millis()).unwrap_or(i64::MAX);
        let arguments = vec![("x-queue-type", text("quorum")), ("x-message-ttl", Argument::Number(kept_ms))];
        self.queues.push(QueueSpec { name: probes.clone(), arguments });
        self.bind_queue(&end, &probes, &format!("#.{PROBES}"));
        for lane in Lane::ALL {
            self.bind_queue(&end, &names.queue(Queue::Lane(lane)), &format!("#.{}", lane.name()));
        }
        self.exchange(names, names.ladder(), "topic");
        for level in 0..LADDER_LEVELS {
            let name = names.level(level);
            let below = level.checked_sub(1).map_or_else(|| end.clone(), |below| names.level(below));
            let mut arguments = safe_queue(&below);
            let hold_ms = i64::try_from(LADDER_UNIT.as_millis()).unwrap_or(i64::MAX) << level;
            arguments.push(("x-message-ttl", Argument::Number(hold_ms)));
            self.queues.push(QueueSpec { name: name.clone(), arguments });
            let higher = (LADDER_LEVELS - 1 - level) as usize;
            self.bind_queue(&names.ladder(), &name, &format!("{}1.#", "0.".repeat(higher)));
            if higher > 0 {
                let any = "*.".repeat(higher);
                self.way(name.clone(), "topic");
                self.bind_queue(&name, &name, &format!("{any}1.#"));
                self.bindings.push(Binding { from: name, to: below, fed: Fed::Exchange, key: format!("{any}0.#") });
            }
        }
    }

    /// Each level holds what comes for its time and hands it on to the lane of its routing key, where the ladder does. So
    /// does the queue of what waits behind runs.
    fn parks(&mut self, names: &Names) {
        for level in PARK_LEVELS {
            let name = names.park(level);
            self.exchange(names, name.clone(), "fanout");
            let mut arguments = safe_queue(&names.ladder_end());
            let hold_ms = i64::try_from(Outgoing::park_time(level).as_millis()).unwrap_or(i64::MAX);
            arguments.push(("x-message-ttl", Argument::Number(hold_ms)));
            self.queues.push(QueueSpec { name: name.clone(), arguments });
            self.bind_queue(&name, &name, "");
        }
        // Each message has a time of its own. That of the queue is for one that has none, which would stop those behind it.
        let name = names.running();
        self.exchange(names, name.clone(), "fanout");
        let mut arguments = safe_queue(&names.ladder_end());
        let most_ms = i64::try_from(BEHIND_MAX.as_millis()).unwrap_or(i64::MAX);
        arguments.push(("x-message-ttl", Argument::Number(most_ms)));
        self.queues.push(QueueSpec { name: name.clone(), arguments });
        self.bind_queue(&name, &name, "");
    }

    /// An exchange that is published to: what has no route there becomes a letter, where else it would vanish.
    fn exchange(&mut self, names: &Names, name: String, kind: &'static str) {
        let arguments = vec![("alternate-exchange", text(&names.dead()))];
        self.exchanges.push(Exchange { name, kind, arguments });
    }

    /// An exchange that queues feed, or that the log's records go by. It has no alternate: a queue that dead-letters at least once keeps what
    /// has no way on and tries again. RabbitMQ lets go what has expired before its exchanges have their bindings back when it
    /// starts, and an alternate would make letters of what nobody gave up.
    fn way(&mut self, name: String, kind: &'static str) {
        self.exchanges.push(Exchange { name, kind, arguments: Vec::new() });
    }

    fn bind_queue(&mut self, from: &str, to: &str, key: &str) {
        self.bindings.push(Binding { from: from.into(), to: to.into(), fed: Fed::Queue, key: key.into() });
    }
}

/// Replicated, and what leaves it by itself arrives: at-least-once dead-lettering needs `reject-publish`, without
/// which the broker falls back to at-most-once with nothing but a line in its log.
fn safe_queue(dead_letter_exchange: &str) -> Vec<(&'static str, Argument)> {
    vec![
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-exchange", text(dead_letter_exchange)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ]
}

fn text(text: &str) -> Argument {
    Argument::Text(text.to_owned())
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments = |list: &[(&'static str, Argument)]| {
            list.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        for exchange in &self.exchanges {
            writeln!(f, "exchange {} {} {}", exchange.name, exchange.kind, arguments(&exchange.arguments))?;
        }
        for queue in &self.queues {
            writeln!(f, "queue {} {}", queue.name, arguments(&queue.arguments))?;
        }
        for binding in &self.bindings {
            writeln!(f, "binding {} -> {} \"{}\"", binding.from, binding.to, binding.key)?;
        }
        for binding in &self.former {
            writeln!(f, "no binding {} -> {} \"{}\"", binding.from, binding.to, binding.key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everything_that_feeds_has_its_target_declared_before() {
        let topology = Topology::new("t");
        let exchanges: Vec<&str> = topology.exchanges.iter().map(|exchange| exchange.name.as_str()).collect();
        for queue in &topology.queues {
            for (name, value) in &queue.arguments {
                if *name == "x-dead-letter-exchange" {
                    assert!(exchanges.contains(&value.to_string().as_str()), "{} feeds {value}", queue.name);
                }
            }
        }
        assert_eq!(topology.exchanges[0].name, "t.dead");
        assert_eq!(topology.queues.len(), 4 + Queue::ALL.len() + 2 + 1 + 19 + 8 + 1);
    }

    /// What the fanout feeds beside the stream can neither refuse nor grow without end, and sends nothing on.
    #[test]
    fn the_copies_never_hold_up_the_stream() {
        let topology = Topology::new("t");
        let recent = topology.queues.iter().find(|queue| queue.name == "t.dead.recent").unwrap();
        let arguments: Vec<String> = recent.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            arguments,
            ["x-queue-type=quorum", "x-overflow=drop-head", "x-message-ttl=3600000", "x-max-length-bytes=268435456"]
        );
        assert_eq!(fed_by(&topology, "t.letters"), ["t.dead", "t.dead.recent"]);
    }

    fn fed_by<'t>(topology: &'t Topology, exchange: &str) -> Vec<&'t str> {
        let bindings = topology.bindings.iter().filter(|binding| binding.from == exchange);
        bindings.map(|binding| binding.to.as_str()).collect()
    }

    fn argument<'t>(arguments: &'t [(&'static str, Argument)], wanted: &str) -> Option<&'t Argument> {
        arguments.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value)
    }

    /// Everything that a message may get to from an exchange without a client's doing: by bindings, alternates and
    /// dead-letter exchanges.
    fn reached_from(topology: &Topology, exchange: &str) -> BTreeSet<String> {
        let (mut reached, mut ahead) = (BTreeSet::new(), vec![format!("exchange {exchange}")]);
        while let Some(place) = ahead.pop() {
            if !reached.insert(place.clone()) {
                continue;
            }
            let next = if let Some(name) = place.strip_prefix("exchange ") {
                let bound = topology.bindings.iter().filter(|binding| binding.from == name);
                let bound = bound.map(|Binding { to, fed, .. }| match fed {
                    Fed::Queue => format!("queue {to}"),
                    Fed::Exchange => format!("exchange {to}"),
                });
                let found = topology.exchanges.iter().find(|exchange| exchange.name == name).unwrap();
                let alternate = argument(&found.arguments, "alternate-exchange");
                bound.chain(alternate.map(|to| format!("exchange {to}"))).collect::<Vec<_>>()
            } else {
                let name = place.strip_prefix("queue ").unwrap();
                let found = topology.queues.iter().find(|queue| queue.name == name).unwrap();
                argument(&found.arguments, "x-dead-letter-exchange")
                    .map(|to| format!("exchange {to}"))
                    .into_iter()
                    .collect()
            };
            ahead.extend(next);
        }
        reached
    }

    /// The broker itself brings nothing into a stream that a client wrote: what it cannot convert would end its
    /// dead-lettering.
    #[test]
    fn nothing_of_a_client_reaches_a_stream_by_the_brokers_hand() {
        let topology = Topology::new("t");
        let streams: Vec<&str> = topology
            .queues
            .iter()
            .filter(|queue| argument(&queue.arguments, "x-queue-type") == Some(&text("stream")))
            .map(|queue| queue.name.as_str())
            .collect();
        assert_eq!(streams, ["t.dead"]);
        for exchange in topology.exchanges.iter().filter(|exchange| exchange.name != "t.letters") {
            let reached = reached_from(&topology, &exchange.name);
            assert!(!reached.contains("queue t.dead") && !reached.contains("exchange t.letters"), "{}", exchange.name);
        }
        let events = reached_from(&topology, "t.gates");
        let end = ["queue t.gates.expired", "queue t.buried", "queue t.unreadable"];
        assert!(end.iter().all(|end| events.contains(*end)), "{events:?}");
    }

    /// What nobody can read ends in a queue that keeps it, whatever policies there are.
    #[test]
    fn what_is_unreadable_is_kept() {
        let topology = Topology::new("t");
        let arguments = |name: &str| {
            let queue = topology.queues.iter().find(|queue| queue.name == name).unwrap();
            queue.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            arguments("t.buried"),
            "x-queue-type=quorum x-dead-letter-exchange=t.unreadable x-dead-letter-strategy=at-least-once \
             x-overflow=reject-publish x-delivery-limit=3"
        );
        assert_eq!(arguments("t.unreadable"), "x-queue-type=quorum x-delivery-limit=1000000");
        assert_eq!(fed_by(&topology, "t.dead"), ["t.buried"]);
        let former: Vec<&str> = topology.former.iter().map(|binding| binding.to.as_str()).collect();
        assert_eq!(former, ["t.dead", "t.dead.recent"]);
    }

    /// What is published has the log as its alternate; what a queue lets go, after its time, never does.
    #[test]
    fn nothing_that_waited_becomes_a_letter_by_itself() {
        let topology = Topology::new("t");
        let arguments = |list: &[(&'static str, Argument)], wanted: &str| {
            list.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.to_string())
        };
        let alternate = |name: &str| {
            let exchange = topology.exchanges.iter().find(|exchange| exchange.name == name).unwrap();
            arguments(&exchange.arguments, "alternate-exchange")
        };
        for published in ["t.events", "t.lane", "t.delay", "t.park.1", "t.park.8", "t.running"] {
            assert_eq!(alternate(published).as_deref(), Some("t.dead"), "{published}");
        }
        let timed = |queue: &&QueueSpec| arguments(&queue.arguments, "x-message-ttl").is_some();
        let is_dropped = |queue: &&QueueSpec| ["t.dead.recent", "t.delay.probes"].contains(&queue.name.as_str());
        let held = topology.queues.iter().filter(timed).filter(|queue| !is_dropped(queue));
        for queue in held {
            let to = arguments(&queue.arguments, "x-dead-letter-exchange").unwrap();
            assert_eq!(alternate(&to), None, "{} feeds {to}", queue.name);
        }
    }

    #[test]
    fn the_ladder_reads_its_bits_from_the_top() {
        let topology = Topology::new("t");
        let keys = |from: &str| -> Vec<&str> {
            let of = topology.bindings.iter().filter(|binding| binding.from == from);
            of.map(|binding| binding.key.as_str()).collect()
        };
        assert_eq!(keys("t.delay.17"), ["*.1.#", "*.0.#"]);
        assert_eq!(keys("t.delay")[16..], ["0.0.1.#", "0.1.#", "1.#"]);
        let level_18 = topology.queues.iter().find(|queue| queue.name == "t.delay.18").unwrap();
        assert!(level_18.arguments.contains(&("x-message-ttl", Argument::Number(250 << 18))));
    }
}
