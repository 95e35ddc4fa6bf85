"""Tests of the plugin without a broker, and with Bernstein where that is installed."""

import collections
import dataclasses
import datetime
import decimal
import enum
import importlib.metadata
import inspect
import json
import pathlib
import time
import uuid
from collections.abc import Callable
from typing import Any

import pluggy
import pytest

import hookfleet_bernstein
from hookfleet_bernstein import GATES, NO_ANSWER, Event, Link, Plugin, Settings, refusal, to_json

PLUGGY = [int(part) for part in pluggy.__version__.split(".")[:2]]


@dataclasses.dataclass
class Point:
    x: int
    where: pathlib.PurePath


class Color(enum.Enum):
    RED = "red"


class Spiteful:
    def __str__(self) -> str:
        raise RuntimeError("no text")


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": None, "b": True, "c": 1, "d": 1.5, "e": "é"}, {"a": None, "b": True, "c": 1, "d": 1.5, "e": "é"}),
        ([float("nan"), float("inf"), float("-inf")], [None, None, None]),
        (pathlib.PurePosixPath("/srv/a"), "/srv/a"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "2026-01-02T03:04:05+00:00"),
        ((datetime.date(2026, 1, 2), datetime.time(3, 4)), ["2026-01-02", "03:04:00"]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset("hookfleet"), ["e", "f", "h", "k", "l", "o", "t"]),
        (Point(1, pathlib.PurePosixPath("b")), {"x": 1, "where": "b"}),
        (Pair(1, {2}), [1, [2]]),
        (range(3), [0, 1, 2]),
        (b"caf\xc3\xa9", "café"),
        (bytearray(b"\xff"), "\ufffd"),
        (Color.RED, "red"),
        ({2: "a", None: "b", True: "c", Color.RED: "d"}, {"2": "a", "null": "b", "true": "c", "red": "d"}),
        (decimal.Decimal("1.10"), "1.10"),
        ("half a pair \ud800", "half a pair ?"),
        (Spiteful(), "<Spiteful>"),
        ([1, Spiteful()], [1, "<Spiteful>"]),
        (2**70, 2**70),
    ],
)  # fmt: skip
def test_every_value_becomes_json(value: Any, expected: Any) -> None:
    assert to_json(value) == expected
    assert json.loads(json.dumps(to_json(value), allow_nan=False)) == expected


def test_a_circle_a_flood_and_a_giant_end() -> None:
    assert to_json({"n": 10**5000}) == {"n": "<int>"}
    circle: list[Any] = [1]
    circle += [circle, circle]
    began = time.monotonic()
    assert json.dumps(to_json(circle)).count(",") < 200_000
    assert to_json(range(1_000_000))[-2:] == [99_998, "…"]
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", None),
        (b"{}", None),
        (b'{"verdict": "allow", "stop": false}', None),
        (b'{"verdict": "deny", "reason": "no deploys today", "stop": true}', "no deploys today"),
        (b'{"decision": "deny", "reason": "no"}', "no"),
        (b'{"decision": "block"}', "refused by the hook fleet"),
        (b'{"decision": "approve"}', None),
        (b'{"permission": "ask", "reason": "too big"}', "somebody is to be asked: too big"),
        (b'{"decision": "approve", "permission": "deny", "reason": 7}', "7"),
        (b'{"verdict": "allow", "stop": true}', "refused by the hook fleet"),
        (b'{"verdict": "maybe"}', ValueError),
        (b'{"verdict": ["deny"]}', ValueError),
        (b'{"status": 422, "title": "Unprocessable Content", "detail": "no such dialect"}', ValueError),
        (b"[1]", ValueError),
        (b"no JSON", ValueError),
    ],
)
def test_answers_are_read(answer: bytes, expected: Any) -> None:
    if expected is ValueError:
        with pytest.raises(ValueError):
            refusal(answer)
    else:
        assert refusal(answer) == expected


