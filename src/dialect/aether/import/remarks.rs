//! What is not the same here, or not as a reader of a document may think.

use super::document::Document;
use super::{EXCHANGE, Taken, executor};
use crate::dialect::aether::event::{HookType, Scope};
use crate::dialect::import::Remark;
use crate::dialect::json_text::Way;

pub(super) fn of(document: &Document<'_>, taken: &[Taken<'_>], unknown: &[Way]) -> Vec<Remark> {
    let mut remarks = general(taken);
    for way in unknown {
        let change = format!("Aether passes over `{way}`, which is no hook of it");
        remarks.push(Remark {
            hooks: Vec::new(),
            events: Vec::new(),
            change,
            advice: "look at what it was meant to do".to_owned(),
            is_general: false,
        });
    }
    remarks.extend(taken.iter().flat_map(|taken| of_one(document, taken)));
    remarks
}

/// What is so for all of a kind.
fn general(taken: &[Taken<'_>]) -> Vec<Remark> {
    let of = |which: &dyn Fn(&Taken<'_>) -> bool, change: &str, advice: &str| {
        let those = taken.iter().filter(|taken| which(taken));
        let hooks: Vec<String> = those.clone().map(|taken| taken.hook.id.clone()).collect();
        let mut events: Vec<String> = those.map(|taken| taken.hook.event.clone()).collect();
        events.sort();
        events.dedup();
        let (change, advice) = (change.to_owned(), advice.to_owned());
        (!hooks.is_empty()).then_some(Remark { hooks, events, change, advice, is_general: true })
    };
    let is = |hook_type: HookType| move |taken: &Taken<'_>| taken.binding.hook_type == hook_type;
    let all = [
        of(
            &|_| true,
            "Aether gives a hook no time limit, no second try and no say in the run. Here it has 10 s and one try, its failure is \
             a letter and an event aether.errsink.warning, and the run goes on as there",
            "`timeout` and `retry` of a hook change that",
        ),
        of(&is(HookType::Error), "onError comes for the phase Error and for Timeout", Remark::NOTHING),
        of(
            &is(HookType::Exit),
            "onExit is published behind the hook of the phase. Both run as soon as there is room, so that it may end first",
            Remark::NOTHING,
        ),
        of(
            &|taken| taken.binding.scope == Scope::Task,
            "Events of a task do not name the workflow: the hook runs for a task of this name and this template in any",
            "give such tasks names that differ",
        ),
    ];
    all.into_iter().flatten().collect()
}

fn of_one(document: &Document<'_>, taken: &Taken<'_>) -> Vec<Remark> {
    let Taken { binding, hook, is_assigned, .. } = taken;
    let mut said: Vec<(String, String)> = Vec::new();
    if *is_assigned && let Some(template) = document.template(binding.template) {
        let executor = executor(template);
        said.push((
            format!("The template {} names no program and no URL, but the executor {executor:?}: the hook publishes a TaskAssignment to the exchange {EXCHANGE}, under the routing key {executor:?}", hook.name),
            format!("say with `--runs FILE` what runs it, or declare {EXCHANGE} and bind the queue of workers that have this executor"),
        ));
    }
    let name = binding.hook_type.name();
    match (binding.scope, binding.hook_type) {
        (Scope::Workflow, HookType::Suspend | HookType::Resume) => {
            said.push((
                format!("A workflow is not suspended: {name} of `spec.hooks` never comes there"),
                "drop it".to_owned(),
            ));
        }
        (Scope::Task, HookType::Cancel) => {}
        (Scope::Task, HookType::Exit) if binding.of_container => said.push((
            "The task runs a dag or a loop: its onExit comes when the workflow is cancelled, and else never".to_owned(),
            Remark::NOTHING.to_owned(),
        )),
        (Scope::Task, _) if binding.of_container => {
            said.push((
                format!("The task runs a dag or a loop: its {name} never comes there"),
                "move it to a task in there".to_owned(),
            ));
        }
        _ => {}
    }
    if matches!(binding.hook_type, HookType::Suspend | HookType::Resume | HookType::Cancel) {
        let change = format!("The engine has {name}, and the published JSON Schema of documents refuses it");
        said.push((change, Remark::NOTHING.to_owned()));
    }
    for field in &binding.unknown {
        said.push((
            format!("Aether passes over the field `{field}` of a hook, and so does this import"),
            "look at what it was meant to do".to_owned(),
        ));
    }
    let remark = |(change, advice)| Remark {
        hooks: vec![hook.id.clone()],
        events: vec![hook.event.clone()],
        change,
        advice,
        is_general: false,
    };
    said.into_iter().map(remark).collect()
}
