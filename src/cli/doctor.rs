//! `hookfleet doctor`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::connect::tell_if_slow;
use super::output::{self, Colour};
use super::place::Place;
use crate::catalog::variable;
use crate::config::Settings;
use crate::doctor::{Finding, Load, examine, exit_code, gather};

/// Exit code 0: nothing is wrong; 1: there are problems; 3: something could not be looked at.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The load to judge Redis's memory by: invocations a second, such as 500/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<f64>,
}

pub(super) async fn run(settings: &Settings, doctor: &Doctor) -> anyhow::Result<ExitCode> {
    let load = doctor.rate.map(|rate| Load { rate, window: settings.claims.window });
    let facts = gather::facts(settings, &variable);
    let facts = tell_if_slow(facts, || format!("waiting for answers of {}", Place::of(settings))).await;
    let findings = examine(&facts, load);
    output::answer(&json!({ "items": findings }), || shown(&findings))?;
    Ok(ExitCode::from(exit_code(&findings)))
}

/// Every finding: a line or two in a pipe, and in columns that fit on a terminal.
fn shown(findings: &[Finding]) -> String {
    if !std::io::stdout().is_terminal() {
        return findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    }
    let row = |finding: &Finding| {
        let advice = finding.advice.as_ref().map(|advice| format!("\n-> {advice}")).unwrap_or_default();
        vec![finding.severity.word().to_owned(), finding.subject.to_owned(), format!("{}{advice}", finding.found)]
    };
    let table = output::table(&["", "", ""], findings.iter().map(row));
    let coloured = table.trim_start().lines().map(|line| match line.split_once(' ') {
        Some((word @ "PROBLEM", rest)) => format!("{} {rest}", Colour::Red.wanted(word)),
        Some((word @ ("warning" | "unknown"), rest)) => format!("{} {rest}", Colour::Yellow.wanted(word)),
        Some((word @ "fine", rest)) => format!("{} {rest}", Colour::Green.wanted(word)),
        _ => line.to_owned(),
    });
    coloured.collect::<Vec<_>>().join("\n")
}

fn rate(text: &str) -> anyhow::Result<f64> {
    match text.strip_suffix("/s").unwrap_or(text).trim().parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => bail!("expected a rate such as 500/s, found \"{text}\""),
    }
}