@pytest.mark.parametrize(
    ("name", "text", "field", "expected"),
    [
        ("AMQP_URL", "amqps://fleet@mq.example.com", "url", "amqps://fleet@mq.example.com"),
        ("NAMESPACE", "staging", "namespace", "staging"),
        ("LIMIT_S", "0.25", "limit_s", 0.25),
        ("LIMIT_S", "soon", "limit_s", 1.0),
        ("LIMIT_S", "0", "limit_s", 1.0),
        ("LIMIT_S", "nan", "limit_s", 1.0),
        ("QUEUE", "5", "queue", 5),
        ("QUEUE", "-1", "queue", 1000),
        ("GATES", "", "gates", frozenset()),
        ("GATES", "all", "gates", GATES),
        ("GATES", "on_pre_tool_use, on_stop", "gates", frozenset({"on_pre_tool_use"})),
        ("CLOSED", "true", "closed", True),
        ("CLOSED", "no", "closed", False),
        ("CLOSED", "treu", "closed", True),
    ],
)
def test_settings_are_read(name: str, text: str, field: str, expected: Any) -> None:
    assert getattr(Settings.of({f"HOOKFLEET_{name}": text}), field) == expected


def test_an_event_says_what_it_is() -> None:
    event = Event.of("on_stop", {"session_id": "s-1", "reason": "über", "signal": "SIGTERM"})
    properties = event.properties(delivery_mode=2)
    assert event.body == '{"session_id":"s-1","reason":"über","signal":"SIGTERM"}'.encode()
    assert properties.headers == {"hook-dialect": "bernstein", "hook-event": "on_stop"}
    assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)
    assert uuid.UUID(properties.message_id).version == 4
    assert properties.message_id == event.properties().message_id != Event.of("on_stop", {}).id
    assert abs(properties.timestamp - time.time()) < 5


class FakeLink(Link):
    """Keeps what would be published, and answers as it was told."""

    def __init__(self, settings: Settings, answer: bytes | Exception | None) -> None:
        super().__init__(settings)
        self.published: list[Event] = []
        self.questions: list[Event] = []
        self.given = answer

    def publish(self, event: Event) -> None:
        self.published.append(event)

    def ask(self, event: Event) -> bytes | None:
        self.questions.append(event)
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@pytest.fixture
def manager(tmp_path: pathlib.Path) -> Any:
    bernstein = pytest.importorskip("bernstein.plugins.manager")
    trust = tmp_path / ".sdd" / "runtime" / "workspace_trust.json"
    trust.parent.mkdir(parents=True)
    trust.write_text('{"trusted": true}')
    return bernstein.PluginManager(workdir=tmp_path)


def plugged(manager: Any, settings: Settings, answer: Any = None) -> FakeLink:
    link = FakeLink(settings, answer)
    manager.register(Plugin(settings, link), name="hookfleet")
    return link


def test_bernstein_finds_the_plugin(manager: Any) -> None:
    found = importlib.metadata.entry_points(group="bernstein.plugins", name="hookfleet")
    if not found:
        pytest.skip("the plugin is not installed")
    manager.discover_entry_points()
    assert "hookfleet" in manager.registered_names
    assert set(manager.plugin_hooks("hookfleet")) == set(hookfleet_bernstein.hookspecs())


def value_of(parameter: inspect.Parameter) -> Any:
    plain = {"str": "text", "int": 7, "float": 1.5, "bool": True, "list[str]": ["a"], "str | None": "text"}
    return plain.get(str(parameter.annotation), {"path": pathlib.PurePosixPath("/a"), "none": float("nan")})


