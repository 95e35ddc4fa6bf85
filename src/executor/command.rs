//! Runs a hook by starting a program with the payload on its stdin: a transport, which hands back how the program ended.

use std::ffi::OsString;
use std::io;

use super::process::{self, Ended, Program};
use super::{Attempt, secrets, shim, shortage};
use crate::config;
use crate::domain::contract::{Body, Raw, Reply};
use crate::domain::excerpt::{excerpt, with_excerpt};
use crate::domain::failure::Class;
use crate::domain::hook::{CommandAction, Fences};
use crate::domain::outcome::Outcome;
use crate::domain::secret::Secret;

/// What is kept of each output; the rest is read and dropped, so that the program is never stopped by a full pipe.
const OUTPUT_BYTES_MAX: usize = 128 * 1024;

/// The command executor: what may be run, and what programs inherit.
#[derive(Debug)]
pub(super) struct Commands {
    allow: Vec<String>,
    inherited: Vec<(String, Secret<OsString>)>,
    /// The program that starts others, if there is one.
    shim: Option<OsString>,
}

impl Commands {
    pub(super) fn new(settings: &config::Commands) -> Self {
        let inherit = |name: &String| std::env::var_os(name).map(|value| (name.clone(), Secret::new(value)));
        let shim = settings.shim.as_ref().map(Into::into).or_else(shim::own);
        Self { allow: settings.allow.clone(), inherited: settings.env.iter().filter_map(inherit).collect(), shim }
    }

    /// Runs the program. Ends at the attempt's deadline, or up to [`process::END`] after it if the program does not go.
    pub(super) async fn run(&self, action: &CommandAction, attempt: &Attempt<'_>) -> Result<Reply, Outcome> {
        let program = action.argv.first().map_or("", String::as_str);
        if !self.allow.iter().any(|name| name == program) {
            return Err(Outcome::never(Class::TargetBlocked, self.refusal(program)));
        }
        let (start, late) = (|| async { self.start(action, attempt) }, || attempt.timed_out(""));
        let (hook, is_short) = (attempt.hook.id.as_str(), shortage::is_shortage_of_processes);
        let running = match shortage::outlasted(hook, attempt.deadline, start, is_short, late).await? {
            Ok(running) => running,
            Err(error) => return Err(Outcome::later(cannot_start(program, action, &error).await)),
        };
        let ended = running.finish(&attempt.exchange.body, attempt.deadline, OUTPUT_BYTES_MAX).await;
        let process::Finished { ended, out, err } = ended;
        let said = || {
            let is_silent = err.trim_ascii().is_empty();
            excerpt(if is_silent { &out } else { &err }, self.secrets(action))
        };
        let failed = match ended {
            Ended::Exited(code) => {
                if let Some(why) = cannot_run(action, code, &said) {
                    return Err(Outcome::later(format!("cannot start `{program}`: {why}")));
                }
                let stdout = if attempt.exchange.reads_body { whole(out) } else { Body::Beginning(out) };
                return attempt.read(Raw::Exit { code, stdout, stderr: err }, || self.secrets(action));
            }
            Ended::TimedOut => attempt.timed_out(&said()),
            Ended::Killed(signal) => Outcome::later(with_excerpt(format!("killed by signal {signal}"), &said())),
            Ended::Missing => Outcome::later(format!("the program `{program}` was not found on this worker")),
            Ended::Refused(error) => Outcome::later(format!("cannot start `{program}`: {error}")),
            Ended::Unwatched => Outcome::later(with_excerpt("its watcher ended without a word".to_owned(), &said())),
        };
        Err(failed)
    }

    /// What the program could repeat to us and no error may show. Most of what is inherited (`PATH`, `HOME`) is no secret
    /// and would only tear holes into paths.
    fn secrets(&self, action: &CommandAction) -> Vec<String> {
        let inherited = self.inherited.iter().filter(|(name, _)| names_a_secret(name));
        let inherited = inherited.map(|(_, value)| value.expose().to_string_lossy().into_owned());
        let own = action.env.values().map(|value| value.expose().clone());
        secrets::long_enough(own.chain(inherited)).collect()
    }

    fn refusal(&self, program: &str) -> String {
        if self.allow.is_empty() {
            format!("commands are off: to run `{program}`, set commands.allow / HOOKFLEET_COMMANDS_ALLOW")
        } else {
            format!("the program `{program}` is not named in commands.allow / HOOKFLEET_COMMANDS_ALLOW")
        }
    }

    fn start(&self, action: &CommandAction, attempt: &Attempt<'_>) -> io::Result<process::Running> {
        let Some(shim) = &self.shim else {
            let missing = "set commands.shim / HOOKFLEET_COMMANDS_SHIM to a hookfleet program: it starts them";
            return Err(io::Error::new(io::ErrorKind::Unsupported, missing));
        };
        let exchange = &attempt.exchange;
        let mut program = Program::new(shim, &action.fences, action.cwd.as_deref());
        program.args(&action.argv).args(exchange.args.iter().map(AsRef::as_ref));
        program
            .envs(self.inherited.iter().map(|(name, value)| (name, value.expose())))
            .envs(action.env.iter().map(|(name, value)| (name, value.expose())))
            .envs(exchange.env.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
        program.ends_with_output(exchange.ends_with_output);
        program.start(exchange.body.len())
    }
}

/// A program's output, as an answer.
fn whole(out: Vec<u8>) -> Body {
    if out.len() >= OUTPUT_BYTES_MAX {
        return Body::TooLarge { beginning: out, bytes_max: OUTPUT_BYTES_MAX };
    }
    Body::Whole(out)
}

/// Why the fences could not be put up around the program, if that is what its exit code says.
fn cannot_run(action: &CommandAction, code: i32, said: &impl Fn() -> String) -> Option<String> {
    if code != i32::from(shim::CANNOT_RUN) || *action.fences == Fences::default() {
        return None;
    }
    said().strip_prefix(shim::CANNOT_RUN_SAID).map(str::to_owned)
}

async fn cannot_start(program: &str, action: &CommandAction, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::NotFound {
        return format!("cannot start `{program}`: {error}");
    }
    match &action.cwd {
        Some(folder) if !tokio::fs::try_exists(folder).await.unwrap_or(false) => {
            format!("the working folder {} does not exist on this worker", folder.display())
        }
        _ => format!("the program of commands.shim, which starts `{program}`, was not found on this worker"),
    }
}

fn names_a_secret(variable: &str) -> bool {
    let name = variable.to_ascii_uppercase();
    ["AUTH", "CREDENTIAL", "KEY", "PASS", "PRIVATE", "SECRET", "TOKEN"].iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_secrets_are_not_shown() {
        let inherited = [("GITHUB_TOKEN", "inherited-1"), ("HOME", "/home/me"), ("MyApiKey", "inherited-2")];
        let inherited = inherited.map(|(name, value)| (name.to_owned(), Secret::new(OsString::from(value)))).to_vec();
        let commands = Commands { allow: vec![], inherited, shim: None };
        let mut action = CommandAction::plain(&["sh"]);
        action.env.insert("TOKEN".to_owned(), Secret::new("s3cret".to_owned()));
        assert_eq!(commands.secrets(&action), ["s3cret", "inherited-1", "inherited-2"]);
        assert!(!format!("{commands:?}").contains("inherited-1"));
    }
}
