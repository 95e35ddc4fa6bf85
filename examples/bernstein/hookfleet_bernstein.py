"""A plugin for Bernstein that publishes every plugin hook to a hookfleet fleet over RabbitMQ, and asks its gates.

Bernstein finds `Plugin` by the entry point group `bernstein.plugins`. README.md says how it is set up. The daemon
thread of `Link` owns the connection, so that a broker that is away, mute or blocked never keeps Bernstein waiting.
"""

import atexit
import contextlib
import dataclasses
import datetime
import enum
import functools
import inspect
import json
import logging
import math
import os
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import islice
from typing import Any

import pika
import pika.exceptions
import pluggy

LOG, LOG_EVERY_S = logging.getLogger("hookfleet_bernstein"), 60.0
# Hooks of Bernstein 3.23.0 at which HookBlockingError stops what was about to happen.
GATES = frozenset({"on_pre_tool_use", "on_pre_task_create", "on_permission_request"})
NO_ANSWER = "the hook fleet has given no answer in time"
REPLY_TO = "amq.rabbitmq.reply-to"  # no queue: answers come straight to the channel
REFUSED = (pika.exceptions.UnroutableError, pika.exceptions.NackError, pika.exceptions.ChannelClosedByBroker)
TRIES = 5  # that the broker refuses one event
BACKOFF_S, BACKOFF_MAX_S = 0.25, 30.0
HEARTBEAT_S = 5  # pika notices within 20 s that a broker has gone mute
DEPTH, VALUES = 64, 100_000  # of one event's JSON
hookimpl = pluggy.HookimplMarker("bernstein")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the environment says. A value that cannot be read is logged, and the default stays."""

    url: str = dataclasses.field(default="amqp://127.0.0.1:5672", repr=False)  # it may have a password in it
    namespace: str = "hookfleet"
    limit_s: float = 1.0
    queue: int = 1000
    gates: frozenset[str] = frozenset()
    closed: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Settings":
        def read(name: str, default: Any, reader: Callable[[str], Any] = str) -> Any:
            text = environment.get(f"HOOKFLEET_{name}", "").strip()
            try:
                return reader(text) if text else default
            except ValueError as error:
                LOG.error("HOOKFLEET_%s stays %r: %s", name, default, error)
                return default

        return cls(
            url=read("AMQP_URL", cls.url),
            namespace=read("NAMESPACE", cls.namespace),
            limit_s=read("LIMIT_S", cls.limit_s, lambda text: _between(float(text), 0.01, 600)),
            queue=read("QUEUE", cls.queue, lambda text: _between(int(text), 1, 1_000_000)),
            gates=read("GATES", cls.gates, _gates),
            # A word that nobody knows is taken as closed, since who sets this wants gates that hold.
            closed=read("CLOSED", cls.closed, lambda text: text.lower() not in {"0", "false", "no", "off"}),
        )


def _between(number: float, least: float, most: float) -> float:
    if not least <= number <= most:
        raise ValueError(f"expected {least} to {most}")
    return number


def _gates(text: str) -> frozenset[str]:
    names = GATES if text == "all" else frozenset(name.strip() for name in text.split(",") if name.strip())
    for name in sorted(names - GATES):
        LOG.error("HOOKFLEET_GATES: expected all, or some of %s, found %r", ", ".join(sorted(GATES)), name)
    return names & GATES


def to_json(value: Any) -> Any:
    """The value in what JSON has: paths and times as text, sets and tuples as lists, NaN as null. It never fails."""
    left = VALUES

    def of(value: Any, depth: int = 0) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > DEPTH:
            return "…"  # a circle ends here, too
        try:
            parts = _parts(value)
            if isinstance(parts, Mapping):
                return {name(key): of(part, depth + 1) for key, part in islice(parts.items(), left + 1)}
            return _whole(value) if parts is None else [of(part, depth + 1) for part in islice(parts, left + 1)]
        except Exception:  # of a property or a `__str__` that is not ours
            return f"<{type(value).__name__}>"

    def name(key: Any) -> str:
        found = of(key, DEPTH)
        return found if isinstance(found, str) else json.dumps(found)

    return of(value)


def _parts(value: Any) -> Mapping[Any, Any] | Sequence[Any] | None:
    """What the value consists of, if it has parts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Set):
        return sorted(value, key=repr)
    whole = isinstance(value, (str, bytes, bytearray, memoryview))
    return value if isinstance(value, (Mapping, Sequence)) and not whole else None


