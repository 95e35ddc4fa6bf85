//! The rules that are not the same here and there, as remarks.

use std::collections::HashMap;

use url::Url;

use super::{Hook, Taken, machine};
use crate::dialect::import::Remark;
use crate::dialect::kheish::event_name::EventName;
use crate::dialect::kheish::settings::{Executor, FailureMode, Origin, Read, ToolSurface};
use crate::domain::address::{literal, refusal};
use crate::domain::escape::{name as shown, quoted};
use crate::domain::hook::Matcher;

/// Events whose hooks Kheish runs and does not listen to.
const IGNORED: [&str; 8] = [
    "stop_failure",
    "session_end",
    "notification",
    "task_created",
    "task_completed",
    "elicitation",
    "elicitation_result",
    "worktree_remove",
];
/// Events that Kheish declares, and of which no place is known that raises them.
const NEVER_SEEN: [&str; 4] = ["pre_compact", "post_compact", "subagent_stop", "teammate_idle"];
/// The subjects of events that have no others.
const SUBJECTS: [(&str, &[&str]); 5] = [
    ("setup", &["init"]),
    ("session_start", &["startup", "resume"]),
    ("stop", &["completed"]),
    ("elicitation", &["user_questions", "approvals"]),
    ("elicitation_result", &["approvals"]),
];
/// Events whose subject is the name of a tool.
const OF_TOOLS: [&str; 5] =
    ["pre_tool_use", "post_tool_use", "post_tool_use_failure", "permission_request", "permission_denied"];
/// What is part of a pattern elsewhere, and only itself in theirs. Names of tools have none of these; paths and titles may
/// have all but the first two.
const LITERAL: [&str; 9] = ["|", ".*", "[", "]", "^", "$", "(", "{", "+"];
const OPENINGS: [&str; 4] = ["{{", "{%", "{#", "${"];

/// Whether Kheish goes on the same whatever hooks of this event answer.
pub(super) fn ignores_answers(event: &EventName) -> bool {
    IGNORED.contains(&event.snake)
}

/// Whether a URL would be read as a template, or as one with references, in a hooks file.
pub(super) fn is_rewritten(url: &str) -> bool {
    OPENINGS.iter().any(|opening| url.contains(opening))
}

/// Remarks on the file as a whole.
pub(super) fn of_file(read: &Read) -> Vec<Remark> {
    let of_all = |change: String, advice: &str| Remark {
        hooks: Vec::new(),
        events: Vec::new(),
        change,
        advice: advice.to_owned(),
        is_general: true,
    };
    let mut remarks = Vec::new();
    for way in &read.unknown {
        let change = format!("Kheish passes over the field `{way}` at the top, and runs nothing for it");
        remarks.push(of_all(change, "put hooks below `hooks`, by event; drop the field if it means nothing"));
    }
    if !read.faults.is_empty() {
        let change =
            "No hook of this file runs in Kheish as it is, since parts of it are wrong; the others run here".to_owned();
        remarks.push(of_all(change, "check that they are wanted; correct the file"));
    }
    if read.settings.count() == 0 && read.faults.is_empty() {
        remarks.push(of_all("The file has no hooks, and Kheish runs none".to_owned(), Remark::NOTHING));
    }
    remarks
}

