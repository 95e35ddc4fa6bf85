//! `hookfleet topology`.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Subcommand;

use super::exit::{Exit, usage};
use super::output;
use crate::amqp::connection::{connect, vhost};
use crate::amqp::declare::{check, declare, differing_bindings};
use crate::amqp::management::{Management, ManagementError, NodeFound};
use crate::amqp::policy::harm::{harms, untold};
use crate::amqp::policy::{Policy, compare, policies};
use crate::amqp::topology::Topology;
use crate::config::{Backend, BrokerServer, Settings};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print what the fleet needs on the broker, and the commands that set the policies it is run best with
    Print,
    /// Declare exchanges, queues and bindings, and set the policies; what exists stays as it is
    Apply,
    /// Compare the broker with it; nothing is created
    Check,
}

pub(super) async fn run(settings: &Settings, command: Command) -> anyhow::Result<ExitCode> {
    let topology = Topology::new(&settings.namespace);
    let policies = policies(&settings.namespace, settings.dead_letter_retention);
    let broker = match &settings.backend {
        Backend::Servers { broker, .. } => Some(broker.as_ref()),
        Backend::Embedded { .. } => None,
    };
    if let Command::Print = command {
        let vhost = broker.map_or_else(|| Ok("/".to_owned()), vhost_of)?;
        output::out(topology.to_string().trim_end());
        for policy in &policies {
            output::out(&format!("policy: {}", policy.command(&vhost)));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(broker) = broker else {
        return Err(usage("no broker is configured: set broker.url (HOOKFLEET_BROKER_URL)"));
    };
    if let Command::Apply = command {
        apply(broker, &topology, &policies).await
    } else {
        compare_all(broker, &topology, &policies).await
    }
}

fn vhost_of(broker: &BrokerServer) -> anyhow::Result<String> {
    let first = broker.urls.first().ok_or_else(|| anyhow!("broker.url names no broker"))?;
    vhost(first.expose()).map_err(|error| anyhow!(error))
}

async fn apply(broker: &BrokerServer, topology: &Topology, policies: &[Policy]) -> anyhow::Result<ExitCode> {
    let connection = connect(broker, "hookfleet topology apply").await?;
    let differences = declare(&connection, topology).await.map_err(|error| anyhow!(error))?;
    for difference in &differences {
        output::out(difference);
    }
    let _ = connection.close(200, "bye".into()).await;
    let (exchanges, queues, bindings) = (topology.exchanges.len(), topology.queues.len(), topology.bindings.len());
    output::out(&format!("{exchanges} exchanges, {queues} queues and {bindings} bindings are there"));
    let management = Management::new(broker).await.map_err(|error| anyhow!(error))?;
    for policy in policies {
        match management.set_policy(policy).await {
            Ok(()) => output::out(&format!("policy {} is set", policy.name)),
            Err(error) => return Ok(by_hand(&error, policies, &vhost_of(broker)?)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What to run where there is no management API. A failure, since it is not done yet.
fn by_hand(error: &ManagementError, policies: &[Policy], vhost: &str) -> ExitCode {
    output::err(&format!("error: {error}"));
    output::err("or set the policies by hand, on any node of the broker:");
    for policy in policies {
        output::out(&policy.command(vhost));
    }
    match error {
        ManagementError::Away(_) => Exit::ServerAway.into(),
        ManagementError::Refused(_) => Exit::Failed.into(),
    }
}

async fn compare_all(broker: &BrokerServer, topology: &Topology, policies: &[Policy]) -> anyhow::Result<ExitCode> {
    let connection = connect(broker, "hookfleet topology check").await?;
    let mut findings = check(&connection, topology).await.map_err(|error| anyhow!(error))?;
    let _ = connection.close(200, "bye".into()).await;
    let management = Management::new(broker).await.map_err(|error| anyhow!(error))?;
    let mut compared = vec![format!("{} exchanges and {} queues", topology.exchanges.len(), topology.queues.len())];
    let answers = async {
        tokio::try_join!(management.overview(), management.nodes(), management.bindings(), management.in_force())
    };
    match answers.await {
        Ok((overview, nodes, bindings, found)) => {
            output::out(&format!("RabbitMQ {}, {} nodes", overview.rabbitmq_version, nodes.len()));
            findings.extend(nodes.iter().flat_map(NodeFound::troubles));
            findings.extend(differing_bindings(topology, &bindings));
            findings.extend(compare(policies, &found.policies, &found.queues));
            findings.extend(harms(topology, policies, &found).into_iter().map(|harm| format!("PROBLEM: {harm}")));
            if untold(topology, &found) > 0 {
                output::err("not all queues tell yet which policies hold for them: check again in some seconds");
            }
            compared.push(format!("{} bindings and {} policies", topology.bindings.len(), policies.len()));
        }
        Err(error) => output::err(&format!("bindings and policies NOT checked: {error}")),
    }
    for finding in &findings {
        output::out(finding);
    }
    output::out(&format!("{} checked, {} findings", compared.join(", "), findings.len()));
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
