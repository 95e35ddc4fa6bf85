"""The hooks of a daemon's settings, what their targets do, and those targets.

Everything is computed from the name of an event, so that settings and play agree without a file between them.
"""

import json
import shlex
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from model import CHOICES, EVENTS, OUTPUT_BYTES_MAX, Reply

KINDS = ("command", "http")
BEHAVIOURS = ("approve", "block", "retry", "exhausted", "timeout", "killed")
# Kheish and the import refuse loopback in addresses. Whoever starts the worker replaces this host.
HOST = "hooks.daemon.example"
SHORT_MS, LONG_MS = 1_500, 30_000
# How long a target of a hook that times out goes on, if nobody ends it.
HANG_S = 3
SIGNALS = (9, 15, 10)
# Part of every address. No dead letter may have it.
HIDDEN = "hidden-part-of-the-address"


@dataclass(frozen=True)
class Trial:
    """One invocation, and the hook that is there for it alone."""

    event: str
    kind: str
    behaviour: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.behaviour}-{self.event}"

    @property
    def number(self) -> int:
        return EVENTS.index(self.event)

    @property
    def subject(self) -> str:
        return self.name + (" ü*?[x]" if self.number % 4 == 1 else "")

    @property
    def matcher(self) -> str:
        """Three ways to match this trial's subject and no other of the event."""
        return (self.subject, f"{self.kind}-{self.behaviour}-*", f"?{self.subject[1:]}")[self.number % 3]

    @property
    def policy(self) -> dict[str, Any]:
        turn = self.number + BEHAVIOURS.index(self.behaviour) + KINDS.index(self.kind)
        retries = 1 + self.number % 3 if self.behaviour == "retry" else turn // 2 % 4
        return {"mode": ("open", "closed")[turn % 2], "max_retries": retries}

    @property
    def replies(self) -> list[Reply]:
        return REPLIES[self.kind, self.behaviour](self)


def trials() -> list[Trial]:
    return [Trial(event, kind, behaviour) for event in EVENTS for kind in KINDS for behaviour in BEHAVIOURS]


# --- What targets do ---


def outcome_text(number: int, outcome: dict[str, Any]) -> str:
    """An outcome as targets write it: bare, in a fence, within text, and over several lines."""
    text = json.dumps(outcome, ensure_ascii=False)
    return (
        text,
        f"```json\n{text}\n```",
        f"I have thought about it. {text} That is all }}.",
        json.dumps({**outcome, "contract_version": 1, "unknown": {}, "matched_hooks": ["not me"]}, indent=2) + "\n",
    )[number % 4]


def approval(trial: Trial) -> dict[str, Any]:
    """Most of the fields, of which each event leaves some out."""
    fields: dict[str, Any] = {
        "decision": "approve",
        "permission": CHOICES["permission"][trial.number % 2],
        "updated_input": {"from": trial.kind, "nested": {"none": None, "list": [1, "é"]}},
        "updated_output": [trial.behaviour, None],
        "updated_permissions": [{"scope": "session", "tool_name_pattern": f"{trial.kind}*", "behavior": "allow"}],
        "additional_contexts": [f"of {trial.name}", "", "naïve 🦀"],
        "initial_user_message": f"begin with {trial.event}",
        "watch_paths": ["/w/z", "/w/a", "/w/ü"],
        "retry": True,
        "stop_reason": f"{trial.kind} says so, api_key=sk-0123456789 and more",
    }
    left_out = trial.number % 5
    return {name: value for at, (name, value) in enumerate(fields.items()) if (at + left_out) % 5 or at == 0}


def last_outcome(number: int) -> dict[str, Any]:
    """What the hook says that stands last in each event."""
    fields: dict[str, Any] = {
        "additional_contexts": ["of the last hook"],
        "decision": ("approve", None, "block")[number % 3],
        "permission": ("ask", "deny", None, "allow")[number % 4],
        "updated_input": {"from": "the last hook"} if number % 2 else None,
        "updated_output": "the last hook" if number % 3 else None,
        "updated_permissions": [
            {"scope": "user", "tool_name_pattern": "*", "behavior": "deny", "reason": "as a rule"},
            {"scope": "project", "tool_name_pattern": "read_*", "behavior": "ask"},
        ],
        "initial_user_message": "from the last hook",
        "watch_paths": ["/w/last", "/w/a"],
        "retry": number % 2 == 0,
        "stop_reason": "the last hook says so",
        "continue_execution": number % 5 != 0,
    }
    return {name: value for name, value in fields.items() if value is not None}


def good(trial: Trial, outcome: dict[str, Any]) -> Reply:
    text = outcome_text(trial.number, outcome)
    if trial.kind == "command":
        return Reply(exit=0, stdout=text, stderr="what is on stderr does not count")
    return Reply(status=(200, 201, 202)[trial.number % 3], body=text)


def approves(trial: Trial) -> list[Reply]:
    if trial.number % 7 == 6:  # nothing to say
        return [Reply(exit=0, stdout=" \n") if trial.kind == "command" else Reply(status=204)]
    return [good(trial, approval(trial))]


