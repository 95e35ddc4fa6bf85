//! `hookfleet doctor`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::output;
use crate::catalog::variable;
use crate::config::Settings;
use crate::doctor::{Load, examine, exit_code, gather};

/// Exit code 0: nothing is wrong; 1: there are problems; 3: something could not be looked at.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The load to judge Redis's memory by: invocations a second, such as 500/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<f64>,
}

pub(super) async fn run(settings: &Settings, doctor: &Doctor) -> anyhow::Result<ExitCode> {
    let load = doctor.rate.map(|rate| Load { rate, window: settings.claims.window });
    let findings = examine(&gather::facts(settings, &variable).await, load);
    let lines = || findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    output::answer(&json!({ "items": findings }), lines)?;
    Ok(ExitCode::from(exit_code(&findings)))
}

fn rate(text: &str) -> anyhow::Result<f64> {
    match text.strip_suffix("/s").unwrap_or(text).trim().parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => bail!("expected a rate such as 500/s, found \"{text}\""),
    }
}
