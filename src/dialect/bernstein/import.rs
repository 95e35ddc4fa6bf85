//! Takes hooks over from Bernstein: `bernstein.yaml` and the scripts beside it in, a hooks file of ours out.
//!
//! | there | here |
//! |---|---|
//! | a script of `hooks:`, or `.bernstein/hooks/EVENT.sh` | a gate on `bernstein.lifecycle.EVENT`, `on_failure: closed`, one try; `if` is its `matcher` |
//! | a plugin of `hooks:` | nothing: a remark |
//! | `type: webhook` at an event | http on `bernstein.EVENT`, `format: envelope`, signed with its secret |
//! | `type: script` | `sh -c`, with 3 tries |
//! | `type: blocking_script` | the same as a gate, `on_failure: closed`, within 5 s |
//! | `webhooks:`, a list of targets | http on the events that it names |
//! | a sink of `notifications:` | http or a command on `bernstein.notification.KIND`, with its retries; `severities` become `when` |
//! | `.bernstein/hooks/on_…/FILE` | a command on `bernstein.plugin.on_…`; a gate where the plugin can ask |
//! | `${NAME}` | `${env:NAME}` |

use serde_json::{Value as Json, json};

use crate::dialect::ids::Ids;
use crate::dialect::import::{Found, Imported, Misfit, Refused, Remark, Wish, gathered, hooks_file};
use crate::yaml;
use crate::yaml::problem::{Mismatch, Problem};
use crate::yaml::report::Report;
use crate::yaml::value::Value;
use draft::Draft;

mod documented;
mod draft;
mod entry;
mod folders;
mod hooks;
mod lax;
mod reference;
mod scalar;
mod sinks;
mod targets;
mod webhooks;

/// The folder in which Bernstein looks for scripts, and the section of a listing of it.
const FOLDER: &str = Found::OF_BERNSTEIN.folder;

/// What was read so far.
struct Reading {
    /// The folder that scripts start in; empty: that of the worker.
    folder: String,
    drafts: Vec<Draft>,
    /// On the file as a whole.
    remarks: Vec<Remark>,
}

impl Reading {
    fn add(&mut self, draft: Draft) {
        self.drafts.push(draft);
    }

    fn remark(&mut self, change: String, advice: &str) {
        let (hooks, events) = (Vec::new(), Vec::new());
        self.remarks.push(Remark { hooks, events, change, advice: advice.to_owned(), is_general: true });
    }

    /// A program that starts in the folder of the file.
    fn command(&self, argv: &[&str]) -> Json {
        self.in_folder(json!({ "argv": argv }))
    }

    /// The same, of words that may be what a hooks file cannot hold; `None`: that is reported.
    fn arguments(&self, value: &Value<'_>, words: &[String]) -> Option<Json> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.iter().all(|word| can_be_held(value, word)).then(|| self.command(&words))
    }

    /// A line of shell.
    fn shell(&self, value: &Value<'_>, line: &str) -> Option<Json> {
        can_be_held(value, line).then(|| self.in_folder(json!({ "shell": line })))
    }

    fn in_folder(&self, mut run: Json) -> Json {
        if let (false, Json::Object(fields)) = (self.folder.is_empty(), &mut run) {
            fields.insert("cwd".to_owned(), json!(self.folder));
        }
        run
    }
}

fn can_be_held(value: &Value<'_>, text: &str) -> bool {
    let reference = ["${env:", "${file:", "\0"].into_iter().find(|part| text.contains(part));
    if let Some(part) = reference {
        let found = format!("{part:?} in it");
        value.wrong(Mismatch::new("a text that is no reference in a hooks file").found(found));
    }
    reference.is_none()
}

