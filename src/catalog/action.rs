//! What a hook runs: `http` or `command`.

use std::collections::BTreeMap;

use super::Outside;
use super::http::{self, Targets};
use super::secret::resolve;
use crate::domain::hook::{Action, CommandAction, Secret};
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::{text, variable};
use crate::yaml::value::{Value, all};

pub(super) fn read(value: Value<'_>, outside: &Outside<'_>, targets: &Targets) -> Option<Action> {
    let value = value.secret_unless_map();
    let mut fields = value.fields()?;
    let empty = fields.is_empty();
    let (http, command) = (fields.get("http"), fields.get("command"));
    fields.end();
    let both = http.is_some() && command.is_some();
    if both || empty {
        let found = if both { "both" } else { "neither" };
        value.wrong(Mismatch::new("either `http` or `command`").found(found));
    }
    let http = http.map(|http| http::read(&http.secret_unless_map(), outside, targets));
    let command = command.map(|command| read_command(&command.secret_unless_map(), outside));
    match http {
        Some(http) => Some(Action::Http(http?)),
        None => Some(Action::Command(command??)),
    }
}

fn read_command(value: &Value<'_>, outside: &Outside<'_>) -> Option<CommandAction> {
    let mut fields = value.fields()?;
    let argv = fields.require("argv").and_then(|argv| read_argv(&argv));
    let variables = match fields.get("env") {
        Some(variables) => read_variables(&variables.secret(), outside),
        None => Some(BTreeMap::new()),
    };
    let cwd = match fields.get("cwd") {
        Some(cwd) => cwd.read(text("a folder")).map(|cwd| Some(cwd.into())),
        None => Some(None),
    };
    fields.end();
    Some(CommandAction { argv: argv?, env: variables?, cwd: cwd? })
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
