//! `hookfleet topology`.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Subcommand;
use lapin::Connection;
use serde_json::json;

use super::connect::tell_if_slow;
use super::exit::{Exit, usage};
use super::output;
use crate::amqp::connection::{ConnectError, connect, shown, vhost};
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
        let commands: Vec<String> = policies.iter().map(|policy| policy.command(&vhost)).collect();
        let text = topology.to_string();
        output::answer(&json!({ "items": text.lines().collect::<Vec<_>>(), "policies": commands }), || {
            let policies = commands.iter().map(|command| format!("policy: {command}"));
            std::iter::once(text.trim_end().to_owned()).chain(policies).collect::<Vec<_>>().join("\n")
        })?;
        return Ok(Exit::Done.into());
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

/// A connection; what it waits for is told.
async fn reach(broker: &BrokerServer, name: &str) -> Result<Connection, ConnectError> {
    let nodes: Vec<String> = broker.urls.iter().map(|url| shown(url.expose())).collect();
    tell_if_slow(connect(broker, name), || format!("waiting for the broker at {}", nodes.join(", "))).await
}

async fn apply(broker: &BrokerServer, topology: &Topology, policies: &[Policy]) -> anyhow::Result<ExitCode> {
    let connection = reach(broker, "hookfleet topology apply").await?;
    let differences = declare(&connection, topology).await.map_err(|error| anyhow!(error))?;
    let _ = connection.close(200, "bye".into()).await;
    let (exchanges, queues, bindings) = (topology.exchanges.len(), topology.queues.len(), topology.bindings.len());
    let mut lines = differences;
    lines.push(format!("{exchanges} exchanges, {queues} queues and {bindings} bindings are there"));
    let management = Management::new(broker).await.map_err(|error| anyhow!(error))?;
    for policy in policies {
        match management.set_policy(policy).await {
            Ok(()) => lines.push(format!("policy {} is set", policy.name)),
            Err(error) => {
                output::err(&lines.join("\n"));
                return by_hand(&error, policies, &vhost_of(broker)?);
            }
        }
    }
    output::answer(&json!({ "items": lines }), || lines.join("\n"))?;
    Ok(Exit::Done.into())
}

/// What to run where there is no management API. A failure, since it is not done yet.
fn by_hand(error: &ManagementError, policies: &[Policy], vhost: &str) -> anyhow::Result<ExitCode> {
    output::err(&format!("error: {error}"));
    output::err("or set the policies by hand, on any node of the broker:");
    let commands: Vec<String> = policies.iter().map(|policy| policy.command(vhost)).collect();
    output::answer(&json!({ "policies": commands }), || commands.join("\n"))?;
    Ok(match error {
        ManagementError::Away(_) => Exit::ServerAway.into(),
        ManagementError::Refused(_) => Exit::Failed.into(),
    })
}

async fn compare_all(broker: &BrokerServer, topology: &Topology, policies: &[Policy]) -> anyhow::Result<ExitCode> {
    let connection = reach(broker, "hookfleet topology check").await?;
    let mut findings = check(&connection, topology).await.map_err(|error| anyhow!(error))?;
    let _ = connection.close(200, "bye".into()).await;
    let management = Management::new(broker).await.map_err(|error| anyhow!(error))?;
    let mut product = None;
    let mut compared = vec![format!("{} exchanges and {} queues", topology.exchanges.len(), topology.queues.len())];
    let answers = async {
        tokio::try_join!(management.overview(), management.nodes(), management.bindings(), management.in_force())
    };
    match answers.await {
        Ok((overview, nodes, bindings, found)) => {
            product = Some(format!("RabbitMQ {}, {} nodes", overview.rabbitmq_version, nodes.len()));
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
    let answer = json!({ "broker": product, "checked": compared, "items": findings });
    output::answer(&answer, || {
        let count = format!("{} checked, {} findings", compared.join(", "), findings.len());
        product.iter().chain(&findings).chain([&count]).map(String::as_str).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
