"""A daemon as Kheish is one: it writes hooks, raises their events, and compares what comes of them with the model.

daemon.py settings --dir DIR --port PORT: writes DIR/hooks.json. Targets of http hooks will listen on PORT of 127.0.0.1.
daemon.py play --dir DIR --port PORT --url URL: raises all events; the worker at URL runs the imported hooks of DIR.
    It ends with 0 if all is as in the model, 1 if not, 2 if it could not be done.
daemon.py plant N --catalog YAML: prints the imported hooks with fault N in them, of 1 to 5.
daemon.py vectors FILE: compares the model with a file of vectors, and with the vectors beside this program.
"""

import argparse
import collections
import concurrent.futures
import http.client
import json
import re
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import faults
import model
import targets
import vectors
from model import Expected
from targets import Request, Trial

HERE = Path(__file__).parent
SHOWN_MAX = 40
PATIENCE_S = 30
# Where something is wrong already, what is missing may never come.
PATIENCE_IF_WRONG_S = 3
# Whatever comes twice comes within this time, and so does what a command does that should have been ended.
SETTLE_S = targets.HANG_S + 0.5
ANSWER_S = 60
REPLY_TO = "amq.rabbitmq.reply-to"  # no queue: answers come straight to the channel
CLOCK_MS = 5
HEADERS = set("host content-type content-length idempotency-key accept accept-encoding user-agent connection".split())
LETTERS = "/v1/runtime/hooks/dead-letter"


