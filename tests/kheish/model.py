"""What Kheish does with its hooks, as a pure model: nothing here opens a file or a connection.

The input is Kheish's hook definitions, an invocation, and what each target does at each attempt. The output is the outcome
of the event, the hooks that ran with their attempts, and the dead letters.
"""

import fnmatch
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

EVENTS = """
    pre_tool_use post_tool_use post_tool_use_failure permission_request permission_denied setup session_start session_end stop
    stop_failure user_prompt_submit pre_compact post_compact subagent_start subagent_stop teammate_idle task_created
    task_completed elicitation elicitation_result config_change worktree_create worktree_remove file_changed
    instructions_loaded notification cwd_changed
""".split()
# Hooks of these events run one after the other, up to the first that blocks. Hooks of the others run at the same time.
IN_TURN = """
    pre_tool_use post_tool_use post_tool_use_failure pre_compact permission_request setup session_start stop
    user_prompt_submit subagent_start config_change worktree_create instructions_loaded
""".split()
# The daemon does nothing with the outcome of these events.
IGNORED = """
    stop_failure notification task_created task_completed session_end elicitation elicitation_result worktree_remove
""".split()

CONTRACT_VERSION = 1
RETRIES_MAX = 3
OUTPUT_BYTES_MAX = 128 * 1024
RETRY_AFTER_MAX_MS = 30_000
TIMEOUT_MAX_MS = 30_000
TIMEOUTS_MS = {"command": 5_000, "http": 5_000, "prompt": 15_000, "agent": 30_000, "callback": 15_000}
OPTIONS = ("subject", "session_id", "agent_id", "run_id", "payload")
SECRET_WORDS = ("token", "secret", "api_key", "apikey", "password", "authorization")
DEFAULTS: dict[str, Any] = {
    "continue_execution": True,
    "stop_reason": None,
    "decision": None,
    "permission": None,
    "updated_input": None,
    "updated_output": None,
    "updated_permissions": [],
    "additional_contexts": [],
    "initial_user_message": None,
    "watch_paths": [],
    "retry": False,
    "matched_hooks": [],
}
CHOICES = {
    "decision": ("approve", "block"),
    "permission": ("allow", "ask", "deny"),
    "scope": ("user", "project", "session"),
    "behavior": ("allow", "deny", "ask"),
}


@dataclass(frozen=True)
class Reply:
    """What a target does at one attempt. The field that is set says which kind of end it is."""

    exit: int | None = None
    stdout: str = ""
    stderr: str = ""
    status: int | None = None
    body: str = ""
    retry_after_s: int | None = None
    # The target takes longer than the hook may.
    timeout: bool = False
    # The command ends by a signal of this number.
    killed: int | None = None
    # The connection is closed in the middle of the answer.
    cut: bool = False
    # The target could not be called at all, or a callback has failed.
    error: str | None = None
    # A detail for the target that plays this reply. The model does not read it.
    how: str = ""


@dataclass(frozen=True)
class Failure:
    """Why an attempt gave no outcome. A fatal one is not tried again."""

    message: str
    fatal: bool
    # A part of the message that every implementation has.
    keyword: str = ""
    wait_ms: int | None = None


@dataclass(frozen=True)
class Run:
    """A hook that ran, with the least pauses between its attempts."""

    hook: str
    attempts: int
    waits_ms: list[int]
    key: str


@dataclass
class Expected:
    outcome: dict[str, Any]
    runs: list[Run] = field(default_factory=list)
    letters: list[dict[str, Any]] = field(default_factory=list)


class Malformed(Exception):
    """An answer that is no outcome."""