/// Takes over what is in a `bernstein.yaml`, and the scripts that were found beside it.
///
/// # Errors
/// [`Refused`]: no YAML, or an entry that Bernstein refuses or that cannot be the same here. With [`Wish::is_lenient`] such
/// entries are left out instead.
pub(in crate::dialect) fn import(wish: &Wish<'_>) -> Result<Imported, Refused> {
    let whole = |reason: String| {
        let problems = vec![Misfit { place: wish.file.to_owned(), reason }];
        Refused { problems, notes: Vec::new(), can_be_left_out: false }
    };
    let text = std::str::from_utf8(wish.bytes).map_err(|_| whole("expected a text in UTF-8".to_owned()))?;
    let report = Report::new(wish.file, text);
    let Some(root) = yaml::parse_foreign(&report) else {
        return Err(Refused { problems: misfits(report), notes: Vec::new(), can_be_left_out: false });
    };
    let mut reading = Reading { folder: folder_of(wish.file), drafts: Vec::new(), remarks: Vec::new() };
    let root = Value::root(&report, &root);
    if root.is_map() {
        let sections = SECTIONS.iter().filter_map(|(name, read)| Some((entry::field(&root, name)?, read)));
        sections.for_each(|(value, read)| read(&value, &mut reading));
    } else if !root.is_nothing() {
        root.wrong(Mismatch::new("settings of Bernstein: a map with `hooks` or `notifications`"));
    }
    for path in wish.scripts {
        folders::read(path, &mut reading);
    }
    let left_out = misfits(report);
    if !left_out.is_empty() && !wish.is_lenient {
        let notes = vec!["Bernstein takes nothing of `hooks` or `notifications` with such a mistake in it".to_owned()];
        return Err(Refused { problems: left_out, notes, can_be_left_out: true });
    }
    Ok(finish(wish, reading, left_out))
}

type Section = fn(&Value<'_>, &mut Reading);

/// The parts of the file that have hooks.
const SECTIONS: [(&str, Section); 4] =
    [("hooks", hooks::read), ("webhooks", webhooks::read), ("notifications", sinks::read), (FOLDER, folders::read_all)];

/// The folder of the file, in which scripts start; empty: it is where the worker is.
fn folder_of(file: &str) -> String {
    let folder = file.rsplit_once('/').map(|(folder, _)| if folder.is_empty() { "/" } else { folder });
    folder.filter(|folder| *folder != ".").unwrap_or_default().to_owned()
}

/// Everything that is wrong.
fn misfits(report: Report<'_>) -> Vec<Misfit> {
    let misfit = |problem: &Problem| {
        let way = if problem.path.is_empty() { String::new() } else { format!(" ({})", problem.path) };
        let file = problem.location();
        let place = file.strip_suffix(&problem.path).unwrap_or(&file).trim_end();
        let help = problem.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
        Misfit { place: format!("{place}{way}"), reason: format!("{}{help}", problem.reason()) }
    };
    match report.into_result(Some(())) {
        Ok(()) => Vec::new(),
        Err(problems) => problems.list().iter().map(misfit).collect(),
    }
}

fn finish(wish: &Wish<'_>, reading: Reading, left_out: Vec<Misfit>) -> Imported {
    let Reading { drafts, mut remarks, .. } = reading;
    let mut ids = Ids::new(wish.prefix);
    let drafts: Vec<(String, Draft)> =
        drafts.into_iter().map(|draft| (ids.next(&draft.group, &draft.short), draft)).collect();
    if drafts.is_empty() {
        let (change, advice) = ("The file has no hooks".to_owned(), Remark::NOTHING.to_owned());
        remarks.push(Remark { hooks: Vec::new(), events: Vec::new(), change, advice, is_general: true });
    }
    remarks.extend(drafts.iter().flat_map(|(id, draft)| draft.remarks(id)));
    let mut programs: Vec<String> = drafts.iter().filter_map(|(_, draft)| draft.program()).collect();
    programs.sort();
    programs.dedup();
    let hooks = drafts.iter().map(|(id, draft)| draft.imported(id)).collect();
    let remarks = gathered(remarks);
    let imported = Imported { yaml: String::new(), hooks, remarks, left_out, programs, load: Vec::new() };
    let head = format!("Hooks of Bernstein, imported from {}.", wish.file);
    let items: Vec<String> = drafts.iter().map(|(id, draft)| draft.yaml(id)).collect();
    let yaml = hooks_file(&head, &imported, items.iter().map(String::as_str));
    Imported { yaml, ..imported }
}

#[cfg(test)]
mod tests;
