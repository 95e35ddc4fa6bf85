//! Settings as those see them who may not see what hooks run.

use serde_json::Value;
use url::Url;

use super::{Executor, HookDefinition, HookSettings};

impl HookSettings {
    /// The bare settings without commands, templates and the paths of URLs, as Kheish shows them to readers.
    #[must_use]
    pub fn redacted(&self) -> Value {
        let hooks = self.hooks.iter().map(|(event, hooks)| (*event, hooks.iter().map(redacted).collect())).collect();
        Self { hooks }.to_value()
    }
}

fn redacted(hook: &HookDefinition) -> HookDefinition {
    let mut hook = hook.clone();
    match &mut hook.executor {
        Executor::Command { command, .. } => "[redacted hook command]".clone_into(command),
        Executor::Http { url, .. } => *url = origin(url),
        Executor::Prompt { template, system_prompt, .. } => {
            "[redacted hook prompt template]".clone_into(template);
            *system_prompt = None;
        }
        Executor::Agent { template, system_prompt, .. } => {
            "[redacted hook agent template]".clone_into(template);
            *system_prompt = None;
        }
        Executor::Callback { .. } => {}
    }
    hook
}

/// Scheme, host and port. Settings have no URL without them.
fn origin(url: &str) -> String {
    Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}
