//! How commands reach servers: the person at the terminal is told within a second what is waited for.

use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

use super::output;
use super::place::Place;
use crate::app::Backends;
use crate::broker::patience::Patience;
use crate::config::Settings;

/// A wait that is shorter is not mentioned.
const UNMENTIONED: Duration = Duration::from_millis(600);

/// Connects to the servers, or opens the file.
///
/// # Errors
/// One sentence: what cannot be reached in time (`startup.command_timeout`) or opened, and what to do.
pub(super) async fn open(settings: &Settings) -> anyhow::Result<Backends> {
    let limit = settings.startup.command_timeout;
    let patience = Patience::of(limit);
    let waiting = patience.waiting();
    let what = || match &*waiting.borrow() {
        Some(reason) => format!("waiting for {reason}; for {limit:?} at most (startup.command_timeout)"),
        None => format!("waiting for an answer of {}", Place::of(settings)),
    };
    tell_if_slow(Backends::open_within(settings, &patience), what).await
}

/// Does some work, and says on stderr what it waits for if it takes long.
pub(super) async fn tell_if_slow<T>(work: impl Future<Output = T>, what: impl FnOnce() -> String) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = sleep(UNMENTIONED) => {}
    }
    output::err(&what());
    work.await
}