def _whole(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return _whole(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(str(int(value)))  # text on the way: Python refuses to write numbers of more than 4,300 digits
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value).encode("utf-8", "replace").decode()  # JSON has no place for half a surrogate pair


@dataclasses.dataclass
class Event:
    """One firing of a hook. Its id stays the same however often it is sent."""

    hook: str
    body: bytes
    id: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    at: float = dataclasses.field(default_factory=time.time)
    refusals: int = 0

    @classmethod
    def of(cls, hook: str, arguments: Mapping[str, Any]) -> "Event":
        text = json.dumps(to_json(arguments), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return cls(hook, text.encode())

    def properties(self, headers: Mapping[str, Any] | None = None, **more: Any) -> pika.BasicProperties:
        return pika.BasicProperties(
            content_type="application/json",
            headers={"hook-dialect": "bernstein", "hook-event": self.hook, **(headers or {})},
            message_id=self.id,
            timestamp=int(self.at),
            type=f"bernstein.plugin.{self.hook}",
            app_id="bernstein",
            **more,
        )


def refusal(answer: bytes) -> str | None:
    """Why not, by a gate's answer; None: it may be done. Raises ValueError for an answer that decides nothing.

    `ask` is a refusal, since nobody can be asked at these hooks.
    """
    given = json.loads(answer.strip() or b"{}")
    given = given if isinstance(given, dict) else {"": given}
    words = [given[key] for key in ("verdict", "decision", "permission") if given.get(key) is not None]
    if any(word not in ("allow", "approve", "deny", "block", "ask") for word in words) or bool(words) != bool(given):
        raise ValueError(f"expected a decision, found {answer[:200]!r}")
    reason = given.get("reason") or "refused by the hook fleet"
    if given.get("stop") is True or "deny" in words or "block" in words:
        return str(reason)
    return f"somebody is to be asked: {reason}" if "ask" in words else None


class Link:
    """The connection to RabbitMQ, in a thread of its own, which begins with the first event.

    Any thread may call `publish`, `ask` and `close`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.said: dict[str, float] = {}
        self._begin()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """In a forked child too: it has no such thread, and what waits is the parent's."""
        self.changed = threading.Condition()
        self.waiting: deque[Event] = deque()
        self.asked: deque[tuple[Event, float]] = deque()  # with the time until which an answer is of use
        self.answers: dict[str, queue.SimpleQueue[bytes | None]] = {}
        self.dropped = 0
        self.thread: threading.Thread | None = None
        self.connection: pika.BlockingConnection | None = None
        self.closing = self.well = False

    def publish(self, event: Event) -> None:
        """Puts the event into the queue, and returns at once."""
        with self.changed:
            if len(self.waiting) >= self.settings.queue:
                self._drop("the queue is full")
            else:
                self.waiting.append(event)
                self._wake()

    def ask(self, event: Event) -> bytes | None:
        """The answer of the fleet; None: there is none in time."""
        answer = self.answers[event.id] = queue.SimpleQueue()
        with self.changed:
            self.asked.append((event, time.monotonic() + self.settings.limit_s))
            self._wake()
        try:
            return answer.get(timeout=self.settings.limit_s)
        except queue.Empty:
            return None
        finally:
            del self.answers[event.id]

    def close(self) -> None:
        """Sends what waits, within the limit, and ends the connection."""
        with self.changed:
            if self.thread is None or self.closing:
                return
            self.closing = True
            self._wake()
        self.thread.join(self.settings.limit_s)
        if self.waiting or self.dropped:
            LOG.warning("%d events were not confirmed at the end, and %d dropped", len(self.waiting), self.dropped)

    def say(self, kind: str, text: str, *arguments: Any) -> None:
        """Logs a warning of each kind at most once a minute."""
        now = time.monotonic()
        if now - self.said.get(kind, -LOG_EVERY_S) >= LOG_EVERY_S:
            self.said[kind] = now
            LOG.warning(text, *arguments)

    def _drop(self, why: str) -> None:
        self.dropped += 1
        self.say("dropped", "an event is dropped: %s; %d so far", why, self.dropped)

    def _wake(self) -> None:
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name="hookfleet", daemon=True)
            self.thread.start()
        self.changed.notify_all()
        if self.connection is not None:
            with contextlib.suppress(pika.exceptions.AMQPError):
                self.connection.add_callback_threadsafe(lambda: None)

    def _run(self) -> None:
        delay = 0.0
        while not self.closing or self.waiting:
            with self.changed:
                self.changed.wait_for(lambda: self.closing or self.asked, delay)
                self.changed.wait_for(lambda: self.closing or self.asked or self.waiting)
            self.well = False  # until something is confirmed
            last = self.closing
            try:
                self._session()
            except Exception as error:
                self.say("broker", "nothing reaches RabbitMQ, and it is tried again: %r", error)
            self.asked.clear()
            for answer in list(self.answers.values()):
                answer.put(None)
            if last and not self.well:
                return
            delay = BACKOFF_S if self.well else min(max(delay * 2, BACKOFF_S), BACKOFF_MAX_S)

    def _session(self) -> None:
        """One connection, from its beginning to its end."""
        connection = pika.BlockingConnection(self._parameters())
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.exchange_declare(f"{self.settings.namespace}.events", passive=True)  # an error, if it is not there
            if self.settings.gates:
                channel.basic_consume(REPLY_TO, self._answered, auto_ack=True)
            with self.changed:
                self.connection = connection
            while self.waiting or self.asked or not self.closing:
                self._send_one(channel)
                busy = self.waiting or self.asked or self.closing
                connection.process_data_events(time_limit=0 if busy else 1)  # a callback ends it sooner
        finally:
            with self.changed:
                self.connection = None
            with contextlib.suppress(Exception):
                connection.close()

    def _parameters(self) -> pika.URLParameters:
        try:
            parameters = pika.URLParameters(self.settings.url)
        except Exception:
            raise ValueError("HOOKFLEET_AMQP_URL is no URL of a broker") from None
        parameters.socket_timeout = parameters.stack_timeout = self.settings.limit_s
        parameters.blocked_connection_timeout = self.settings.limit_s
        parameters.connection_attempts, parameters.heartbeat = 1, HEARTBEAT_S
        return parameters

    def _send_one(self, channel: Any) -> None:
        """Sends a question or an event, and returns when the broker has it for good."""
        if self.asked:
            event, until = self.asked.popleft()
            left_ms = int((until - time.monotonic()) * 1000)
            if left_ms > 0:
                deadline = {"hookfleet-deadline": int(time.time() * 1000) + left_ms}
                more = {"reply_to": REPLY_TO, "correlation_id": event.id, "expiration": str(left_ms)}
                self._publish(channel, "gates", event, event.properties(deadline, **more))
        elif self.waiting:
            event = self.waiting[0]
            if event.refusals < TRIES:
                self._publish(channel, "events", event, event.properties(delivery_mode=2))
            else:
                self._drop(f"the broker has refused it {TRIES} times")
            self.well = True
            self.waiting.popleft()

    def _publish(self, channel: Any, exchange: str, event: Event, properties: pika.BasicProperties) -> None:
        name = f"{self.settings.namespace}.{exchange}"
        try:
            channel.basic_publish(name, properties.type, event.body, properties, mandatory=True)
        except REFUSED:
            event.refusals += 1
            raise

    def _answered(self, _channel: Any, _method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        self.well = True
        if answer := self.answers.get(properties.correlation_id or ""):
            answer.put(body)


def hookspecs() -> dict[str, Callable[..., Any]]:
    """The hooks that the installed Bernstein has."""
    from bernstein.plugins.hookspecs import BernsteinSpec

    return {name: spec for name, spec in vars(BernsteinSpec).items() if name.startswith("on_")}


class Plugin:
    """What Bernstein loads. It has a method for each hook of the Bernstein that is installed."""

    def __init__(self, settings: Settings | None = None, link: Link | None = None) -> None:
        self.settings = settings or Settings.of(os.environ)
        self.link = link or Link(self.settings)
        pika_log = logging.getLogger("pika")
        if pika_log.level == logging.NOTSET:
            pika_log.setLevel(logging.CRITICAL)  # it logs several errors for each try to connect
        for name, spec in hookspecs().items():
            setattr(self, name, self._implementation(name, spec))

    def _implementation(self, name: str, spec: Callable[..., Any]) -> Callable[..., None]:
        signature = inspect.signature(spec)

        # pluggy reads the names of the arguments from the function that is wrapped.
        @hookimpl(tryfirst=True)  # a plugin that blocks keeps nothing from us
        @functools.wraps(spec)
        def fire(*values: Any, **more: Any) -> None:
            given = signature.bind(self, *values, **more)
            given.apply_defaults()
            self.fired(name, dict(list(given.arguments.items())[1:]))

        return fire

    def fired(self, hook: str, arguments: Mapping[str, Any]) -> None:
        """Publishes the event, or asks about it; raises HookBlockingError for what is refused, and nothing else."""
        why = None
        try:
            event = Event.of(hook, arguments)
            if hook in self.settings.gates:
                why = self._ask(event)
            else:
                self.link.publish(event)
        except Exception as error:
            self.link.say("failed", "%s failed: %r", hook, error)
            why = NO_ANSWER if hook in self.settings.gates and self.settings.closed else None
        if why is not None:
            from bernstein.plugins.manager import HookBlockingError

            raise HookBlockingError(hook, why)

    def _ask(self, event: Event) -> str | None:
        answer = self.link.ask(event)
        if answer is None:
            # Under the same id, so that it is one event if the fleet has taken the question after all.
            self.link.publish(event)
            self.link.say("gate", "no gate has answered %s in time, closed: %s", event.hook, self.settings.closed)
            return NO_ANSWER if self.settings.closed else None
        return refusal(answer)
