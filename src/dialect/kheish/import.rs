//! Takes hooks over from Kheish: `hooks.json` in, a hooks file of ours out, with a remark for each rule that is not the same.
//!
//! | there | here |
//! |---|---|
//! | event | `on: kheish.{event}` |
//! | `name` | `name`; the id is `{prefix}.{event}.{name}` in letters that an id may have |
//! | `matcher` | `matcher`, by the same rules; left out where it matches everything |
//! | an answer that counts | `mode: gate`, `on_failure` as `failure_policy.mode` |
//! | an answer that is ignored | a hook that observes |
//! | `max_retries` | `retry.attempts`, one more, within the timeout; the waits are the dialect's |
//! | `timeout_ms`, or its default | `timeout`, over all attempts |
//! | command, http, callback | `run.command`, `run.http`, `run.callback` |
//! | prompt, agent | the same, with `enabled: false` |

use super::event_name::EventName;
use super::settings::{Fault, FaultKind, HookDefinition, HookSettings, Origin};
use crate::dialect::ids::Ids;
use crate::dialect::import::{Imported, ImportedHook, Misfit, Refused, Remark, Wish, gathered, hooks_file, place};
use crate::dialect::json_text::{JsonText, SPOTS_MAX, Way};
use crate::yaml::BYTES_MAX;

mod load;
mod machine;
mod rules;
mod written;

/// Longest name of a hook of another system, in a hooks file.
const NAME_CHARS_MAX: usize = 256;

/// A hook on its way: what it was, and what it is called here.
struct Hook<'a> {
    event: &'static EventName,
    definition: &'a HookDefinition,
    id: String,
}

/// A hook that was taken over.
struct Taken {
    hook: ImportedHook,
    yaml: String,
    remarks: Vec<Remark>,
    /// What `commands.allow` has to name for it.
    program: Option<String>,
    event: &'static EventName,
}

/// Takes over what is in a `hooks.json`.
///
/// # Errors
/// [`Refused`]: a file on which Kheish starts without hooks, or a hook that cannot be the same here. With
/// [`Wish::is_lenient`] hooks that are wrong or cannot be the same are left out instead.
pub(in crate::dialect) fn import(wish: &Wish<'_>) -> Result<Imported, Refused> {
    let read = HookSettings::of_file_partly(wish.bytes).map_err(|faults| refused(wish, &faults))?;
    if !read.faults.is_empty() && !wish.is_lenient {
        return Err(refused(wish, &read.faults));
    }
    let mut left_out: Vec<Misfit> = read.faults.iter().map(|fault| misfit(wish, fault)).collect();
    let mut remarks = rules::of_file(&read);
    let (mut ids, mut taken, mut unfit) = (Ids::new(wish.prefix), Vec::new(), Vec::new());
    let hooks = read.settings.by_event().flat_map(|(event, hooks)| hooks.iter().map(move |hook| (event, hook)));
    for ((event, definition), origin) in hooks.zip(&read.origins) {
        let hook = Hook { event, definition, id: ids.next(event.snake, &definition.name) };
        match take(&hook, origin) {
            Ok(one) => taken.push(one),
            Err(one) => unfit.push(one),
        }
    }
    left_out.extend(placed(wish, unfit));
    if !left_out.is_empty() && !wish.is_lenient {
        // They run there, and cannot be the same here.
        return Err(Refused { problems: left_out, notes: Vec::new(), can_be_left_out: true });
    }
    remarks.extend(rules::of_names(&taken));
    remarks.extend(rules::of_orders(&taken));
    remarks.extend(taken.iter().flat_map(|taken| taken.remarks.clone()));
    let imported = finish(wish, &taken, gathered(remarks), left_out);
    if imported.yaml.len() as u64 > BYTES_MAX {
        let reason = format!("its hooks are more than a hooks file holds, {BYTES_MAX} bytes");
        let problems = vec![Misfit { place: wish.file.to_owned(), reason }];
        let notes = vec!["split it, and import the parts".to_owned()];
        return Err(Refused { problems, notes, can_be_left_out: false });
    }
    Ok(imported)
}

fn take(hook: &Hook<'_>, origin: &Origin) -> Result<Taken, (Way, String)> {
    let told =
        |reason: String| format!("{}: {reason}", Fault::said_of(hook.event, origin.index, &hook.definition.name));
    if hook.definition.name.chars().count() > NAME_CHARS_MAX {
        let reason = format!("its name has more than {NAME_CHARS_MAX} characters, which a hooks file does not hold");
        return Err((origin.way.field("name"), told(reason)));
    }
    let run = written::run(hook.definition)
        .map_err(|(field, reason)| (origin.way.field("executor").field(field), told(reason)))?;
    let remarks = rules::of_hook(hook, origin);
    let yaml = written::hook(hook, &run, &remarks);
    let imported = ImportedHook {
        id: hook.id.clone(),
        name: hook.definition.name.clone(),
        event: hook.event.snake.to_owned(),
        runs: hook.definition.executor.kind(),
        enabled: run.is_enabled,
    };
    Ok(Taken { hook: imported, yaml, remarks, program: run.program, event: hook.event })
}

fn finish(wish: &Wish<'_>, taken: &[Taken], remarks: Vec<Remark>, left_out: Vec<Misfit>) -> Imported {
    let mut programs: Vec<String> = taken.iter().filter_map(|taken| taken.program.clone()).collect();
    programs.sort();
    programs.dedup();
    let load = load::of(taken);
    let hooks = taken.iter().map(|taken| taken.hook.clone()).collect();
    let imported = Imported { yaml: String::new(), hooks, remarks, left_out, programs, load };
    let head = format!("Hooks of Kheish, imported from {}.", wish.file);
    let yaml = hooks_file(&head, &imported, taken.iter().map(|taken| taken.yaml.as_str()));
    Imported { yaml, ..imported }
}

/// Hooks that cannot be taken over, with their places.
fn placed(wish: &Wish<'_>, unfit: Vec<(Way, String)>) -> Vec<Misfit> {
    if unfit.is_empty() {
        return Vec::new();
    }
    let text = JsonText::read(wish.bytes).ok().map(|(text, _)| text);
    let spot = |at: usize, way: &Way| text.filter(|_| at < SPOTS_MAX).map(|text| text.spot(way));
    let misfit = |(at, (way, reason)): (usize, (Way, String))| Misfit {
        place: place(wish.file, spot(at, &way), &way.to_string()),
        reason,
    };
    unfit.into_iter().enumerate().map(misfit).collect()
}

fn misfit(wish: &Wish<'_>, fault: &Fault) -> Misfit {
    Misfit { place: place(wish.file, fault.spot, &fault.way.to_string()), reason: fault.shown() }
}

/// A file that Kheish itself does not use.
fn refused(wish: &Wish<'_>, faults: &[Fault]) -> Refused {
    let mut notes: Vec<String> = Vec::new();
    for fault in faults {
        let note = format!("{}: no hook of it runs there as it is", fault.kind.consequence());
        let note = if fault.kind == FaultKind::Ambiguous { fault.kind.consequence().to_owned() } else { note };
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    let problems = faults.iter().map(|fault| misfit(wish, fault)).collect();
    Refused { problems, notes, can_be_left_out: faults.iter().all(Fault::is_of_one_event) }
}

#[cfg(test)]
mod tests;
