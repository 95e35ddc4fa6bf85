//! `hookfleet dead-letters replay`: a preview, a question, and the way through.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::client::Client;
use super::{Which, ids};
use crate::cli::operator;
use crate::cli::output::{self, table, time};
use crate::domain::browse::Group;
use crate::domain::failure::Class;
use crate::domain::id::LetterId;
use crate::domain::time::millis;
use crate::operations::api_types::{Preview, ReplayAsked};
use crate::operations::progress::Progress;
use crate::operations::replay::Manner;
use crate::telemetry::now_ms;

/// Exit code of what the person at the terminal stopped, as shells have it.
const INTERRUPTED: i32 = 130;
/// Between two looks at a job.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(in crate::cli) struct Replay {
    ids: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// Every letter that is open
    #[arg(long)]
    all: bool,
    /// Say what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// At most so many letters a second, such as 50/s
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<f64>,
    /// Let this hook run them instead of their own
    #[arg(long, value_name = "ID", conflicts_with = "force")]
    to_hook: Option<String>,
    /// Run them although they have finished, each under an Idempotency-Key of its own
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Replay {
    /// Whether nothing is sent.
    pub(super) const fn only_reads(&self) -> bool {
        self.dry_run
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    rate.ok_or_else(|| format!("expected a number of letters a second, such as 50/s, found \"{text}\""))
}

pub(super) async fn run(client: &Client, replay: Replay, window: Duration) -> anyhow::Result<ExitCode> {
    let Replay { ids: named, which, all, dry_run, rate, to_hook, force, yes } = replay;
    let json = output::is_json();
    let asked = ReplayAsked {
        ids: ids(&named),
        filter: Some(which.asked()),
        all,
        force,
        to_hook,
        rate,
        dry_run,
        by: Some(operator()),
    };
    Manner::new(&operator(), asked.to_hook.as_deref(), asked.rate)?; // before anything is asked of anyone
    let preview = client.preview(&asked).await?;
    if dry_run {
        output::answer(&preview, || shown(&preview, window))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let [id] = asked.ids.as_slice()
        && !json
        && asked.rate.is_none()
    {
        return one(client, &asked, id).await;
    }
    if !json {
        output::err(&shown(&preview, window));
    }
    if preview.letters == 0 || !preview.unknown.is_empty() {
        // Nothing is sent of what was not meant.
        return Ok(if preview.unknown.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let is_meant = yes || !named.is_empty(); // who names letters means them
    if !is_meant && !confirmed(&format!("Send these {} letters out again?", preview.letters))? {
        return Ok(ExitCode::FAILURE);
    }
    let progress = followed(client, &asked).await?;
    let is_whole = progress.failed == 0 && progress.ended.is_none();
    output::answer(&progress, || ended(&progress, asked.force))?;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One letter: no way to follow, but the reason if it cannot be sent.
async fn one(client: &Client, asked: &ReplayAsked, id: &LetterId) -> anyhow::Result<ExitCode> {
    let asked = ReplayAsked { ids: Vec::new(), filter: None, ..asked.clone() };
    let sent = client.replay(&asked, id).await?;
    output::answer(&sent, || format!("{id} replayed as generation {}", sent.generation))?;
    Ok(ExitCode::SUCCESS)
}

/// Asks the person at the terminal. Without one, a program has to say that it means it.
pub(super) fn confirmed(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is at the terminal to say yes to: {question} Give --yes");
    }
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Letters by cause, as a table.
pub(super) fn causes(groups: &[Group]) -> String {
    let row = |group: &Group| {
        vec![
            group.fingerprint.to_string(),
            group.open.to_string(),
            group.replaying.to_string(),
            group.resolved.to_string(),
            group.class.name(),
            group.hook.as_deref().unwrap_or("-").to_owned(),
            time(group.first_ms),
            time(group.last_ms),
            group.error.to_string(),
        ]
    };
    let head = ["GROUP", "OPEN", "REPLAYING", "RESOLVED", "CLASS", "HOOK", "FIRST", "LAST", "ERROR"];
    table(&head, groups.iter().map(row))
}

/// A preview. After `window` nobody remembers which hooks have finished for an event.
fn shown(preview: &Preview, window: Duration) -> String {
    let mut lines = Vec::new();
    if !preview.groups.is_empty() {
        lines.push(causes(&preview.groups));
    }
    lines.push(format!("{} letters to send", preview.letters));
    if preview.groups.iter().any(|group| group.class == Class::HookRemoved) {
        lines.push("Hooks of some are not in the catalog: put them back, or give --to-hook ID.".to_owned());
    }
    let old = |group: &Group| group.hook.is_none() && now_ms().saturating_sub(group.first_ms) > millis(window);
    if preview.groups.iter().any(old) {
        lines.push(
            "Some are about whole events, older than idempotency.window: hooks that had finished run again, under the same \
             Idempotency-Key."
                .to_owned(),
        );
    }
    if preview.out > 0 {
        lines.push(format!("{} more are out already: they are resolved when they have finished", preview.out));
    }
    let mut named = |ids: &[_], what: &str| {
        lines.extend(ids.iter().map(|id: &crate::domain::id::LetterId| format!("{id}: {what}")));
    };
    named(&preview.unknown, "no letter has this id: see `hookfleet dead-letters list`");
    named(&preview.resolved, "resolved; --force runs it again under a key of its own");
    named(&preview.unforced, "about a whole message: replay it without --force");
    lines.join("\n")
}

fn ended(progress: &Progress, force: bool) -> String {
    let mut lines = vec![format!("{} sent, {} not sent", progress.sent, progress.total - progress.sent)];
    let mut some = |count: usize, what: &str| {
        if count > 0 {
            lines.push(format!("  {count} {what}"));
        }
    };
    some(progress.skipped, "were finished, sent or gone meanwhile");
    some(progress.failed, "cannot be sent as they are:");
    lines.extend(progress.failures.iter().map(|failure| format!("    {}: {}", failure.id, failure.error)));
    if progress.left() > 0 && force {
        lines.push(format!(
            "  {} were not come to; the same command again forces those that ran once more",
            progress.left()
        ));
    } else if progress.left() > 0 {
        lines.push(format!("  {} were not come to: the same command again goes on with them", progress.left()));
    }
    lines.extend(progress.ended.iter().map(|why| format!("ended early: {why}")));
    lines.join("\n")
}

/// Begins the replay, shows how far it is, and stops it in order at Ctrl-C.
async fn followed(client: &Client, asked: &ReplayAsked) -> anyhow::Result<Progress> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut job = client.start(asked).await?;
    let bar = bar(job.progress.total);
    let mut is_stopping = false;
    while job.running {
        tokio::select! {
            () = sleep(LOOK_EVERY) => job = client.job(&job.id).await?,
            _ = interrupts.recv() => {
                if is_stopping {
                    std::process::exit(INTERRUPTED); // what is under way is sent again as the same
                }
                bar.println("stopping: what is under way is finished; once more to stop at once");
                is_stopping = true;
                job = client.stop(&job.id).await?;
            }
        }
        show(&bar, &job.progress);
    }
    bar.finish_and_clear();
    Ok(job.progress)
}

fn bar(total: usize) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    match ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, progress: &Progress) {
    bar.set_position((progress.sent + progress.skipped + progress.failed) as u64);
}
