"""Compares the model with vectors: keys, matchers, what is read of an answer, and runs of whole events."""

from collections.abc import Iterator
from typing import Any

import model
from model import Failure, Reply

ENOUGH_MS = 5_000
OF_A_REPLY = Reply.__dataclass_fields__.keys()


def different(what: str, expected: Any, found: Any) -> Iterator[str]:
    if expected != found:
        yield f"{what}: expected {expected!r}, found {found!r}"


def named(vector: dict[str, Any]) -> str:
    return vector.get("name") or repr(vector)


def key(vector: dict[str, Any]) -> Iterator[str]:
    invocation = vector["invocation"]
    yield from different(named(vector), vector["invocation_key"], model.invocation_key(invocation))
    if "hook" in vector:
        yield from different(named(vector), vector["execution_key"], model.execution_key(vector["hook"], invocation))


def matcher(vector: dict[str, Any]) -> Iterator[str]:
    yield from different(named(vector), vector["matches"], model.matches(vector["matcher"], vector["subject"]))


def digests(vector: dict[str, Any]) -> Iterator[str]:
    found = len({model.digest(value) for value in vector["values"]})
    yield from different(named(vector), 1 if vector["equal"] else len(vector["values"]), found)


def target(vector: dict[str, Any]) -> Iterator[str]:
    yield from different(named(vector), vector["is"], model.target(vector["hook"]))


def reading(vector: dict[str, Any]) -> Iterator[str]:
    """Of what fails only this is compared: whether it is tried again, and after which pause."""
    found = model.attempt(Reply(**{name: vector[name] for name in OF_A_REPLY & vector.keys()}), ENOUGH_MS)
    fails = vector.get("fails") or vector.get("fails_with")
    if isinstance(found, Failure):
        yield from different(named(vector), fails and fails.split()[0].strip(":"), "never" if found.fatal else "later")
        yield from different(named(vector), vector.get("wait_ms", found.wait_ms), found.wait_ms)
        return
    yield from different(named(vector), fails, None)
    for name, value in vector.get("is", {}).items():
        yield from different(f"{named(vector)}: {name}", value, found[name])


def run(vector: dict[str, Any]) -> Iterator[str]:
    invocation = {"event": vector["event"], "session_id": "s", "run_id": "r"}
    replies = {hook: [Reply(**reply) for reply in given] for hook, given in vector["replies"].items()}
    found = model.expect(vector["hooks"], invocation, replies)
    yield from different(named(vector), vector["attempts"], {run.hook: run.attempts for run in found.runs})
    for name, value in vector["is"].items():
        yield from different(f"{named(vector)}: {name}", value, found.outcome[name])
    yield from different(f"{named(vector)}: dead letters", len(vector["letters"]), len(found.letters))
    for wanted, letter in zip(vector["letters"], found.letters):
        yield from different(named(vector), wanted, {name: letter.get(name) for name in wanted})


KINDS = {"keys": key, "matchers": matcher, "digests": digests, "targets": target, "readings": reading, "runs": run}


def check(vectors: dict[str, list[dict[str, Any]]]) -> tuple[int, list[str]]:
    """How many vectors there are, and a line for each mismatch."""
    count = sum(len(of_a_kind) for of_a_kind in vectors.values())
    return count, [line for kind, given in vectors.items() for vector in given for line in KINDS[kind](vector)]