class Mismatches:
    """Counts what is not as it should be, and prints the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self.lock = threading.Lock()

    def add(self, line: str) -> None:
        with self.lock:
            self.count += 1
            if self.count <= SHOWN_MAX:
                print(line if len(line) <= 600 else line[:600] + " …", flush=True)

    def equal(self, what: str, expected: Any, found: Any) -> None:
        if type(expected) is not type(found) or expected != found:
            self.add(f"{what}: expected {shown(expected)}, found {shown(found)}")


def shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- Ways to the fleet ---


class Http:
    """Asks as an http hook of Kheish does. Such a hook has no headers of its own, so that a token stands in the path."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url, self.token = url.rstrip("/"), token
        # A proxy of the environment is not for loopback.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, invocation: dict[str, Any]) -> dict[str, Any]:
        path = "/v1/hooks/kheish" + (f"/{self.token}" if self.token else "")
        headers = {"content-type": "application/json", "idempotency-key": model.execution_key("fleet", invocation)}
        return self.call(path, headers, model.compact(model.wire(invocation)))

    def letters(self) -> list[dict[str, Any]]:
        return self.call(LETTERS, {"authorization": f"Bearer {self.token}"} if self.token else {})

    def call(self, path: str, headers: dict[str, str], body: bytes | None = None) -> Any:
        try:
            with self.opener.open(urllib.request.Request(self.url + path, body, headers), timeout=ANSWER_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(f"status {error.code}: {error.read().decode(errors='replace')}") from None


class Amqp:
    """Asks by a message to the exchange of gates. Each thread has a connection of its own."""

    def __init__(self, url: str, namespace: str) -> None:
        import pika

        self.pika, self.url, self.exchange = pika, url, f"{namespace}.gates"
        self.mine = threading.local()
        try:
            self.channel()
        except pika.exceptions.AMQPError as error:
            raise ConnectionError(f"the broker does not answer: {error!r}") from None

    def channel(self) -> Any:
        if not hasattr(self.mine, "channel"):
            self.mine.answers = []
            self.mine.connection = self.pika.BlockingConnection(self.pika.URLParameters(self.url))
            self.mine.channel = self.mine.connection.channel()
            keep = self.mine.answers.append
            self.mine.channel.basic_consume(REPLY_TO, lambda *given: keep((given[2], given[3])), auto_ack=True)
        return self.mine.channel

    def ask(self, invocation: dict[str, Any]) -> dict[str, Any]:
        try:
            return self.ask_once(invocation)
        except self.pika.exceptions.AMQPError as error:
            raise ConnectionError(repr(error)) from None

    def ask_once(self, invocation: dict[str, Any]) -> dict[str, Any]:
        channel, name = self.channel(), str(uuid.uuid4())
        properties = self.pika.BasicProperties(
            content_type="application/json",
            message_id=name,
            correlation_id=name,
            reply_to=REPLY_TO,
            expiration=str(ANSWER_S * 1000),
            headers={"hook-dialect": "kheish"},
        )
        channel.basic_publish(self.exchange, "", model.compact(model.wire(invocation)), properties)
        until = time.monotonic() + ANSWER_S
        while time.monotonic() < until:
            self.mine.connection.process_data_events(time_limit=0.2)
            while self.mine.answers:
                about, body = self.mine.answers.pop(0)
                if about.correlation_id == name:
                    if about.content_type != "application/json":
                        raise ValueError(f"{about.content_type}: {body.decode(errors='replace')}")
                    return json.loads(body)
        raise ValueError(f"no answer within {ANSWER_S} s")


# --- Play ---


class Play:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.folder = arguments, Path(arguments.dir).resolve()
        text = (self.folder / "hooks.json").read_text().replace(targets.HOST, f"127.0.0.1:{arguments.port}")
        self.hooks = json.loads(text)["hooks"]
        self.payloads = json.loads((HERE / "payloads.json").read_text())
        self.without = set(arguments.without)
        self.session = uuid.uuid4().hex[:12]
        self.mismatches = Mismatches()
        self.replies = {trial.name: trial.replies for trial in targets.trials()}
        self.replies |= {targets.last_name(event): targets.last_replies(event) for event in model.EVENTS}
        self.raised: list[tuple[Trial, dict[str, Any], Expected]] = []
        self.lock = threading.Lock()

    def invocation(self, trial: Trial) -> dict[str, Any]:
        named = {"session_id": f"{self.session}-{trial.name}", "run_id": f"run-{self.session}-{trial.name}"}
        agent = {"agent_id": f"agent ä {trial.number}"} if trial.number % 2 else {}
        return {"event": trial.event, "subject": trial.subject, **named, **agent, "payload": self.payloads[trial.event]}

    def run(self) -> int:
        over_http = Http(self.arguments.url, self.arguments.token)
        over_http.letters()  # tells at once that there is a worker, and that it has these paths
        amqp = self.arguments.amqp
        self.way: Http | Amqp = Amqp(amqp, self.arguments.namespace) if amqp else over_http
        targets.clear(self.folder)
        http_hooks = {name: replies for name, replies in self.replies.items() if name.startswith("http-")}
        served = targets.Targets(self.arguments.port, http_hooks)
        self.raise_all()
        requests = self.settled(served)
        self.compare_requests(requests)
        letters = self.compare_letters(over_http)
        for file in sorted(targets.alive(self.folder).iterdir()):
            self.mismatches.add(f"{file.name}: the command went on after its time was over")
        count = self.mismatches.count
        print(f"{len(self.raised)} trials, {len(requests)} requests, {letters} dead letters, {count} mismatches")
        return min(count, 1)

    def raise_all(self) -> None:
        """Those that take long have threads of their own, so that they run beside the others."""
        workers = self.arguments.workers
        with (
            concurrent.futures.ThreadPoolExecutor(workers) as slow,
            concurrent.futures.ThreadPoolExecutor(workers) as fast,
        ):
            chosen = [it for it in targets.trials() if not {reply.how for reply in it.replies} & self.without]
            todo = [(slow if it.behaviour == "timeout" else fast).submit(self.raise_one, it) for it in chosen]
        for done in todo:
            done.result()

    def raise_one(self, trial: Trial) -> None:
        if self.mismatches.count >= SHOWN_MAX:
            return  # enough is known
        invocation = self.invocation(trial)
        expected = model.expect(self.hooks[trial.event], invocation, self.replies)
        with self.lock:
            self.raised.append((trial, invocation, expected))
        try:
            found = self.way.ask(invocation)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.mismatches.add(f"{trial.name}: no outcome: {error}")
            return
        self.compare_outcome(trial, expected, found)

    def observed(self, event: str) -> bool:
        """The worker is known to let hooks of this event observe only."""
        return self.arguments.observers and event in model.IGNORED

    def compare_outcome(self, trial: Trial, expected: Expected, found: Any) -> None:
        if type(found) is not dict or found.get("contract_version", 1) != model.CONTRACT_VERSION:
            self.mismatches.add(f"{trial.name}: no outcome: {shown(found)}")
            return
        if self.observed(trial.event):
            return
        for name, default in model.DEFAULTS.items():
            wanted, given = expected.outcome[name], found.get(name, default)
            if name == "stop_reason" and type(given) is str:
                given = self.own_words(expected, given)
            self.mismatches.equal(f"{trial.name}: {name}", wanted, given)

    def own_words(self, expected: Expected, given: str) -> str:
        """The model's reason, if this one says of the same failure the same in other words."""
        for letter in expected.letters:
            prefix = f"hook `{letter['hook_name']}` failed after {letter['attempt_count']} attempt(s): "
            wanted = expected.outcome["stop_reason"]
            if wanted and wanted.startswith(prefix) and given.startswith(prefix) and letter["keyword"] in given:
                return wanted
        return given

    def until(self) -> float:
        return time.monotonic() + (PATIENCE_IF_WRONG_S if self.mismatches.count else PATIENCE_S)

    # --- What targets got ---

    def expected_runs(self) -> dict[tuple[str, str], tuple[dict[str, Any], model.Run]]:
        raised = self.raised
        return {(run.hook, given["session_id"]): (given, run) for _, given, expected in raised for run in expected.runs}

    def settled(self, served: targets.Targets) -> list[Request]:
        """Hooks that observe run after the answer."""
        wanted = sum(run.attempts for _, run in self.expected_runs().values())
        until = self.until()
        while time.monotonic() < until:
            found = targets.of_commands(self.folder) + served.requests
            if len(found) >= wanted:
                break
            time.sleep(0.2)
        time.sleep(SETTLE_S)
        return targets.of_commands(self.folder) + served.requests

    def compare_requests(self, requests: list[Request]) -> None:
        by_run: dict[tuple[str, str], list[Request]] = collections.defaultdict(list)
        for request in requests:
            try:
                session = json.loads(request.body)["session_id"]
            except (ValueError, KeyError, TypeError):
                self.mismatches.add(f"{request.hook}: got no invocation: {request.body[:100]!r}")
                continue
            by_run[request.hook, session].append(request)
        runs = self.expected_runs()
        for name, session in by_run.keys() - runs.keys():
            self.mismatches.add(f"{name}: ran {len(by_run[name, session])} time(s) for {session}, expected not to")
        for key, (invocation, run) in runs.items():
            self.compare_run(f"{key[0]} for {key[1]}", invocation, run, by_run[key])

    def compare_run(self, what: str, invocation: dict[str, Any], run: model.Run, found: list[Request]) -> None:
        self.mismatches.equal(f"{what}: attempts", run.attempts, len(found))
        for one in found:
            given = json.loads(one.body)
            self.mismatches.equal(f"{what}: input", model.wire(invocation), given)
            if model.compact(given) != one.body:
                self.mismatches.add(f"{what}: expected compact JSON and nothing after it, found {one.body!r}")
            if one.headers:
                self.compare_headers(what, run.key, one.headers)
        for wait_ms, before, after in zip(run.waits_ms, found, found[1:]):
            paused_ms = (after.at_s - before.at_s) * 1000
            if paused_ms < wait_ms - CLOCK_MS:
                self.mismatches.add(f"{what}: expected a pause of {wait_ms} ms, found {paused_ms:.0f} ms")

    def compare_headers(self, what: str, key: str, headers: dict[str, str]) -> None:
        self.mismatches.equal(f"{what}: Idempotency-Key", key, headers.get("idempotency-key"))
        self.mismatches.equal(f"{what}: Content-Type", "application/json", headers.get("content-type"))
        self.mismatches.equal(f"{what}: other headers", [], sorted(headers.keys() - HEADERS))

    # --- Dead letters ---

    def compare_letters(self, way: Http) -> int:
        expected = {
            (letter["hook_name"], letter["session_id"]): letter for *_, made in self.raised for letter in made.letters
        }
        until = self.until()
        while True:
            found = [one for one in way.letters() if str(one.get("session_id", "")).startswith(self.session)]
            if len(found) >= len(expected) or time.monotonic() > until:
                break
            time.sleep(0.3)
        for record in found:
            wanted = expected.pop((record.get("hook_name"), record["session_id"]), None)
            if wanted is None:
                self.mismatches.add(f"dead letter that is not expected: {shown(record)}")
            else:
                self.compare_letter(wanted, record)
        for letter in expected.values():
            self.mismatches.add(f"no dead letter of {letter['hook_name']} for {letter['session_id']}")
        return len(found)

    def compare_letter(self, wanted: dict[str, Any], record: dict[str, Any]) -> None:
        what = f"dead letter of {wanted['hook_name']} for {wanted['session_id']}"
        unread = {"keyword"} | ({"failure_mode"} if self.observed(wanted["event"]) else set())
        for name in wanted.keys() - unread:
            self.mismatches.equal(f"{what}: {name}", wanted[name], record.get(name))
        digests = [str(record.get(name))[:8] for name in ("invocation_digest", "definition_digest")]
        shape = f"hook-dlq-{record.get('at_ms')}-{'-'.join(digests)}-[0-9a-f]{{16}}"
        if not re.fullmatch(shape, str(record.get("id"))):
            self.mismatches.add(f"{what}: expected an id such as {shape}, found {shown(record.get('id'))}")
        if wanted["keyword"] not in str(record.get("error")):
            self.mismatches.add(f"{what}: expected {wanted['keyword']!r} in the error, found {shown(record.get('error'))}")
        if targets.HIDDEN in shown(record) or "sk-0123456789" in shown(record):
            self.mismatches.add(f"{what}: it has what is secret: {shown(record)}")


# --- Commands ---


def write_settings(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.dir).resolve()
    targets.clear(folder)
    made = targets.settings(folder)
    (folder / "hooks.json").write_text(json.dumps(made, ensure_ascii=False, indent=1))
    hooks = sum(len(of_event) for of_event in made["hooks"].values())
    print(f"{hooks} hooks; after the import, {targets.HOST} is to be replaced by 127.0.0.1:{arguments.port}")
    return 0


def plant(arguments: argparse.Namespace) -> int:
    given = sys.stdin.read() if arguments.catalog == "-" else Path(arguments.catalog).read_text()
    sys.stdout.write(faults.plant(arguments.number, given))
    return 0


def check_vectors(arguments: argparse.Namespace) -> int:
    checked = [vectors.check(json.loads(Path(file).read_text())) for file in (arguments.file, HERE / "vectors.json")]
    lines = [line for _, found in checked for line in found]
    print(*lines, f"{sum(count for count, _ in checked)} vectors, {len(lines)} mismatches", sep="\n")
    return min(len(lines), 1)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    settings = commands.add_parser("settings")
    play = commands.add_parser("play")
    for command in (settings, play):
        command.add_argument("--dir", required=True)
        command.add_argument("--port", type=int, required=True, help="of the targets of http hooks")
    settings.set_defaults(run=write_settings)
    play.set_defaults(run=lambda arguments: Play(arguments).run())
    play.add_argument("--url", required=True, help="of a server of the fleet, with http.kheish_api")
    play.add_argument("--token", help="may decide and operate")
    play.add_argument("--amqp", help="raises events over this broker instead")
    play.add_argument("--namespace", default="hookfleet")
    play.add_argument("--workers", type=int, default=8)
    observers = "compare neither outcome nor failure mode of events whose outcome is ignored"
    play.add_argument("--observers", action="store_true", help=observers)
    left_out = "leaves out the trials whose target behaves like that, such as grandchild"
    play.add_argument("--without", action="append", default=[], metavar="HOW", help=left_out)
    planting = commands.add_parser("plant")
    planting.set_defaults(run=plant)
    planting.add_argument("number", type=int, choices=range(1, 6))
    planting.add_argument("--catalog", default="-", help="- is stdin")
    checking = commands.add_parser("vectors")
    checking.set_defaults(run=check_vectors)
    checking.add_argument("file")
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    try:
        return arguments.run(arguments)
    except (OSError, ValueError, KeyError, ImportError, http.client.HTTPException) as error:
        print(f"could not run: {type(error).__name__}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
