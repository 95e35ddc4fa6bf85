//! Hooks files of other systems: imported anew each time that the catalog is read, so that the file stays the one that its
//! system has.

use std::borrow::Cow;

use super::Document;
use super::files::problem;
use crate::dialect;
use crate::dialect::import::{Imported, Misfit, Refused, Remark, Source, Wish};
use crate::dialect::kheish::settings::{Fault, HookSettings};
use crate::domain::dialect::Dialect;
use crate::yaml::problem::{Mismatch, Place, Problem, Problems, Severity};

/// A document in this project's words.
pub(super) struct Native<'a> {
    pub name: Cow<'a, str>,
    pub text: Cow<'a, str>,
    /// The rules that are not the same here.
    pub warnings: Vec<Problem>,
}

/// All settings of Kheish among documents. More than one document of it makes one, in their order.
///
/// # Errors
/// What is wrong with the first that is not valid.
pub fn kheish(documents: &[Document]) -> Result<HookSettings, Vec<Fault>> {
    let of_kheish = documents.iter().filter(|document| document.dialect == Dialect::Kheish);
    let read = of_kheish.map(|document| HookSettings::of_file(document.text.as_bytes()).map(|read| read.settings));
    let read: Result<Vec<HookSettings>, _> = read.collect();
    read.map(|all| HookSettings::joined(&all))
}

/// The document as it is, or what it is imported as.
///
/// # Errors
/// Everything in it that is wrong, or cannot be the same here: nothing of it is left out.
pub(super) fn native(document: &Document) -> Result<Native<'_>, Problems> {
    let Document { name, text, dialect } = document;
    let Some(source) = Source::of(*dialect) else {
        return Ok(Native { name: name.into(), text: text.into(), warnings: Vec::new() });
    };
    let wish = Wish {
        bytes: text.as_bytes(),
        file: name,
        prefix: source.prefix(),
        is_lenient: false,
        runs: None,
        scripts: &[],
    };
    let Imported { yaml, remarks, .. } = dialect::import(source, &wish).map_err(|refused| problems(source, refused))?;
    let own = remarks.iter().filter(|remark| !remark.is_general && remark.advice != Remark::NOTHING);
    let warnings = own.map(|remark| warning(name, source, remark)).collect();
    Ok(Native { name: format!("{name}, as it was imported").into(), text: yaml.into(), warnings })
}

fn problems(source: Source, refused: Refused) -> Problems {
    let Refused { problems, notes, .. } = refused;
    let expected = format!("hooks of {} that run there and here", source.system());
    let count = problems.len();
    let one = |(at, Misfit { place, reason }): (usize, Misfit)| {
        let mismatch = Mismatch::new(expected.clone()).found(reason);
        // What follows from all of them is said once, behind the last.
        problem(&place, if at + 1 == count && !notes.is_empty() { mismatch.help(notes.join("; ")) } else { mismatch })
    };
    Problems::join(problems.into_iter().enumerate().map(one).collect())
}

fn warning(file: &str, source: Source, remark: &Remark) -> Problem {
    Problem {
        severity: Severity::Warning,
        place: Place::File(file.to_owned()),
        path: remark.hooks.join(", "),
        expected: format!("a hook that is the same as in {}", source.system()),
        found: remark.change.clone(),
        help: Some(remark.advice.clone()),
    }
}