def blocks(trial: Trial) -> list[Reply]:
    if trial.kind == "command" and trial.number % 3 == 0:
        return [Reply(exit=2, stdout=("", "\n ")[trial.number % 2], stderr=("not here: ß\n", "")[trial.number % 2])]
    if trial.event == "permission_request":
        return [good(trial, {"permission": "deny", "stop_reason": "denied"})]
    outcomes: tuple[dict[str, Any], ...] = (
        {"decision": "block", "stop_reason": "no, says é", "updated_input": {"x": None}},
        {"continue_execution": False, "additional_contexts": ["halted"]},
        {"decision": "block", "continue_execution": False, "stop_reason": "password=1234 was in it", "permission": "deny"},
    )
    return [good(trial, outcomes[trial.number // 3 % 3])]


def recovers(trial: Trial) -> list[Reply]:
    fails = trial.policy["max_retries"] if trial.number % 4 else 1
    if trial.kind == "command":
        bad = (Reply(exit=1, stderr="not yet"), Reply(exit=2, stdout="{}"), Reply(exit=7, stdout='{"decision": "block"}'))
    else:
        hint = 1 if trial.number % 8 == 1 else None
        bad = (Reply(status=503), Reply(status=429, retry_after_s=hint, body="slow down"), Reply(status=408))
    return [bad[(trial.number + at) % 3] for at in range(fails)] + [good(trial, approval(trial))]


def command_exhausted(trial: Trial) -> list[Reply]:
    return [
        (
            Reply(exit=3, stderr="broken with api_key=sk-0123456789\n"),
            Reply(exit=2, stdout='{"decision": "block"}', stderr="neither"),
            Reply(exit=0, stdout="session-started"),
            Reply(exit=0, stdout='{"contract_version": 2, "decision": "block"}'),
            Reply(exit=127),
            Reply(exit=0, stdout="x" * (OUTPUT_BYTES_MAX + 1)),
            Reply(exit=0, stdout='{"decision": "deny"}'),
        )[trial.number % 7]
    ]


def http_exhausted(trial: Trial) -> list[Reply]:
    return [
        (
            Reply(status=503, body='{"decision": "approve"}'),
            Reply(status=404, body="no such page"),
            Reply(status=302, body="elsewhere"),
            Reply(status=200, body="ok"),
            Reply(status=429, body="{}"),
            Reply(status=200, body=" " * (OUTPUT_BYTES_MAX + 1)),
            Reply(status=200, body='{"contract_version": "1"}'),
            Reply(status=500),
            Reply(status=425),
            Reply(status=200, body="\udcff{}", how="not UTF-8"),
        )[trial.number % 10]
    ]


def hangs(trial: Trial) -> list[Reply]:
    if trial.kind == "command":
        return [Reply(timeout=True, how=("sleep", "stubborn", "grandchild")[trial.number % 3])]
    if trial.number % 3 == 2:  # the pause that is asked for is longer than the hook may take
        return [Reply(status=429, retry_after_s=20)]
    return [Reply(timeout=True, how=("silent", "stalled")[trial.number % 3])]


def breaks(trial: Trial) -> list[Reply]:
    if trial.kind == "command":
        return [Reply(killed=SIGNALS[trial.number % 3])]
    return [Reply(cut=True, how=("at once", "within")[trial.number % 2])]


REPLIES = {(kind, "approve"): approves for kind in KINDS} | {(kind, "block"): blocks for kind in KINDS}
REPLIES |= {(kind, "retry"): recovers for kind in KINDS} | {(kind, "timeout"): hangs for kind in KINDS}
REPLIES |= {(kind, "killed"): breaks for kind in KINDS}
REPLIES |= {("command", "exhausted"): command_exhausted, ("http", "exhausted"): http_exhausted}


# --- Command targets ---


def received(folder: Path) -> Path:
    """Has a folder for each command hook, with a file for each attempt: what the command got on stdin."""
    return folder / "received"


def alive(folder: Path) -> Path:
    """Has a file for each command that went on after its time was over."""
    return folder / "alive"


def ending(reply: Reply, late: str) -> str:
    if reply.timeout:
        sleep = f"sleep {HANG_S}; : > {late}"
        return {"sleep": sleep, "stubborn": f"trap '' TERM; {sleep}", "grandchild": f"({sleep}) & exit 0"}[reply.how]
    if reply.killed is not None:
        return f"kill -{reply.killed} $$; sleep {HANG_S}"
    if len(reply.stdout) > OUTPUT_BYTES_MAX:
        said = f"head -c {len(reply.stdout)} /dev/zero | tr '\\0' x"
    else:
        said = f"printf %s {shlex.quote(reply.stdout)}" if reply.stdout else ":"
    complained = f"printf %s {shlex.quote(reply.stderr)} >&2; " if reply.stderr else ""
    return f"{complained}{said}; exit {reply.exit}"


def command(folder: Path, name: str, replies: list[Reply]) -> str:
    """A line for bash. An attempt knows its number by the files of the attempts before it."""
    place, late = shlex.quote(str(received(folder) / name)), shlex.quote(str(alive(folder) / name))
    keep = f'D={place}; cat > "$D/.$$" && mv "$D/.$$" "$D/$(date +%s%N).$$"'
    if len(replies) == 1:
        return f"{keep}; {ending(replies[0], late)}"
    cases = [f"{at}) {ending(reply, late)};;" for at, reply in enumerate(replies[:-1], 1)]
    return f'{keep}; set -- "$D"/*; case $# in {" ".join(cases)} *) {ending(replies[-1], late)};; esac'


# --- Settings ---


def definition(folder: Path, trial: Trial) -> dict[str, Any]:
    short = trial.behaviour == "timeout"
    executor: dict[str, Any] = {"type": trial.kind, "timeout_ms": SHORT_MS if short else LONG_MS}
    if trial.kind == "command":
        executor["command"] = command(folder, trial.name, trial.replies)
    else:
        executor["url"] = f"http://{HOST}/{trial.name}?part={HIDDEN}"
    return {"name": trial.name, "matcher": trial.matcher, "failure_policy": trial.policy, "executor": executor}


def last_name(event: str) -> str:
    return f"last-{event}"


def last_replies(event: str) -> list[Reply]:
    return [Reply(exit=0, stdout=json.dumps(last_outcome(EVENTS.index(event)), ensure_ascii=False))]


def last_definition(folder: Path, event: str) -> dict[str, Any]:
    """Matches every subject, in each of the three ways to say so."""
    text = command(folder, last_name(event), last_replies(event))
    made = {"name": last_name(event), "executor": {"type": "command", "command": text, "timeout_ms": LONG_MS}}
    matcher = [{"matcher": "*"}, {"matcher": None}, {}][EVENTS.index(event) % 3]
    return {**made, **matcher}


def settings(folder: Path) -> dict[str, Any]:
    hooks: dict[str, list[dict[str, Any]]] = {event: [] for event in EVENTS}
    for trial in trials():
        hooks[trial.event].append(definition(folder, trial))
    for event in EVENTS:
        hooks[event].append(last_definition(folder, event))
    return {"schema_version": 1, "hooks": hooks}


def clear(folder: Path) -> None:
    """Makes the folders of the commands, without what an earlier play has left there."""
    names = [trial.name for trial in trials() if trial.kind == "command"] + [last_name(event) for event in EVENTS]
    for place in [received(folder) / name for name in names] + [alive(folder)]:
        place.mkdir(parents=True, exist_ok=True)
        for file in place.iterdir():
            file.unlink()


# --- HTTP targets ---


@dataclass(frozen=True)
class Request:
    """What a target got at one attempt. A command has no headers."""

    hook: str
    body: bytes
    at_s: float
    headers: dict[str, str] = field(default_factory=dict)


def of_commands(folder: Path) -> list[Request]:
    files = sorted(received(folder).glob("*/[0-9]*"))
    return [Request(file.parent.name, file.read_bytes(), int(file.name.split(".")[0]) / 1e9) for file in files]


class Targets:
    """Serves the targets of http hooks until the process ends."""

    def __init__(self, port: int, replies: dict[str, list[Reply]]) -> None:
        self.replies = replies
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        targets = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_POST(self) -> None:
                targets.take(self)

            def do_GET(self) -> None:
                targets.take(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """Keeps a request under the name of its hook, or under its method and path if it is none that a hook sends."""
        body = handler.rfile.read(int(handler.headers.get("content-length", "0")))
        path, _, query = handler.path.partition("?")
        fine = handler.command == "POST" and query == f"part={HIDDEN}" and path[1:] in self.replies
        hook = path[1:] if fine else f"{handler.command} {handler.path}"
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self.lock:
            self.requests.append(Request(hook, body, time.time(), headers))
            before = sum(request.hook == hook for request in self.requests)
        replies = self.replies.get(hook, [Reply(status=404)])
        answer(handler, replies[min(before, len(replies)) - 1])


def answer(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    if reply.how in ("silent", "at once"):
        time.sleep(HANG_S if reply.timeout else 0)
        end(handler)
        return
    body = reply.body.encode(errors="surrogateescape")
    unfinished = reply.timeout or reply.cut
    handler.send_response(reply.status or 200)
    # Each request has a connection of its own, as Kheish's requests have. On one that was used before, a client may take its
    # end for one that came before the request, and send that again outside of its attempts.
    handler.send_header("Connection", "close")
    if reply.retry_after_s is not None:
        handler.send_header("Retry-After", str(reply.retry_after_s))
    if reply.status == 302:
        handler.send_header("Location", "/elsewhere")
    if reply.status != 204:
        handler.send_header("Content-Length", str(len(body) + 100 * unfinished))
    handler.end_headers()
    handler.wfile.write(b'{"decision": ' if unfinished else body)
    if unfinished:
        time.sleep(HANG_S if reply.timeout else 0)
        end(handler)


def end(handler: BaseHTTPRequestHandler) -> None:
    """Closes the connection in the middle of whatever was to come."""
    handler.close_connection = True
    try:
        handler.connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
