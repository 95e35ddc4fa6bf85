//! `hookfleet hooks import`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::catalog::{self, Document};
use crate::cli::exit::{Exit, usage};
use crate::cli::output;
use crate::dialect;
use crate::dialect::import::{Imported, Misfit, Refused, Remark, Source, Wish};
use crate::domain::id::HookId;
use crate::yaml::problem::Problem;
use crate::yaml::report::Report;
use crate::yaml::{self, BYTES_MAX};

/// Longest prefix of ids, so that a name has room behind it.
const PREFIX_CHARS_MAX: usize = 48;
const EXAMPLES: &str = "\
Examples:
  hookfleet hooks import --from kheish ~/.kheish --check
  hookfleet hooks import --from kheish hooks.json --output hooks/kheish.yaml
  hookfleet hooks import --from kheish hooks.json > hooks.yaml
  hookfleet hooks import --from bernstein . --output hooks/bernstein.yaml
  hookfleet hooks import --from aether workflow.json --runs runs.yaml
  hookfleet hooks check hooks.yaml";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Import {
    /// The system that they are from: kheish, bernstein, aether
    #[arg(long, value_name = "DIALECT", value_parser = Source::named)]
    from: Source,
    /// Its file, or the folder that has it: hooks.json of Kheish, bernstein.yaml (and .bernstein/hooks), workflow.json of Aether
    path: PathBuf,
    /// What the ids of the hooks begin with [default: the dialect]
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    id_prefix: Option<String>,
    /// What runs for the templates that hooks of Aether name: a YAML file with the value of `run` by the name of each
    #[arg(long, value_name = "FILE")]
    runs: Option<PathBuf>,
    /// Write the hooks file there, over none that is there
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    output: Option<PathBuf>,
    /// Tell what would be imported, and write nothing
    #[arg(long)]
    check: bool,
    /// Leave out what is wrong or cannot be taken over, and tell it, instead of refusing all
    #[arg(long)]
    lenient: bool,
}

