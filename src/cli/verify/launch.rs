//! How a process of this program is started on the user's own settings, with some of them replaced.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::config::{Overrides, variables};

/// What a child is started with. Settings go as variables, since everybody on the machine may read arguments.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Launch {
    program: PathBuf,
    /// The settings file, if one was named.
    config: Option<PathBuf>,
    settings: Vec<(String, String)>,
    subcommand: &'static str,
}

impl Launch {
    /// Of this program, with the settings that the user gave as flags. The environment and the working folder are
    /// inherited.
    pub(in crate::cli) fn new(config: Option<PathBuf>, flags: &Overrides) -> std::io::Result<Self> {
        let program = std::env::current_exe()?;
        Ok(Self { program, config, settings: flags.0.clone(), subcommand: "worker" })
    }

    /// Runs this.
    pub(super) fn subcommand(self, subcommand: &'static str) -> Self {
        Self { subcommand, ..self }
    }

    /// Whatever the user said, this setting is so.
    pub(super) fn set(mut self, path: &str, value: &str) -> Self {
        self.settings.retain(|(said, _)| said != path);
        self.settings.push((path.to_owned(), value.to_owned()));
        self
    }

    /// A process that serves on this address.
    pub(super) fn command(&self, address: SocketAddr) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(self.subcommand);
        if let Some(config) = &self.config {
            command.env("HOOKFLEET_CONFIG", config);
        }
        let mut launch = self.clone();
        launch = launch.set("http.bind", &address.to_string());
        for (path, value) in &launch.settings {
            let names = variables(path);
            for name in &names {
                command.env_remove(name);
            }
            match names.first() {
                Some(name) if !value.is_empty() => command.env(name, value),
                _ => command.arg("--set").arg(format!("{path}={value}")), // an empty variable counts as not set
            };
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(launch: &Launch, expected: &[&str]) {
        let command = launch.command("127.0.0.1:1".parse().unwrap());
        let arguments = command.get_args().map(|argument| argument.to_str().unwrap().to_owned());
        let variables = command.get_envs().map(|(name, value)| match value {
            Some(value) => format!("{}={}", name.to_str().unwrap(), value.to_str().unwrap()),
            None => format!("-{}", name.to_str().unwrap()),
        });
        assert_eq!(arguments.chain(variables).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn settings_go_through() {
        let launch = |config: Option<&str>, flags: &[(&str, &str)]| {
            let flags = flags.iter().map(|&(path, value)| (path.to_owned(), value.to_owned())).collect();
            Launch::new(config.map(Into::into), &Overrides(flags)).unwrap()
        };
        check(&launch(None, &[]), &["worker", "HOOKFLEET_HTTP_BIND=127.0.0.1:1"]);
        check(
            &launch(Some("a.yaml"), &[]).subcommand("up"),
            &["up", "HOOKFLEET_CONFIG=a.yaml", "HOOKFLEET_HTTP_BIND=127.0.0.1:1"],
        );
        let said =
            [("namespace", "theirs"), ("http.bind", "[::1]:9"), ("egress.allow", ""), ("broker.url", "amqp://b")];
        check(
            &launch(None, &said).set("namespace", "ours").set("log.level", "warn"),
            &[
                "worker",
                "--set",
                "egress.allow=",
                "HOOKFLEET_BROKER_URL=amqp://b",
                "-HOOKFLEET_EGRESS_ALLOW",
                "HOOKFLEET_HTTP_BIND=127.0.0.1:1",
                "-HOOKFLEET_LOG",
                "HOOKFLEET_LOG_LEVEL=warn",
                "HOOKFLEET_NAMESPACE=ours",
            ],
        );
    }
}