def test_every_hook_publishes_its_arguments(manager: Any) -> None:
    link = plugged(manager, Settings())
    specs = hookfleet_bernstein.hookspecs()
    assert len(specs) >= 38  # of 3.23.0
    for name, spec in specs.items():
        parameters = list(inspect.signature(spec).parameters.values())[1:]
        arguments = {parameter.name: value_of(parameter) for parameter in parameters}
        assert getattr(manager._pm.hook, name)(**arguments) in (None, [])
        event = link.published.pop()
        assert (event.hook, link.published) == (name, [])
        expected = to_json(arguments)
        if PLUGGY < [1, 7]:  # it hands no plugin an argument that has a default
            expected |= {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
        assert json.loads(event.body) == expected


def test_the_manager_fires_through_to_the_plugin(manager: Any) -> None:
    link = plugged(manager, Settings())
    manager.fire_task_created("t-1", "backend", "add a cache")
    manager.fire_pre_tool_use("s-1", "Bash", {"command": "ls"})
    manager.fire_permission_denied("t-1", "no", "Bash", {"command": "ls"})
    shown = [(event.hook, json.loads(event.body)) for event in link.published]
    assert shown == [
        ("on_task_created", {"task_id": "t-1", "role": "backend", "title": "add a cache"}),
        ("on_pre_tool_use", {"session_id": "s-1", "tool": "Bash", "tool_input": {"command": "ls"}}),
        ("on_permission_denied", {"task_id": "t-1", "reason": "no", "tool": "Bash", "args": {"command": "ls"}}),
    ]


FIRE: dict[str, Callable[[Any], Any]] = {
    "on_pre_tool_use": lambda manager: manager.fire_pre_tool_use("s-1", "Bash", {"command": "ls"}),
    "on_pre_task_create": lambda manager: manager.fire_pre_task_create("", "backend", "add a cache", "in memory"),
    "on_permission_request": lambda manager: manager.fire_permission_request("s-1", "Bash", "ask"),
}


@pytest.mark.parametrize("hook", sorted(GATES))
@pytest.mark.parametrize(
    ("answer", "closed", "why"),
    [
        (b'{"verdict": "allow"}', True, None),
        (b'{"verdict": "deny", "reason": "not today"}', False, "not today"),
        (None, False, None),
        (None, True, NO_ANSWER),
        (b"no JSON", False, None),
        (b"no JSON", True, NO_ANSWER),
        (RuntimeError("a bug of ours"), False, None),
        (RuntimeError("a bug of ours"), True, NO_ANSWER),
    ],
)
def test_gates_hold(manager: Any, hook: str, answer: Any, closed: bool, why: str | None) -> None:
    from bernstein.plugins.manager import HookBlockingError

    link = plugged(manager, Settings(gates=frozenset({hook}), closed=closed), answer)
    if why is None:
        assert FIRE[hook](manager) is None
    else:
        with pytest.raises(HookBlockingError) as raised:
            FIRE[hook](manager)
        assert (raised.value.hook_name, raised.value.stderr) == (hook, why)
    assert [event.hook for event in link.questions] == [hook]
    # What nobody has decided is published all the same, as the same event; the rest the fleet publishes itself.
    assert [event.id for event in link.published] == [event.id for event in link.questions if answer is None]


def test_a_plugin_that_blocks_keeps_nothing_from_the_fleet(manager: Any) -> None:
    from bernstein.plugins.manager import HookBlockingError

    class Blocks:
        @hookfleet_bernstein.hookimpl
        def on_stop(self, session_id: str) -> None:
            raise HookBlockingError("on_stop", session_id)

    link = plugged(manager, Settings())
    manager.register(Blocks(), name="later, and so called before")
    with pytest.raises(HookBlockingError):
        manager._pm.hook.on_stop(session_id="s-1", reason="done")
    assert [json.loads(event.body) for event in link.published] == [
        {"session_id": "s-1", "reason": "done", "signal": "SIGTERM"}
    ]


def test_an_observing_hook_never_raises(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    link = plugged(manager, Settings(gates=GATES, closed=True))
    monkeypatch.setattr(link, "publish", lambda event: 1 / 0)
    manager._pm.hook.on_task_created(task_id="t-1", role="backend", title="add a cache")
