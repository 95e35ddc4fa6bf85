"""Tests of the connection: with brokers that are away or mute, and with a real one that HOOKFLEET_TEST_AMQP names."""

import dataclasses
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest

from hookfleet_bernstein import GATES, Event, Link, Settings

BROKER = os.environ.get("HOOKFLEET_TEST_AMQP", "")
with_broker = pytest.mark.skipif(not BROKER, reason="HOOKFLEET_TEST_AMQP names no broker")
SLACK_S = 0.5  # the machine of a test may be slow


@pytest.fixture(params=["none", "mute"])
def bad_broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """A port on which nobody listens, or one that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "mute":
            listener.listen(64)
        yield f"amqp://fleet:do%20not%20tell@127.0.0.1:{listener.getsockname()[1]}"


def took(call: Callable[[], Any]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def publish_all(link: Link, events: list[Event]) -> None:
    for event in events:
        link.publish(event)


def test_a_bad_broker_keeps_nobody_waiting(bad_broker: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    link = Link(Settings(url=bad_broker, limit_s=0.4, queue=3))
    assert took(lambda: publish_all(link, [Event.of("on_stop", {"n": n}) for n in range(5)])) < SLACK_S
    assert ([json.loads(event.body)["n"] for event in link.waiting], link.dropped) == ([0, 1, 2], 2)
    assert took(lambda: link.ask(Event.of("on_pre_tool_use", {}))) < 0.4 + SLACK_S
    time.sleep(1.5)  # it has tried again by then
    assert took(link.close) < 0.4 + SLACK_S
    ours = [record.getMessage() for record in caplog.records if record.name == "hookfleet_bernstein"]
    assert sum("nothing reaches RabbitMQ" in line for line in ours) == 1  # a minute
    assert sum("is dropped" in line for line in ours) == 1
    assert "3 events were not confirmed at the end, and 2 dropped" in ours[-1]
    assert "do not tell" not in caplog.text and "do%20not" not in caplog.text


def test_a_connection_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(Settings(limit_s=0.2))
    monkeypatch.setattr(link, "_session", lambda: time.sleep(3))
    assert took(lambda: link.ask(Event.of("on_pre_tool_use", {}))) < 0.2 + SLACK_S
    assert link.thread is not None and link.thread.daemon
    assert took(link.close) < 0.2 + SLACK_S


def test_a_broker_that_is_away_is_tried_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    link, tries = Link(Settings(limit_s=0.2)), list[float]()

    def session() -> None:
        tries.append(time.monotonic())
        raise OSError

    monkeypatch.setattr(link, "_session", session)
    link.publish(Event.of("on_stop", {}))
    time.sleep(1)  # at 0, 0.25 and 0.75 s
    assert 1 <= len(tries) <= 3
    link.close()


def test_a_url_that_is_none_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    link = Link(Settings(url="amqp://fleet:do-not-tell@:what", limit_s=0.2))
    link.publish(Event.of("on_stop", {}))
    link.close()
    assert "HOOKFLEET_AMQP_URL is no URL of a broker" in caplog.text and "do-not-tell" not in caplog.text


class Fleet:
    """The exchanges of a fleet, with a queue behind each."""

    def __init__(self, exchanges: bool = True) -> None:
        self.settings = Settings(url=BROKER, namespace=f"test-{uuid.uuid4().hex[:12]}", gates=GATES, limit_s=5)
        self.connection = pika.BlockingConnection(pika.URLParameters(BROKER))
        self.channel = self.connection.channel()
        if exchanges:
            self.declare()

    def declare(self) -> None:
        for name in ("events", "gates"):
            exchange = f"{self.settings.namespace}.{name}"
            self.channel.exchange_declare(exchange, "topic", auto_delete=True)
            self.channel.queue_declare(exchange, exclusive=True)
            self.channel.queue_bind(exchange, exchange, "#")

    def take(self, name: str, count: int) -> list[tuple[pika.BasicProperties, Any]]:
        found: list[tuple[pika.BasicProperties, Any]] = []
        until = time.monotonic() + 30
        while len(found) < count and time.monotonic() < until:
            method, properties, body = self.channel.basic_get(f"{self.settings.namespace}.{name}", auto_ack=True)
            if method:
                found.append((properties, json.loads(body)))
            else:
                self.connection.sleep(0.02)
        return found


@with_broker
def test_a_thousand_firings_arrive_each_once() -> None:
    fleet = Fleet()
    link = Link(fleet.settings)
    events = [Event.of("on_stop", {"n": n}) for n in range(1000)]
    assert took(lambda: publish_all(link, events)) < 1
    found = fleet.take("events", 1000)
    link.close()
    assert [body["n"] for _, body in found] == list(range(1000))
    assert [properties.message_id for properties, _ in found] == [event.id for event in events]
    assert {properties.delivery_mode for properties, _ in found} == {2}
    assert fleet.take("events", 0) == [] and not link.waiting
    assert link.thread is not None and not link.thread.is_alive()


@with_broker
def test_what_waits_arrives_under_its_id_once_the_fleet_is_there() -> None:
    fleet = Fleet(exchanges=False)
    link, event = Link(fleet.settings), Event.of("on_stop", {})
    link.publish(event)
    time.sleep(1)
    fleet.declare()
    assert [properties.message_id for properties, _ in fleet.take("events", 1)] == [event.id]
    link.close()


@with_broker
def test_a_gate_is_asked_over_the_broker_ahead_of_the_queue() -> None:
    fleet = Fleet()
    link = Link(dataclasses.replace(fleet.settings, queue=5000))
    answers: list[bytes | None] = []
    publish_all(link, [Event.of("on_stop", {"n": n}) for n in range(2500)])
    asker = threading.Thread(target=lambda: answers.append(link.ask(Event.of("on_pre_tool_use", {"tool": "Bash"}))))
    asker.start()
    ((properties, body),) = fleet.take("gates", 1)
    assert link.waiting
    assert (body, properties.headers["hook-event"]) == ({"tool": "Bash"}, "on_pre_tool_use")
    assert 0 < int(properties.expiration) <= 5000
    assert abs(properties.headers["hookfleet-deadline"] / 1000 - time.time() - 5) < 5
    reply = pika.BasicProperties(correlation_id=properties.correlation_id)
    fleet.channel.basic_publish("", properties.reply_to, b'{"verdict": "deny", "reason": "no"}', reply)
    asker.join()
    assert answers == [b'{"verdict": "deny", "reason": "no"}'] and link.waiting
    assert len(fleet.take("events", 2500)) == 2500
    link.close()
