"""Faults for the imported hooks: each is what an implementation could get wrong. A play has to find all of them."""

import re
from collections.abc import Callable

FIRST_LINE = "  - id: "


def one_try_fewer(hook: str) -> str:
    return re.sub(r"attempts: (\d+)", lambda found: f"attempts: {max(1, int(found[1]) - 1)}", hook)


def closed_is_open(hook: str) -> str:
    return hook.replace("    on_failure: closed\n", "")


def matcher_ignored(hook: str) -> str:
    return re.sub(r"    matcher: .*\n", "", hook) if "      http: " in hook else hook


def another_name(hook: str) -> str:
    """A name may stand in quotes."""
    return re.sub(r'(    name: "?)', r"\g<1>x-", hook)


def reversed_within_events(hooks: list[str]) -> list[str]:
    by_event: dict[str, list[str]] = {}
    for hook in hooks:
        event = re.search(r"    on: (.*)\n", hook)
        by_event.setdefault(event[1] if event else "", []).append(hook)
    return [hook for hooks in by_event.values() for hook in reversed(hooks)]


EACH: dict[int, Callable[[str], str]] = {1: one_try_fewer, 2: closed_is_open, 4: matcher_ignored, 5: another_name}


def plant(number: int, catalog: str) -> str:
    """The catalog with this fault. Its comments are left out, and so are lines between hooks."""
    lines = [line for line in catalog.splitlines(keepends=True) if line.strip() and not line.strip().startswith("#")]
    head, *hooks = "".join(lines).split(FIRST_LINE)
    hooks = reversed_within_events(hooks) if number == 3 else [EACH[number](hook) for hook in hooks]
    planted = FIRST_LINE.join([head, *hooks])
    if planted == "".join(lines):
        raise ValueError(f"fault {number} changes nothing in this catalog")
    return planted
