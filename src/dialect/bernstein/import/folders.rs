//! Scripts that Bernstein finds by where they are: `.bernstein/hooks/EVENT.sh`, and executable files in
//! `.bernstein/hooks/HOOK/` for hooks of plugins.

use super::draft::{Draft, Said, attempts, said};
use super::hooks::script;
use super::{FOLDER, Reading};
use crate::dialect::bernstein::names::{LIFECYCLE, Surface, arguments};
use crate::dialect::import::Remark;
use crate::domain::hook::OnFailure;
use crate::yaml::scalar::text;
use crate::yaml::value::Value;

/// Hooks of plugins that something waits for: the plugin of `examples/bernstein` asks about these.
const ASKED: [&str; 3] = ["on_pre_task_create", "on_pre_tool_use", "on_permission_request"];
/// Seconds that a file has here. There it has all the time in the world.
const TIMEOUT_S: f64 = 30.0;

/// A listing of the folder.
pub(super) fn read_all(value: &Value<'_>, reading: &mut Reading) {
    let _ = value.list(|path| {
        let path = path.read(text("the path of a script"))?;
        read(&path, reading);
        Some(())
    });
}

/// A script, by its path in the folder. Of other files Bernstein takes no notice.
pub(super) fn read(path: &str, reading: &mut Reading) {
    match path.split_once('/') {
        None => lifecycle(path, reading),
        Some((hook, file)) if !file.contains('/') && arguments(hook).is_some() => of_plugin(hook, file, reading),
        Some(_) => {}
    }
}

fn lifecycle(file: &str, reading: &mut Reading) {
    let stem = file.strip_suffix(".sh").or_else(|| file.strip_suffix(".py"));
    let Some(event) = stem.filter(|stem| LIFECYCLE.contains(stem)) else { return };
    let path = format!("{FOLDER}/{file}");
    let draft = script(event, &path, reading);
    // Apart from a script of the same name that the file names.
    reading.add(Draft { short: format!("found-{file}"), ..draft });
}

fn of_plugin(hook: &str, file: &str, reading: &mut Reading) {
    let path = format!("{FOLDER}/{hook}/{file}");
    let run = ("command", reading.command(&[&path]));
    let mut draft = Draft::new(format!("plugin.{hook}"), file, Surface::Plugin.kind(hook), run).within(TIMEOUT_S);
    draft.name = path;
    hook.clone_into(&mut draft.event);
    draft.gate = ASKED.contains(&hook).then_some(OnFailure::Open);
    draft.retry = attempts(1);
    draft.general = general(draft.gate.is_some());
    reading.add(draft);
}

fn general(is_gate: bool) -> Vec<Said> {
    let mut general = vec![
        said(
            format!(
                "Bernstein gives such a file no time limit, and runs each once in a process. Here it has {TIMEOUT_S} s, and runs for every event"
            ),
            "`timeout` changes the one, `once_per` the other",
        ),
        said(
            "Bernstein puts its own folders in place of `${PLUGIN_ROOT}` and the like in arguments. Here they stay as they are",
            Remark::NOTHING,
        ),
    ];
    if !is_gate {
        general.push(said(
            "Nobody waits for such a file here, so that exit 2 stops nothing, and none gets what another has said",
            "`mode: gate` makes a gate of it, which runs when it is asked",
        ));
    }
    general
}
