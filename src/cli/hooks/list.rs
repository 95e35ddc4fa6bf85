//! `hookfleet hooks list`.

use clap::Args;
use serde_json::json;

use crate::catalog::api_types::{self, HookView};
use crate::cli::output;
use crate::domain::hook::Hook;
use crate::domain::matching::HookSet;
use crate::domain::pattern::Pattern;
use crate::yaml::scalar::show_duration;

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    /// [default: the hooks of the settings]
    pub(super) file: Option<std::path::PathBuf>,
}

const HEAD: [&str; 7] = ["ID", "ON", "RUNS", "LANE", "TIMEOUT", "ATTEMPTS", "STATE"];

pub(super) fn run(hooks: &HookSet) -> anyhow::Result<()> {
    let items: Vec<HookView> = hooks.hooks().iter().map(|hook| HookView::of(hook)).collect();
    let answer = json!({ "revision": hooks.revision().to_string(), "items": items });
    output::answer(&answer, || if items.is_empty() { "no hooks".to_owned() } else { table(hooks) })
}

fn table(hooks: &HookSet) -> String {
    output::table(&HEAD, hooks.hooks().iter().map(|hook| row(hook).to_vec()))
}

fn row(hook: &Hook) -> [String; HEAD.len()] {
    [
        hook.id.to_string(),
        patterns(hook).join(", "),
        hook.action.target(),
        hook.lane.name().to_owned(),
        show_duration(hook.timeout),
        hook.retry.attempts.to_string(),
        api_types::state(hook).to_owned(),
    ]
}

fn patterns(hook: &Hook) -> Vec<&str> {
    hook.on.iter().map(Pattern::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Terms, parse};

    #[test]
    fn hooks_are_shown_without_secrets() {
        let text = "version: 1\nhooks:\n  - { id: a, on: [task.*, b], run: { http: { url: 'https://x.example/hunter2' } } }\n  - \
                    { id: longer-name, on: '**', lane: slow, timeout: 90s, retry: { attempts: 3 }, run: { command: { argv: [echo, hunter2] } } }\n";
        let terms = Terms { hint_max: std::time::Duration::from_secs(1), env: &|_| None, egress: &[], callbacks: None };
        let hooks = parse(text, "hooks.yaml", &terms).unwrap().hooks;
        let expected = "\
ID           ON         RUNS               LANE     TIMEOUT  ATTEMPTS  STATE
a            task.*, b  https://x.example  default  10s      8         active
longer-name  **         command:echo       slow     90s      3         active";
        assert_eq!(table(&hooks), expected);
    }
}
