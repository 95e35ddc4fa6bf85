//! What a hook runs: `http`, `command`, `callback`, `publish`, `prompt`, `agent` or `mcp_tool`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::http::{self, Targets};
use super::secret::resolve;
use super::{Outside, model, publish};
use crate::domain::hook::{Action, CommandAction, Exit, ExitCodes, Fences, Files, Limits};
use crate::domain::id::HookId;
use crate::domain::secret::Secret;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::{bytes, count, duration, flag, one_of, text, variable};
use crate::yaml::value::{Value, all};

/// Less does not hold a program of any kind.
const MEMORY_MIN: u64 = 1 << 20;

pub(super) fn read(value: Value<'_>, outside: &Outside<'_>, targets: &Targets) -> Option<Action> {
    let value = value.secret_unless_map();
    let mut fields = value.fields()?;
    let empty = fields.is_empty();
    let http = fields.get("http").map(Value::secret_unless_map);
    let command = fields.get("command").map(Value::secret_unless_map);
    let callback = fields.get("callback");
    let published = fields.get("publish").map(Value::secret_unless_map);
    let [prompt, agent, tool] = ["prompt", "agent", "mcp_tool"].map(|name| fields.get(name));
    fields.end();
    let all = [&http, &command, &callback, &published, &prompt, &agent, &tool];
    let named = all.into_iter().flatten().count();
    if named > 1 || empty {
        let found = if empty { "none" } else { "several" };
        let expected = "one of `http`, `command`, `callback`, `publish`, `prompt`, `agent` and `mcp_tool`";
        value.wrong(Mismatch::new(expected).found(found));
    }
    let prompt = prompt.map(|prompt| model::read_prompt(&prompt, outside));
    let agent = agent.map(|agent| model::read_agent(&agent, outside));
    let tool = tool.map(|tool| model::read_mcp_tool(&tool));
    let model = prompt.or(agent).or(tool).map(|model| model.map(|model| Action::Model(Box::new(model))));
    let http = http.map(|http| http::read(&http, outside, targets).map(Action::Http));
    let command = command.map(|command| read_command(&command, outside).map(Action::Command));
    let callback = callback.map(|name| name.read(|name| read_callback(name, outside)).map(Action::Callback));
    let published = published.map(|published| publish::read(&published, outside).map(Action::Publish));
    http.or(command).or(callback).or(published).or(model)?
}

/// One that this program has, where that is known.
fn read_callback(name: &str, outside: &Outside<'_>) -> Result<String, Mismatch> {
    let name = HookId::new(name).map_err(|sentence| Mismatch::from_sentence(&sentence))?.to_string();
    match outside.callbacks {
        Some(known) if !known.contains(&name) => {
            let mismatch = Mismatch::new("the name of a callback that this program has");
            Err(mismatch.did_you_mean(&name, known.iter().map(String::as_str)))
        }
        _ => Ok(name),
    }
}

fn read_command(value: &Value<'_>, outside: &Outside<'_>) -> Option<CommandAction> {
    let mut fields = value.fields()?;
    let argv = match (fields.get("argv"), fields.get("shell")) {
        (Some(argv), None) => read_argv(&argv),
        (None, Some(line)) => line.read(|line| Ok(["sh", "-c", &line_of_shell(line)?].map(str::to_owned).to_vec())),
        (argv, _) => {
            let found = if argv.is_some() { "both" } else { "neither" };
            value.wrong(Mismatch::new("either `argv` or `shell`").found(found));
            None
        }
    };
    let variables = match fields.get("env") {
        Some(variables) => read_variables(&variables.secret(), outside),
        None => Some(BTreeMap::new()),
    };
    let cwd = match fields.get("cwd") {
        Some(cwd) => cwd.read(text("a folder")).map(|cwd| Some(cwd.into())),
        None => Some(None),
    };
    let exit_codes = fields.get("exit_codes").map_or(Some(ExitCodes::default()), |codes| read_exit_codes(&codes));
    let limits = fields.get("limits").map_or(Some(Limits::default()), |limits| read_limits(&limits));
    let no_new_privileges = fields.read_or("no_new_privileges", false, flag);
    let files = fields.get("files").map_or(Some(None), |files| read_files(&files).map(Some));
    fields.end();
    let fences = Fences { limits: limits?, no_new_privileges: no_new_privileges?, files: files? };
    let (argv, env, cwd) = (argv?, variables?, cwd?);
    Some(CommandAction { argv, env, cwd, exit_codes: exit_codes?, fences: Box::new(fences) })
}