/// Hooks of one event that have the same name. Their ids differ here; there nothing does.
pub(super) fn of_names(taken: &[Taken]) -> Vec<Remark> {
    let (mut groups, mut places) = (Vec::<Vec<&Taken>>::new(), HashMap::new());
    for one in taken {
        let place = *places.entry((one.event.snake, &one.hook.name)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    let remark = |group: &Vec<&Taken>| Remark {
        hooks: group.iter().map(|taken| taken.hook.id.clone()).collect(),
        events: group.iter().take(1).map(|taken| taken.event.snake.to_owned()).collect(),
        change: "Several hooks of one event have the same name: receivers get the same Idempotency-Key from each"
            .to_owned(),
        advice: "give each a name of its own".to_owned(),
        is_general: false,
    };
    groups.iter().filter(|group| group.len() > 1).map(remark).collect()
}

/// In which order the hooks of each event run.
pub(super) fn of_orders(taken: &[Taken]) -> Vec<Remark> {
    let remark = |is_in_turn: bool, before: &str, behind: &str, advice: &str| {
        let of_kind = taken.iter().filter(move |taken| taken.event.is_in_turn == is_in_turn);
        let hooks: Vec<String> = of_kind.clone().map(|taken| taken.hook.id.clone()).collect();
        let mut events: Vec<String> = of_kind.map(|taken| taken.event.snake.to_owned()).collect();
        events.dedup();
        let change = format!("{before} {} {behind}", events.join(", "));
        (!hooks.is_empty()).then(|| Remark { hooks, events, change, advice: advice.to_owned(), is_general: true })
    };
    let in_turn = remark(
        true,
        "Order matters: hooks of",
        "are asked one after the other, up to the first that blocks",
        "keep the order of this file, and give none of them another `order`",
    );
    let behind = "run at the same time; their answers are merged in the order of this file";
    let at_once = remark(false, "Hooks of", behind, Remark::NOTHING);
    in_turn.into_iter().chain(at_once).collect()
}

/// Remarks on one hook.
pub(super) fn of_hook(hook: &Hook<'_>, origin: &Origin) -> Vec<Remark> {
    let mut said = of_event(hook);
    said.extend(hook.definition.matcher.as_deref().and_then(|matcher| of_matcher(hook.event, matcher)));
    said.extend(of_executor(hook));
    for way in &origin.unknown {
        let change = format!("Kheish passes over the field `{way}`, and so does this import");
        said.push((
            change,
            "look at what it was meant to do: `enabled: false`, say, switches nothing off there".to_owned(),
        ));
    }
    let remark = |(change, advice): Said, is_general| Remark {
        hooks: vec![hook.id.clone()],
        events: vec![hook.event.snake.to_owned()],
        change,
        advice,
        is_general,
    };
    let general = of_kind(&hook.definition.executor).into_iter().map(|said| remark(said, true));
    said.into_iter().map(|said| remark(said, false)).chain(general).collect()
}

/// What is different, and what to do about it.
type Said = (String, String);

fn said(change: impl Into<String>, advice: impl Into<String>) -> Said {
    (change.into(), advice.into())
}

fn of_event(hook: &Hook<'_>) -> Vec<Said> {
    let event = hook.event.snake;
    let mut remarks = Vec::new();
    if ignores_answers(hook.event) {
        remarks.push(said(
            format!(
                "Kheish ignores what hooks of {event} answer; here the hook observes, and its answer counts for nothing"
            ),
            Remark::NOTHING,
        ));
        if hook.definition.failure_policy.mode == FailureMode::Closed {
            remarks.push(said(
                format!("`failure_policy.mode: closed` means nothing there, since the answer to {event} is ignored; it is left out"),
                "use another event if a failure has to block",
            ));
        }
    }
    if NEVER_SEEN.contains(&event) {
        remarks.push(said(
            format!(
                "Kheish declares {event}, and no place of it is known that raises it: the hook may never run there"
            ),
            "see in Kheish whether the hook has ever run",
        ));
    }
    if event == "stop" {
        remarks.push(said("Kheish raises stop for runs that were completed only", Remark::NOTHING));
    }
    remarks
}

fn of_matcher(event: &EventName, matcher: &str) -> Option<Said> {
    if matcher.is_empty() {
        return None;
    }
    if let Some((_, subjects)) = SUBJECTS.iter().find(|(known, _)| *known == event.snake) {
        let pattern = Matcher::Wildcards(matcher.to_owned());
        if subjects.iter().any(|subject| pattern.matches(Some(subject), b"{}")) {
            return None;
        }
        let (matcher, all) = (quoted(matcher), subjects.join(" or "));
        return Some(said(
            format!(
                "The hook never runs, there or here: the subject of {} is always {all}, which {matcher} does not match",
                event.snake
            ),
            "correct the matcher, or leave the hook out",
        ));
    }
    let signs: &[&str] = if OF_TOOLS.contains(&event.snake) { &LITERAL } else { &LITERAL[..2] };
    let found = signs.iter().find(|sign| matcher.contains(**sign))?;
    Some(said(
        format!(
            "The matcher {} is a glob, in which `{found}` stands for itself, there and here: most likely it matches nothing",
            quoted(matcher)
        ),
        "write one hook for each alternative, with `*` and `?` only",
    ))
}

fn of_executor(hook: &Hook<'_>) -> Vec<Said> {
    match &hook.definition.executor {
        Executor::Command { command, shell, .. } => of_command(command, shell.as_deref()),
        Executor::Http { url, .. } => of_url(url),
        Executor::Callback { name, .. } => vec![said(
            format!(
                "The callback {} is code inside of Kheish's daemon, and a plain `hookfleet worker` has none",
                quoted(name)
            ),
            "register it under the same name in a program that is a worker (`Fleet::builder`)",
        )],
        Executor::Prompt { .. } => vec![of_model(hook)],
        Executor::Agent { tool_surface, .. } => {
            let mut remarks = vec![of_model(hook)];
            if tool_surface.as_ref().is_none_or(ToolSurface::is_deny_all) {
                remarks.push(said("An agent hook without an allow list may use no tool", Remark::NOTHING));
            }
            remarks
        }
    }
}

fn of_command(command: &str, shell: Option<&str>) -> Vec<Said> {
    let mut remarks = Vec::new();
    if let Some((word, what)) = machine::sign(command) {
        let word = shown(&word);
        remarks.push(said(
            format!("The command acts on the machine of the event: `{word}` is {what}, and a worker has another folder"),
            "`run_on: origin` will run it there in a later version; until then name files from / on, the same on every worker",
        ));
    }
    if let Some(shell) = shell.filter(|shell| shell.contains(char::is_whitespace)) {
        remarks.push(said(
            format!(
                "The shell {} is one name of a program, there and here, and most likely starts nothing",
                quoted(shell)
            ),
            "name a program alone",
        ));
    }
    remarks
}

/// What is so for every hook of a kind.
fn of_kind(executor: &Executor) -> Vec<Said> {
    let answers = said(
        "Plain text as the answer is a failure in this dialect, there and here: a hook answers nothing, or an outcome in JSON",
        "let a hook print nothing if it has nothing to say",
    );
    let shell = said(
        "The shell of a command is a login shell (`-l`), which reads profile files: those of the worker, not of the daemon",
        "set there what the commands need",
    );
    let variables = said(
        "A command has the daemon's folder and all of its variables there; here the worker's folder, and the variables of commands.env",
        "name in commands.env what the commands need",
    );
    match executor {
        Executor::Command { .. } => vec![shell, variables, answers],
        Executor::Http { .. } => vec![answers],
        Executor::Prompt { .. } | Executor::Agent { .. } | Executor::Callback { .. } => Vec::new(),
    }
}

fn of_url(url: &str) -> Vec<Said> {
    let mut remarks = Vec::new();
    if let Some(class) = Url::parse(url).ok().as_ref().and_then(literal).and_then(|ip| refusal(ip, &[])) {
        remarks.push(said(
            format!("The URL names {class}, which Kheish calls and a worker does not: every run becomes a letter"),
            "allow it with egress.allow, or use a name",
        ));
    }
    if is_rewritten(url) {
        remarks.push(said(
            "`{` in the URL would begin a template here, and is written as `%7B`",
            "check that the receiver takes that for the same",
        ));
    }
    remarks
}

fn of_model(hook: &Hook<'_>) -> Said {
    let kind = hook.definition.executor.kind();
    let is_closed = hook.definition.failure_policy.mode == FailureMode::Closed && !ignores_answers(hook.event);
    let closed = if is_closed { "; its failures block there, and do not here" } else { "" };
    said(
        format!("No {kind} hook runs in this version: it is taken over with all its fields, and switched off{closed}"),
        "keep it in Kheish; a later version runs it with `enabled: true`",
    )
}
