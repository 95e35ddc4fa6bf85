//! What an importer takes and gives: the definitions of another system, and our hooks of the same meaning.
//!
//! An importer is one pure function a dialect, from [`Wish`] to [`Imported`]; [`import()`](super::import()) picks it.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::json_text::Spot;
use super::yaml_text::{comment, quoted};
use crate::domain::dialect::Dialect;

/// A system whose hooks can be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Kheish,
    Aether,
    Bernstein,
}

/// The dialects by the names that `--from` takes, and the importer of each, if it has one by now.
const SOURCES: [(&str, Option<Source>); 5] = [
    ("kheish", Some(Source::Kheish)),
    ("claude-code", None),
    ("claude", None), // a short form
    ("bernstein", Some(Source::Bernstein)),
    ("aether", Some(Source::Aether)),
];

impl Source {
    /// By the name of its dialect.
    ///
    /// # Errors
    /// One sentence, with the names there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let there: Vec<&str> = SOURCES.iter().filter(|(_, source)| source.is_some()).map(|(name, _)| *name).collect();
        let there = there.join(", ");
        match SOURCES.iter().find(|(known, _)| *known == name) {
            Some((_, Some(source))) => Ok(*source),
            Some((_, None)) => Err(format!("hooks of {name} cannot be imported yet; those of {there} can")),
            None => Err(format!("expected a system whose hooks can be imported ({there})")),
        }
    }

    /// The importer of a dialect; `None`: it is ours, or has none yet.
    #[must_use]
    pub const fn of(dialect: Dialect) -> Option<Self> {
        match dialect {
            Dialect::Native => None,
            Dialect::Kheish => Some(Self::Kheish),
            Dialect::Aether => Some(Self::Aether),
            Dialect::Bernstein => Some(Self::Bernstein),
        }
    }

    /// What its system calls itself.
    #[must_use]
    pub const fn system(self) -> &'static str {
        match self {
            Self::Kheish => "Kheish",
            Self::Aether => "Aether",
            Self::Bernstein => "Bernstein",
        }
    }

    /// Where the ids of its hooks begin, unless another prefix is wished for.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Kheish => "kheish",
            Self::Aether => "aether",
            Self::Bernstein => "bernstein",
        }
    }

    /// The file that holds its hooks in a folder of its own.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Kheish => "hooks.json",
            Self::Aether => "workflow.json",
            Self::Bernstein => "bernstein.yaml",
        }
    }

    /// Where its system finds scripts by their names; `None`: it finds none.
    #[must_use]
    pub const fn found(self) -> Option<Found> {
        match self {
            Self::Kheish | Self::Aether => None,
            Self::Bernstein => Some(Found::OF_BERNSTEIN),
        }
    }
}

/// Scripts that a system finds by where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The folder that they are in, beside the file of hooks.
    pub folder: &'static str,
    /// The file that lists them where the folder is not.
    pub listing: &'static str,
}

impl Found {
    /// What Bernstein finds.
    pub(super) const OF_BERNSTEIN: Self = Self { folder: ".bernstein/hooks", listing: "bernstein-scripts.yaml" };

    /// The text of such a file, of paths in the folder: a section with the name of the folder.
    #[must_use]
    pub fn list(self, scripts: &[String]) -> String {
        let folder = self.folder;
        let scripts: Vec<String> = scripts.iter().map(|script| format!("  - {}\n", quoted(script))).collect();
        format!("# Scripts that were found in {folder}.\n{folder}:\n{}", scripts.concat())
    }
}

/// What is to be imported, and how.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The file as it is.
    pub bytes: &'a [u8],
    /// What it is called where it is shown.
    pub file: &'a str,
    /// What the ids begin with.
    pub prefix: &'a str,
    /// What cannot be taken over is left out, and told.
    pub is_lenient: bool,
    /// What runs in place of what the other system only names, by that name: the value of `run` in a hooks file.
    pub runs: Option<&'a Map<String, Value>>,
    /// Scripts that the other system finds by where they are: paths in the folder of [`Source::found`].
    pub scripts: &'a [String],
}

/// Hooks of ours, and everything that is to be known about them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imported {
    /// A hooks file.
    pub yaml: String,
    pub hooks: Vec<ImportedHook>,
    pub remarks: Vec<Remark>,
    pub left_out: Vec<Misfit>,
    /// What `commands.allow` has to name.
    pub programs: Vec<String>,
    /// How often hooks run, a sentence each.
    pub load: Vec<String>,
}

/// A hook of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedHook {
    pub id: String,
    /// What it is called there.
    pub name: String,
    /// As it is called there.
    pub event: String,
    /// What it runs, such as `command`.
    pub runs: &'static str,
    pub enabled: bool,
}

