//! `hookfleet dead-letters replay`: a preview, a question, and the way through.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::client::Client;
use super::{Which, ids};
use crate::cli::by::By;
use crate::cli::exit::Exit;
use crate::cli::output::{self, table, time};
use crate::domain::browse::Group;
use crate::domain::failure::Class;
use crate::domain::id::LetterId;
use crate::domain::time::millis;
use crate::operations::OperationError;
use crate::operations::api_types::{Preview, ReplayAsked};
use crate::operations::progress::{Progress, Sent, SentOutcome, Unsent};
use crate::operations::replay::Manner;
use crate::telemetry::now_ms;
use crate::yaml::scalar;

/// Exit code, as shells have it, of what the person at the terminal stopped.
const INTERRUPTED: i32 = 130;
/// Between two looks at a job: while it sends, and while it waits.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const WAIT_EVERY: Duration = Duration::from_secs(1);
/// Longest wait that can be asked for.
const WAIT_MAX: Duration = Duration::from_hours(30 * 24);
/// Of so few every one is named that was sent; of more those that failed again.
const EACH_MAX: usize = 20;

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(in crate::cli) struct Replay {
    ids: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// Every letter that is open
    #[arg(long)]
    all: bool,
    /// The oldest N that can be sent; the same command again takes the next
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Say what would be sent and what cannot be, and send nothing
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
    /// Wait until all have ended, or so long, and say what has become of each [default on a terminal]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = patience)]
    #[expect(clippy::option_option, reason = "it may be said without a duration")]
    wait: Option<Option<Duration>>,
    /// Send them, and do not wait for what becomes of them
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    #[command(flatten)]
    by: By,
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

fn patience(text: &str) -> Result<Duration, String> {
    let waited = scalar::duration(Duration::ZERO..=WAIT_MAX)(text);
    waited.map_err(|mismatch| format!("expected {}, found \"{text}\"", mismatch.expected))
}

impl Replay {
    /// Whether another hook is to run the letters, which the catalog has to have.
    pub(super) const fn names_hook(&self) -> bool {
        self.to_hook.is_some()
    }

    /// Whether to wait, and how long at most.
    fn patience(&self) -> (bool, Option<Duration>) {
        (self.wait.is_some() || !self.no_wait && std::io::stdout().is_terminal(), self.wait.flatten())
    }
}

pub(super) async fn run(client: &Client, replay: Replay, window: Duration) -> anyhow::Result<ExitCode> {
    let (wait, patience) = replay.patience();
    let Replay { ids: named, which, all, limit, dry_run, rate, to_hook, force, by, yes, .. } = replay;
    let (by, json) = (by.name(), output::is_json());
    let asked = ReplayAsked {
        ids: ids(&named),
        filter: Some(which.asked()),
        all,
        force,
        to_hook,
        rate,
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        dry_run,
        wait,
        by: Some(by.clone()),
    };
    Manner::new(&by, asked.to_hook.as_deref(), asked.rate)?; // before anything is asked of anyone
    let preview = client.preview(&asked).await?;
    if dry_run {
        output::answer(&preview, || shown(&preview, window))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !preview.unknown.is_empty() {
        let unknown = preview.unknown.into_iter().map(|id| format!("error: {}", OperationError::Unknown(id)));
        output::err(&unknown.collect::<Vec<_>>().join("\n"));
        return Ok(Exit::Ask.into()); // nothing is sent of what was not meant
    }
    if !(json || named.len() == 1 && preview.letters == 1) {
        output::err(&shown(&preview, window));
    }
    if preview.letters == 0 {
        let is_refused = !named.is_empty() || preview.refused > 0;
        return Ok(if is_refused { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let is_meant = yes || !named.is_empty(); // who names letters means them
    if !is_meant && !confirmed(&format!("Send these {} letters out again?", preview.letters))? {
        return Ok(ExitCode::FAILURE);
    }
    let progress = followed(client, &asked, patience).await?;
    output::answer(&progress, || ended(&progress, asked.force))?;
    let named_in_vain = preview.resolved.len() + preview.unforced.len() + preview.refused;
    Ok(exit(&progress, named_in_vain))
}

/// How a replay ends whose preview named so many letters that it would not send.
fn exit(progress: &Progress, not_sent: usize) -> ExitCode {
    if progress.failed + progress.refused + not_sent > 0 || progress.ended.is_some() {
        ExitCode::FAILURE
    } else if progress.waits && progress.out() > 0 {
        Exit::TryAgain.into()
    } else {
        ExitCode::SUCCESS
    }
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
    let beyond = preview.matching.saturating_sub(preview.letters + preview.refused);
    let others = preview.refused + preview.resolved.len() + preview.unforced.len();
    if preview.letters > 0 || others == 0 {
        lines.push(if beyond > 0 {
            let (letters, matching) = (preview.letters, preview.matching);
            format!("{letters} letters to send, the oldest of {matching}; the same command again takes the next")
        } else {
            format!("{} letters to send", preview.letters)
        });
    }
    if preview.refused > 0 {
        lines.push(format!("{} cannot be sent as they are:", preview.refused));
        lines.extend(refusals(&preview.refusals, preview.refused));
    }
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
    let mut named = |ids: &[LetterId], what: &str| {
        lines.extend(ids.iter().map(|id| format!("{id}: {what}")));
    };
    named(&preview.unknown, "no letter has this id: see `hookfleet dead-letters list`");
    named(&preview.resolved, "resolved; --force runs it again under a key of its own");
    named(&preview.unforced, "about a whole message: replay it without --force");
    lines.join("\n")
}

/// Letters that cannot be sent, and how many are not named.
fn refusals(refusals: &[Unsent], count: usize) -> Vec<String> {
    let mut lines: Vec<String> =
        refusals.iter().map(|refusal| format!("    {}: {}", refusal.id, refusal.error)).collect();
    if count > refusals.len() {
        lines.push(format!("    and {} others", count - refusals.len()));
    }
    lines
}

fn ended(progress: &Progress, force: bool) -> String {
    let mut lines = vec![format!("{} sent, {} not sent", progress.sent, progress.total - progress.sent)];
    lines.extend(outcomes(progress));
    if progress.skipped > 0 {
        lines.push(format!("  {} were finished, sent or gone meanwhile", progress.skipped));
    }
    if progress.refused > 0 {
        lines.push(format!("  {} cannot be sent as they are:", progress.refused));
        lines.extend(refusals(&progress.refusals, progress.refused));
    }
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

/// What has become of what was sent.
fn outcomes(progress: &Progress) -> Vec<String> {
    let mut lines = Vec::new();
    if progress.waits {
        let mut counted = |count: usize, what: &str| {
            if count > 0 {
                lines.push(format!("  {count} {what}"));
            }
        };
        counted(progress.done, "done");
        counted(progress.failed, "failed again");
        counted(progress.closed, "closed or cancelled meanwhile");
        counted(progress.out(), "still out: `hookfleet dead-letters list --state replaying` shows them until they end");
    } else if progress.sent > 0 {
        lines.push("  what becomes of them was not waited for: --wait does".to_owned());
    }
    if progress.observing > 0 {
        lines.push(format!(
            "  {} of hooks that decide run as observers: who asked has an answer, and theirs are not used",
            progress.observing
        ));
    }
    let is_told = |sent: &&Sent| progress.sent <= EACH_MAX || sent.outcome == SentOutcome::Failed;
    let told: Vec<&Sent> = progress.letters.iter().filter(is_told).collect();
    lines.extend(told.iter().map(|sent| format!("    {}", line(sent))));
    let named = told.iter().filter(|sent| sent.outcome == SentOutcome::Failed).count();
    if progress.failed > named {
        lines.push(format!("    and {} others that failed again", progress.failed - named));
    }
    lines
}

fn line(Sent { id, generation, outcome, class, error }: &Sent) -> String {
    let outcome = match outcome {
        SentOutcome::Out => "out".to_owned(),
        SentOutcome::Done => "done".to_owned(),
        SentOutcome::Closed => "closed or cancelled meanwhile".to_owned(),
        SentOutcome::Failed => {
            let class = class.map(|class| format!(" ({})", class.name())).unwrap_or_default();
            format!("failed again{class}: {}", error.as_deref().unwrap_or_default())
        }
    };
    format!("{id} as generation {generation}: {outcome}")
}

/// Begins the replay, shows how far it is, and stops it in order at Ctrl-C, or when it has waited so long.
async fn followed(client: &Client, asked: &ReplayAsked, patience: Option<Duration>) -> anyhow::Result<Progress> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut job = client.start(asked).await?;
    let bar = bar(job.progress.total);
    let mut is_stopping = false;
    let mut gives_up_at = None;
    while job.running {
        let is_sending = job.progress.is_sending();
        if let (false, Some(patience)) = (is_sending, patience) {
            gives_up_at.get_or_insert_with(|| Instant::now() + patience);
        }
        let given_up = async {
            match gives_up_at.filter(|_| !is_stopping) {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep(if is_sending { LOOK_EVERY } else { WAIT_EVERY }) => job = client.job(&job.id).await?,
            () = given_up => {
                is_stopping = true;
                job = client.stop(&job.id).await?;
            }
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
    match ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {eta} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, progress: &Progress) {
    bar.set_position((progress.sent + progress.skipped + progress.refused) as u64);
    if progress.waits && !progress.is_sending() {
        let (done, failed, out) = (progress.done, progress.failed, progress.out());
        bar.set_message(format!("{done} done, {failed} failed again, {out} out"));
    }
}