impl Import {
    /// The file that is read.
    pub(super) fn file(&self) -> PathBuf {
        if self.path.is_dir() { self.path.join(self.from.file()) } else { self.path.clone() }
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let prefix = HookId::new(text)?.to_string();
    if prefix.len() > PREFIX_CHARS_MAX {
        return Err(format!("expected at most {PREFIX_CHARS_MAX} characters, found {}", prefix.len()));
    }
    Ok(prefix)
}

/// `hint_max`: the longest `Retry-After` that hooks honour.
pub(super) fn run(import: &Import, hint_max: Duration) -> anyhow::Result<ExitCode> {
    let path = import.file();
    if let Some(there) = import.output.as_deref().filter(|output| output.symlink_metadata().is_ok()) {
        return Err(usage(format!("{} is there already: name another file", there.display())));
    }
    let scripts = scripts(import);
    let bytes = if !scripts.is_empty() && !path.exists() { Vec::new() } else { read(&path)? };
    let prefix = import.id_prefix.as_deref().unwrap_or(import.from.prefix());
    let file = path.display().to_string();
    let runs = import.runs.as_deref().map(|path| runs(import.from, path)).transpose()?;
    let (runs, is_lenient) = (runs.as_ref(), import.lenient);
    let wish = Wish { bytes: &bytes, file: &file, prefix, is_lenient, runs, scripts: &scripts };
    let imported = match dialect::import(import.from, &wish) {
        Ok(imported) => imported,
        Err(refused) => return refuse(refused),
    };
    match unfit(&imported, hint_max) {
        Some(refused) => refuse(refused),
        None => tell(import, &file, &imported),
    }
}

/// Scripts that the other system finds in the folder that is named.
fn scripts(import: &Import) -> Vec<String> {
    let found = import.from.found().filter(|_| import.path.is_dir());
    found.map_or_else(Vec::new, |found| catalog::files::scripts(&import.path.join(found.folder)))
}

/// What the catalog says against the file that was made, such as that it has more hooks than a catalog takes.
fn unfit(imported: &Imported, hint_max: Duration) -> Option<Refused> {
    let made = Document::native("the imported file", &*imported.yaml);
    let problems = catalog::read_for_others(&[made], hint_max).err()?;
    let misfit = |problem: &Problem| Misfit { place: problem.location(), reason: problem.reason() };
    let problems = problems.list().iter().map(misfit).collect();
    let notes = vec!["no hooks file can have that: correct it in the original".to_owned()];
    Some(Refused { problems, notes, can_be_left_out: false })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let unreadable = || format!("cannot read {}", path.display());
    let size = path.metadata().with_context(unreadable)?.len();
    if size > BYTES_MAX {
        bail!("{} has {size} bytes, and a hooks file has at most {BYTES_MAX}", path.display());
    }
    std::fs::read(path).with_context(unreadable)
}

/// What is to run, by names of templates.
fn runs(from: Source, path: &Path) -> anyhow::Result<Map<String, Value>> {
    if from != Source::Aether {
        return Err(usage("--runs is for hooks of Aether, which name templates: others say what they run".to_owned()));
    }
    let file = path.display().to_string();
    let text = String::from_utf8(read(path)?).with_context(|| format!("{file} is not UTF-8"))?;
    let report = Report::new(&file, &text);
    let node = yaml::parse(&report);
    let json = node.as_ref().and_then(|node| yaml::value::Value::root(&report, node).json());
    match report.into_result(json).map_err(|problems| anyhow!(problems.for_owner()))? {
        Value::Object(runs) => Ok(runs),
        _ => bail!(
            "{file}: expected names of templates, with what runs for each, such as `notify: {{ http: {{ url: … }} }}`"
        ),
    }
}

fn refuse(refused: Refused) -> anyhow::Result<ExitCode> {
    let Refused { problems, mut notes, can_be_left_out } = refused;
    if can_be_left_out {
        notes.push("`--lenient` leaves out what is wrong, and takes over the rest".to_owned());
    }
    let problems: Vec<String> = problems.iter().map(Misfit::to_string).collect();
    if output::is_json() {
        output::answer(&json!({ "problems": problems, "notes": notes }), String::new)?;
        return Ok(Exit::Failed.into());
    }
    let problems = problems.iter().map(|problem| format!("error: {problem}\n"));
    let notes = notes.iter().map(|note| format!("note: {note}\n"));
    output::err(&problems.chain(notes).collect::<String>());
    Ok(Exit::Failed.into())
}

fn tell(import: &Import, file: &str, imported: &Imported) -> anyhow::Result<ExitCode> {
    if let Some(output) = &import.output {
        let written = std::fs::File::create_new(output).and_then(|mut file| file.write_all(imported.yaml.as_bytes()));
        written.with_context(|| format!("{} cannot be written", output.display()))?;
    }
    if !output::is_json() {
        output::err(&about(imported));
    }
    output::answer(&answer(import, imported)?, || match &import.output {
        Some(output) => format!("{}: {}", output.display(), summary(imported)),
        None if import.check => format!("{file}: {}", summary(imported)),
        None => imported.yaml.clone(),
    })?;
    Ok(Exit::Done.into())
}

fn answer(import: &Import, imported: &Imported) -> anyhow::Result<Value> {
    let Imported { yaml, hooks, remarks, left_out, programs, load } = imported;
    let mut answer = json!({
        "hooks": hooks,
        "remarks": remarks,
        "left_out": left_out,
        "commands_allow": programs,
        "load": load,
        "problems": [],
    });
    let object = answer.as_object_mut().ok_or_else(|| anyhow!("an answer that is no object"))?;
    if !import.check {
        object.insert("yaml".to_owned(), json!(yaml));
    }
    if let Some(output) = &import.output {
        object.insert("output".to_owned(), json!(output.display().to_string()));
    }
    Ok(answer)
}

fn summary(imported: &Imported) -> String {
    let count = |count: usize| if count == 1 { "1 hook".to_owned() } else { format!("{count} hooks") };
    let off = imported.hooks.iter().filter(|hook| !hook.enabled).count();
    let off = if off > 0 { format!(", {off} of them switched off") } else { String::new() };
    let left = imported.left_out.len();
    let left = if left > 0 { format!(", {left} left out") } else { String::new() };
    format!("{}{off}{left}", count(imported.hooks.len()))
}

/// The table of remarks, and what has to be set for the hooks.
fn about(imported: &Imported) -> String {
    let Imported { remarks, left_out, programs, load, .. } = imported;
    let mut parts = Vec::new();
    if !remarks.is_empty() {
        parts.push(output::table_for_people(&["HOOK", "EVENT", "DIFFERENT", "TO DO"], &rows(remarks)));
    }
    let left_out = left_out.iter().map(|misfit| format!("left out: {misfit}"));
    let mut lines: Vec<String> = left_out.collect();
    if !programs.is_empty() {
        let quoted = programs.iter().map(|program| format!("{program:?}")).collect::<Vec<_>>().join(", ");
        lines.push(format!(
            "commands.allow: [{quoted}]   # in the settings of workers: a shell runs any command of the catalog"
        ));
    }
    lines.extend(load.iter().cloned());
    parts.push(lines.join("\n"));
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn rows(remarks: &[Remark]) -> Vec<Vec<String>> {
    let row = |Remark { hooks, events, change, advice, .. }: &Remark| {
        let hooks = if hooks.is_empty() { "the whole file".to_owned() } else { hooks.join(", ") };
        vec![hooks, events.join(", "), change.clone(), advice.clone()]
    };
    remarks.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_leave_room_for_names() {
        assert_eq!(prefix("team.a"), Ok("team.a".to_owned()));
        assert!(prefix("a/b").unwrap_err().contains("letters, digits"));
        assert!(prefix(&"x".repeat(49)).unwrap_err().contains("at most 48"));
    }

    #[test]
    fn a_file_that_the_catalog_refuses_is_not_written() {
        let hook = "  - { id: kheish.a, on: setup, run: { callback: c } }\n";
        let imported = |hooks: &[&str]| Imported {
            yaml: format!("version: 1\nhooks:\n{}", hooks.concat()),
            ..Imported::default()
        };
        let unfit = |hooks: &[&str]| unfit(&imported(hooks), Duration::from_secs(30));
        assert_eq!(unfit(&[hook]), None);
        let refused = unfit(&[hook, hook]).unwrap();
        assert!(matches!(&refused.problems[..], [twice] if twice.reason.contains("kheish.a")), "{refused:?}");
        assert_eq!((refused.notes.len(), refused.can_be_left_out), (1, false));
    }

    #[test]
    fn remarks_become_a_table_of_80_columns() {
        let remark = |hooks: &[&str]| Remark {
            hooks: hooks.iter().map(|hook| (*hook).to_owned()).collect(),
            events: vec!["stop".to_owned()],
            change: "A rule of some words that is not the same here as it has been there before".to_owned(),
            advice: "look at it".to_owned(),
            is_general: false,
        };
        let imported = Imported {
            remarks: vec![remark(&[]), remark(&["kheish.stop.one", "kheish.stop.two"])],
            programs: vec!["/bin/bash".to_owned()],
            left_out: vec![Misfit { place: "hooks.json:3:4".to_owned(), reason: "why".to_owned() }],
            load: vec!["Load: none.".to_owned()],
            ..Imported::default()
        };
        let found = about(&imported);
        let expected = "\
HOOK       the whole file
EVENT      stop
DIFFERENT  A rule of some words that is not the same here as it has been there
           before
TO DO      look at it

HOOK       kheish.stop.one, kheish.stop.two
EVENT      stop
DIFFERENT  A rule of some words that is not the same here as it has been there
           before
TO DO      look at it

left out: hooks.json:3:4: why
commands.allow: [\"/bin/bash\"]   # in the settings of workers: a shell runs any command of the catalog
Load: none.";
        assert_eq!(found, expected);
        assert_eq!(summary(&imported), "0 hooks, 1 left out");
    }
}