/// `3: done`, `64-78: fail`, `other: fail`.
fn read_exit_codes(value: &Value<'_>) -> Option<ExitCodes> {
    let mut codes = ExitCodes::default();
    let mut taken = [false; 256];
    let read: Option<Vec<()>> = all(value.entries()?.into_iter().map(|(key, value)| {
        let exit = value.read(one_of(&Exit::ALL));
        if key.name == "other" {
            codes.other = exit?;
            return Some(());
        }
        let range = exit_range(&key.name);
        let twice = range.clone().is_some_and(|range| range.into_iter().any(|code| taken[usize::from(code)]));
        let Some(range) = range.filter(|_| !twice) else {
            let mismatch =
                Mismatch::new("an exit code from 1 to 255, a range such as 64-78, or `other`, none of them twice");
            value.wrong_key(key, mismatch);
            return None;
        };
        range.clone().for_each(|code| taken[usize::from(code)] = true);
        codes.named.push((range, exit?));
        Some(())
    }));
    read.map(|_| codes)
}

fn exit_range(text: &str) -> Option<RangeInclusive<u8>> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    let code = |text: &str| Some(text).filter(digits)?.parse::<u8>().ok().filter(|code| *code > 0);
    let range = code(from)?..=code(to)?;
    (!range.is_empty()).then_some(range)
}

fn read_limits(value: &Value<'_>) -> Option<Limits> {
    let mut fields = value.fields()?;
    let cpu = fields.read_or("cpu", None, |text| whole_seconds(text).map(Some));
    let memory = fields.read_or("memory", None, |text| bytes(MEMORY_MIN..=u64::MAX >> 1)(text).map(Some));
    let files = fields.read_or("files", None, |text| count(8..=1_048_576)(text).map(Some));
    let processes = fields.read_or("processes", None, |text| count(0..=1_000_000)(text).map(Some));
    fields.end();
    Some(Limits { cpu_s: cpu?, memory: memory?, files: files?, processes: processes? })
}

/// The kernel counts no finer.
fn whole_seconds(text: &str) -> Result<u64, Mismatch> {
    let limit = duration(Duration::from_secs(1)..=Duration::from_hours(24))(text)?;
    if limit.subsec_nanos() > 0 { Err(Mismatch::new("whole seconds")) } else { Ok(limit.as_secs()) }
}

fn read_files(value: &Value<'_>) -> Option<Files> {
    let mut fields = value.fields()?;
    let mut paths = |name: &'static str| match fields.get(name) {
        Some(list) => list.list(|path| path.read(absolute)),
        None => Some(Vec::new()),
    };
    let (read, write) = (paths("read"), paths("write"));
    fields.end();
    Some(Files { read: read?, write: write? })
}

fn absolute(path: &str) -> Result<PathBuf, Mismatch> {
    let path = PathBuf::from(text("a path from / on")(path)?);
    if path.is_absolute() { Ok(path) } else { Err(Mismatch::new("a path from / on")) }
}

fn line_of_shell(line: &str) -> Result<String, Mismatch> {
    text("a line of shell")(line)?;
    parse_argument(line)
}

fn read_argv(value: &Value<'_>) -> Option<Vec<String>> {
    let mut first = true;
    let argv = value.list(|item| {
        let parse = if std::mem::take(&mut first) { parse_program } else { parse_argument };
        item.read(parse)
    })?;
    if argv.is_empty() {
        value.wrong(Mismatch::new("a program and its arguments").found("an empty list"));
    }
    Some(argv)
}

fn parse_program(program: &str) -> Result<String, Mismatch> {
    text("the name or path of a program")(program)?;
    parse_argument(program)
}

fn parse_argument(argument: &str) -> Result<String, Mismatch> {
    if argument.contains('\0') {
        return Err(Mismatch::new("an argument without NUL"));
    }
    if argument.contains("${env:") || argument.contains("${file:") {
        let mismatch = Mismatch::new("an argument that says all by itself");
        return Err(mismatch.help("everybody on the machine sees arguments; `${...}` works in the command's `env`"));
    }
    Ok(argument.to_owned())
}

fn read_variables(value: &Value<'_>, outside: &Outside<'_>) -> Option<BTreeMap<String, Secret<String>>> {
    let variables = all(value.entries()?.into_iter().map(|(key, value)| {
        if let Err(mismatch) = variable(&key.name) {
            value.wrong_key(key, mismatch);
        }
        let content = value.read(|content| {
            let content = resolve(content, outside)?;
            if content.contains('\0') { Err(Mismatch::new("a text without NUL")) } else { Ok(content) }
        });
        Some((key.name.clone(), Secret::new(content?)))
    }));
    Some(variables?.into_iter().collect())
}