# --- Keys and the wire ---


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def digest(value: Any) -> str:
    """UTF-8 sorts as code points do, which is how Python sorts keys."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def bare(invocation: dict[str, Any]) -> dict[str, Any]:
    """The invocation without absent options and without what the wire adds. What is inside the payload stays."""
    given = {name: invocation[name] for name in OPTIONS if invocation.get(name) is not None}
    return {"event": invocation["event"], **given}


def invocation_key(invocation: dict[str, Any]) -> str:
    return "hook-invocation-" + digest(bare(invocation))[:32]


def execution_key(hook: str, invocation: dict[str, Any]) -> str:
    named = {"contract_version": CONTRACT_VERSION, "hook_name": hook, "invocation": bare(invocation)}
    return "hook-execution-" + digest(named)[:32]


def wire(invocation: dict[str, Any]) -> dict[str, Any]:
    return {**bare(invocation), "contract_version": CONTRACT_VERSION, "invocation_key": invocation_key(invocation)}


def matches(matcher: str | None, subject: str | None) -> bool:
    """`*` and `?` are the only special characters, and `?` is one byte."""
    pattern, found = ((text or "").encode().decode("latin-1") for text in (matcher, subject))
    return not pattern or fnmatch.fnmatchcase(found, pattern.replace("[", "[[]"))


# --- Outcomes ---


def balanced(text: str, brackets: str) -> str | None:
    """From the first of these brackets to the one that closes it. Those within texts do not count."""
    begin = text.find(brackets[0])
    depth, quoted, escaped = 0, False, False
    for at in range(begin, len(text) if begin >= 0 else begin):
        letter = text[at]
        if quoted:
            quoted = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            quoted = True
        elif letter in brackets:
            depth += 1 if letter == brackets[0] else -1
            if not depth:
                return text[begin : at + 1]
    return None


def json_within(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    fence = re.fullmatch(r"```(?:json)?(.*)```", text, re.DOTALL)
    inner = fence[1] if fence else text
    try:
        return json.loads(balanced(inner, "{}") or balanced(inner, "[]") or "")
    except ValueError:
        raise Malformed("no outcome in JSON") from None


def check_version(outcome: dict[str, Any]) -> None:
    version = outcome.get("contract_version", CONTRACT_VERSION)
    if type(version) is not int or version < 0:
        raise Malformed("malformed hook outcome contract_version")
    if version > CONTRACT_VERSION:
        raise Malformed(f"unsupported hook outcome contract_version {version}")


def check_field(name: str, value: Any) -> None:
    """A field has the type of its default. Those without a default are texts, but for the two that may be anything."""
    if name in ("updated_input", "updated_output") or (value is None and DEFAULTS[name] is None):
        return
    fine = type(value) is (str if DEFAULTS[name] is None else type(DEFAULTS[name]))
    if fine and name in CHOICES:
        fine = value in CHOICES[name]
    if fine and name in ("additional_contexts", "watch_paths"):
        fine = all(type(item) is str for item in value)
    if fine and name == "updated_permissions":
        fine = all(is_rule(item) for item in value)
    if not fine:
        raise Malformed(f"{name} is wrong")


def is_rule(rule: Any) -> bool:
    return (
        type(rule) is dict
        and rule.get("scope") in CHOICES["scope"]
        and rule.get("behavior") in CHOICES["behavior"]
        and type(rule.get("tool_name_pattern")) is str
        and type(rule.get("reason", "")) in (str, type(None))
    )


def redact(text: str) -> str:
    """Words such as `api_key=value` and `api_key:value` lose the value."""

    def word(found: re.Match[str]) -> str:
        key, separator, value = re.fullmatch(r"([^=:]*)(.?)(.*)", found[0]).groups()
        named = key.lower()
        secret = value and (named == "auth" or any(part in named for part in SECRET_WORDS))
        return f"{key}{separator}[REDACTED]" if secret else found[0]

    return re.sub(r"\S+", word, text)


def read(text: str) -> dict[str, Any]:
    """The outcome that a target has written."""
    outcome = dict(DEFAULTS)
    if not text.strip():
        return outcome
    given = json_within(text.strip())
    if type(given) is not dict:
        raise Malformed("an outcome is an object")
    check_version(given)
    for name in DEFAULTS.keys() & given.keys() - {"matched_hooks"}:
        check_field(name, given[name])
        outcome[name] = given[name]
    if outcome["stop_reason"] is not None:
        outcome["stop_reason"] = redact(outcome["stop_reason"])[:2048]
    return outcome


def blocked(reason: str) -> dict[str, Any]:
    return {**DEFAULTS, "continue_execution": False, "decision": "block", "stop_reason": redact(reason)}


# --- Attempts ---


def attempt(reply: Reply, timeout_ms: int) -> dict[str, Any] | Failure:
    """What one attempt gives: an outcome, or why there is none."""
    if reply.timeout:
        return Failure(f"hook execution timed out after {timeout_ms}ms", False, "timed out")
    if reply.error is not None:
        return Failure(reply.error, False, reply.error)
    if reply.cut:
        return Failure("the connection was cut", False)
    if reply.killed is not None:
        return Failure(f"hook command ended by signal {reply.killed}", False)
    text = reply.stdout if reply.status is None else reply.body
    ended = after_status(reply) if reply.status is not None else after_exit(reply)
    if ended is not None:
        return ended
    if len(text.encode(errors="surrogateescape")) > OUTPUT_BYTES_MAX or (reply.status and not is_utf8(text)):
        return Failure("too much output, or no UTF-8", False)
    try:
        return read(text)
    except Malformed as why:
        return Failure(str(why), True, "contract_version" if "contract_version" in str(why) else "")


def is_utf8(text: str) -> bool:
    """A byte that is not UTF-8 is a surrogate in the text of a reply."""
    return not any("\udc80" <= letter <= "\udcff" for letter in text)


def after_exit(reply: Reply) -> dict[str, Any] | Failure | None:
    said = f": {reply.stderr.strip()}" if reply.stderr.strip() else ""
    if reply.exit == 2 and not reply.stdout.strip():
        return blocked(f"hook command blocked execution{said}")
    if reply.exit:
        message = redact(f"hook command exited with status {reply.exit}{said}")
        return Failure(message, False, "hook command exited with status")
    return None


def after_status(reply: Reply) -> Failure | None:
    status = reply.status or 0
    if 300 <= status < 400:
        return Failure("hook HTTP redirects are not allowed", True, "hook HTTP redirects are not allowed")
    if status in (408, 429) or status >= 500:
        wait_ms = None if reply.retry_after_s is None else min(reply.retry_after_s * 1000, RETRY_AFTER_MAX_MS)
        return Failure(f"HTTP {status}", False, str(status), wait_ms)
    return Failure(f"HTTP {status}", True, str(status)) if status >= 400 else None


def policy(definition: dict[str, Any]) -> tuple[str, int, int]:
    """The failure mode, how many attempts there may be, and how long all of them may take."""
    given = definition.get("failure_policy", {})
    executor = definition["executor"]
    timeout_ms = min(executor.get("timeout_ms", TIMEOUTS_MS[executor["type"]]), TIMEOUT_MAX_MS)
    return given.get("mode", "open"), 1 + min(given.get("max_retries", 0), RETRIES_MAX), timeout_ms


def all_attempts(definition: dict[str, Any], replies: list[Reply]) -> tuple[dict[str, Any] | Failure, int, list[int]]:
    """The last reply is that of all further attempts. Attempts that end by themselves cost no time here."""
    _, most, left_ms = policy(definition)
    timeout_ms, waits = left_ms, []
    for number in range(1, most + 1):
        reply = replies[min(number, len(replies)) - 1]
        result = attempt(reply, timeout_ms)
        if not isinstance(result, Failure) or result.fatal or reply.timeout or number == most:
            return result, number, waits
        wait_ms = 50 * 2 ** min(number - 1, 2) if result.wait_ms is None else result.wait_ms
        if wait_ms >= left_ms:
            return result, number, waits
        left_ms -= wait_ms
        waits.append(wait_ms)
    raise AssertionError("there is at least one attempt")


# --- Events ---


def merge(into: dict[str, Any], hook: str, outcome: dict[str, Any]) -> None:
    into["matched_hooks"] = [*into["matched_hooks"], hook]
    into["continue_execution"] = into["continue_execution"] and outcome["continue_execution"]
    into["retry"] = into["retry"] or outcome["retry"]
    for name in ("stop_reason", "initial_user_message"):
        into[name] = outcome[name] if into[name] is None else into[name]
    for name in ("updated_input", "updated_output"):
        into[name] = into[name] if outcome[name] is None else outcome[name]
    for name in ("updated_permissions", "additional_contexts"):
        into[name] = into[name] + outcome[name]
    into["watch_paths"] = sorted({*into["watch_paths"], *outcome["watch_paths"]})
    for name in ("decision", "permission"):
        given = [value for value in (into[name], outcome[name]) if value is not None]
        into[name] = max(given, key=CHOICES[name].index, default=None)


def stops(event: str, outcome: dict[str, Any]) -> bool:
    denied = event == "permission_request" and outcome["permission"] == "deny"
    return event in IN_TURN and (outcome["decision"] == "block" or not outcome["continue_execution"] or denied)


def target(definition: dict[str, Any]) -> str:
    """Where a hook goes, as a dead letter names it: of an address only the origin."""
    kind, executor = definition["executor"]["type"], definition["executor"]
    name = " ".join(definition["name"].split())
    name = name if len(name) <= 160 else name[:160] + "..."
    if kind == "http":
        url = urlsplit(executor["url"])
        return f"http:{name}:{url.scheme}://{url.netloc.rpartition('@')[2]}"
    return f"callback:{name}:{executor['name']}" if kind == "callback" else f"{kind}:{name}"


def letter(definition: dict[str, Any], invocation: dict[str, Any], attempts: int, failure: Failure) -> dict[str, Any]:
    given = bare(invocation)
    named = {name: given[name] for name in ("event", "subject", "session_id", "run_id") if name in given}
    return {
        "hook_name": definition["name"],
        **named,
        "target": target(definition),
        "attempt_count": attempts,
        "failure_mode": policy(definition)[0],
        "contract_version": CONTRACT_VERSION,
        "invocation_digest": digest(given),
        # Not a field of the record: the error has to have it.
        "keyword": failure.keyword,
    }


def expect(definitions: list[dict[str, Any]], invocation: dict[str, Any], replies: dict[str, list[Reply]]) -> Expected:
    """What becomes of an invocation: `definitions` are those of its event, in the order of the settings."""
    expected = Expected(dict(DEFAULTS))
    for definition in definitions:
        if not matches(definition.get("matcher"), invocation.get("subject")):
            continue
        name = definition["name"]
        result, attempts, waits = all_attempts(definition, replies[name])
        expected.runs.append(Run(name, attempts, waits, execution_key(name, invocation)))
        if isinstance(result, Failure):
            expected.letters.append(letter(definition, invocation, attempts, result))
            if policy(definition)[0] == "open":
                continue
            result = blocked(f"hook `{name}` failed after {attempts} attempt(s): {result.message}")
        merge(expected.outcome, name, result)
        if stops(invocation["event"], expected.outcome):
            break
    return expected
