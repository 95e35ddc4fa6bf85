//! `hookfleet topology`.

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Subcommand;

use super::output;
use crate::amqp::connection::connect;
use crate::amqp::topology::{Topology, check};
use crate::config::{Backend, Settings};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print what the fleet needs on the broker, and the policies that it is run best with
    Print,
    /// Compare the broker with it; nothing is created
    Check,
}

pub(super) async fn run(settings: &Settings, command: Command) -> anyhow::Result<ExitCode> {
    let topology = Topology::new(&settings.namespace);
    match command {
        Command::Print => {
            output::out(&topology.to_string());
            Ok(ExitCode::SUCCESS)
        }
        Command::Check => {
            let Backend::Servers { broker, .. } = &settings.backend else {
                bail!("no broker is configured: set broker.url (HOOKFLEET_BROKER_URL)");
            };
            let connection = connect(broker, "hookfleet topology check").await?;
            let findings = check(&connection, &topology).await.map_err(|error| anyhow!(error))?;
            for finding in &findings {
                output::out(finding);
            }
            let (exchanges, queues) = (topology.exchanges.len(), topology.queues.len());
            output::out(&format!("{exchanges} exchanges and {queues} queues checked, {} findings", findings.len()));
            Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