/// A rule that is not the same here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// Ids of the hooks that it is about; none: the whole file.
    pub hooks: Vec<String>,
    /// Their events, each once.
    pub events: Vec<String>,
    /// What is different.
    pub change: String,
    /// What to do about it; [`Remark::NOTHING`] if nothing is.
    pub advice: String,
    /// It is so for every hook of their kind, and needs to be read once.
    #[serde(skip)]
    pub is_general: bool,
}

impl Remark {
    /// The advice where there is nothing to do.
    pub const NOTHING: &'static str = "nothing";

    /// Both parts, as the text of a comment.
    #[must_use]
    pub fn sentences(&self) -> String {
        let Self { change, advice, .. } = self;
        if advice == Self::NOTHING { format!("{change}.") } else { format!("{change}. To do: {advice}.") }
    }
}

/// What is wrong, or cannot be taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Misfit {
    /// The line of the file and the way to it, if that is known.
    pub place: String,
    pub reason: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, reason } = self;
        write!(f, "{place}: {reason}")
    }
}

/// Why nothing was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Everything that is wrong, fit for a terminal.
    pub problems: Vec<Misfit>,
    /// What follows from it in the other system, and what to do.
    pub notes: Vec<String>,
    /// The rest would be imported with [`Wish::is_lenient`].
    pub can_be_left_out: bool,
}

/// A place in a file, such as `hooks.json:3:7 (hooks.stop[0])`.
#[must_use]
pub fn place(file: &str, spot: Option<Spot>, way: &str) -> String {
    let spot = spot.map(|spot| format!(":{}:{}", spot.line, spot.column)).unwrap_or_default();
    let way = if way.is_empty() { String::new() } else { format!(" ({way})") };
    format!("{file}{spot}{way}")
}

/// The hooks file of an import: what is to be known first, in comments, then the hooks, each an item of `hooks:` in YAML.
pub(super) fn hooks_file<'h>(head: &str, about: &Imported, hooks: impl IntoIterator<Item = &'h str>) -> String {
    let Imported { remarks, left_out, programs, load, .. } = about;
    let allowed = programs.iter().map(|program| quoted(program)).collect::<Vec<_>>().join(", ");
    let allowed = (!programs.is_empty()).then(|| format!("Workers need commands.allow: [{allowed}]"));
    let general = remarks.iter().filter(|remark| remark.is_general).map(Remark::sentences);
    let left_out = left_out.iter().map(|Misfit { place, reason }| format!("Left out: {place}: {reason}."));
    let sentences =
        [head.to_owned()].into_iter().chain(allowed).chain(load.iter().cloned()).chain(general).chain(left_out);
    let mut yaml: String = sentences.map(|sentence| comment(0, &sentence)).collect();
    yaml += "version: 1\n";
    let hooks: String = hooks.into_iter().collect();
    yaml += if hooks.is_empty() { "hooks: []\n" } else { "hooks:\n" };
    yaml + &hooks
}

/// Remarks of many hooks: those that say the same become one, at the place of the first.
#[must_use]
pub fn gathered(remarks: impl IntoIterator<Item = Remark>) -> Vec<Remark> {
    let (mut gathered, mut places) = (Vec::<Remark>::new(), HashMap::new());
    for remark in remarks {
        if remark.hooks.is_empty() {
            gathered.push(remark); // of the whole file
            continue;
        }
        let place = *places.entry((remark.change.clone(), remark.advice.clone())).or_insert(gathered.len());
        let Some(first) = gathered.get_mut(place) else {
            gathered.push(remark);
            continue;
        };
        first.hooks.extend(remark.hooks);
        for event in remark.events {
            if !first.events.contains(&event) {
                first.events.push(event);
            }
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_names() {
        assert_eq!(Source::named("kheish"), Ok(Source::Kheish));
        let later = "hooks of claude-code cannot be imported yet; those of kheish, bernstein, aether can";
        assert_eq!(Source::named("claude-code"), Err(later.to_owned()));
        assert!(Source::named("claude").unwrap_err().contains("claude cannot be imported yet"));
        assert_eq!(
            Source::named("Kheish"),
            Err("expected a system whose hooks can be imported (kheish, bernstein, aether)".to_owned())
        );
    }

    #[test]
    fn remarks_that_say_the_same_become_one() {
        let remark = |hook: &str, event: &str, change: &str| Remark {
            hooks: if hook.is_empty() { Vec::new() } else { vec![hook.to_owned()] },
            events: vec![event.to_owned()],
            change: change.to_owned(),
            advice: Remark::NOTHING.to_owned(),
            is_general: false,
        };
        let all = [remark("a", "stop", "x"), remark("", "", "x"), remark("b", "setup", "x"), remark("c", "stop", "x")];
        let found = gathered(all);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].hooks, ["a", "b", "c"]);
        assert_eq!(found[0].events, ["stop", "setup"]);
    }
}
