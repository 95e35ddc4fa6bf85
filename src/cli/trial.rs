//! What `bench` and `verify` share: a namespace of its own on the user's servers, or a file in a temporary folder; events
//! that are told by their numbers; and the removal of everything in the end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::{Stream, stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use crate::config::{Backend, Settings};

pub(super) mod receiver;
mod removal;

/// What ids of events begin with; a number follows.
const ID: &str = "trial-event-";

/// A place of its own on the user's servers, and the settings of those who work there.
pub(super) struct Trial {
    pub(super) settings: Settings,
    /// For files; it is not made here.
    pub(super) folder: PathBuf,
}

impl Trial {
    /// In a namespace that begins with `name`. Hooks may reach a receiver on loopback.
    pub(super) fn new(mut settings: Settings, name: &str) -> Self {
        settings.namespace = format!("{name}-{:08x}", fastrand::u32(..));
        settings.http.bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        settings.http.certificate = None;
        settings.egress.allow.push(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
        settings.egress.ports.clear();
        let folder = std::env::temp_dir().join(&settings.namespace);
        if let Backend::Embedded { path } = &mut settings.backend {
            *path = folder.join("hookfleet.db");
        }
        Self { settings, folder }
    }

    /// What the trial is on, in a word.
    pub(super) fn broker(&self) -> &'static str {
        match self.settings.backend {
            Backend::Servers { .. } => "servers",
            Backend::Embedded { .. } => "file",
        }
    }

    /// Removes everything and passes on what came of the trial. To be called however it went; another interruption ends
    /// the removal.
    ///
    /// # Errors
    /// That of the trial, or what is left behind.
    pub(super) async fn end<T>(&self, tried: anyhow::Result<T>) -> anyhow::Result<T> {
        let again = interrupted()?;
        let removed = tokio::select! {
            removed = removal::remove(&self.settings, &self.folder) => removed,
            () = again => Err(anyhow!("interrupted")),
        };
        let removed =
            removed.with_context(|| format!("the namespace {} could not be removed", self.settings.namespace));
        match (tried, removed) {
            (Ok(tried), removed) => removed.map(|()| tried),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(left)) => Err(error.context(format!("{left:#}"))),
        }
    }
}

/// Completes on the first SIGINT or SIGTERM after this call.
pub(super) fn interrupted() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The numbers from 0 to below `count`, no more than so many a second.
pub(super) fn paced(count: u32, rate: Option<u32>) -> Pin<Box<dyn Stream<Item = u32>>> {
    let mut pace = rate.map(|rate| interval(Duration::from_secs(1) / rate));
    let mut numbers = 0..count;
    Box::pin(stream::poll_fn(move |context| {
        if !numbers.is_empty()
            && let Some(pace) = &mut pace
        {
            ready!(pace.poll_tick(context));
        }
        Poll::Ready(numbers.next())
    }))
}

/// The id of an event.
pub(super) fn id(number: u32) -> String {
    format!("{ID}{number}")
}

/// The number of the event in a payload or an id, without parsing all of it.
pub(super) fn number(text: &[u8]) -> Option<usize> {
    let at = text.windows(ID.len()).position(|window| window == ID.as_bytes())?;
    let digits = text[at + ID.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    std::str::from_utf8(&digits.copied().collect::<Vec<u8>>()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn events_are_told_by_their_number() {
        assert_eq!(number(br#"{"event":{"id":"trial-event-17","type":"x"}}"#), Some(17));
        assert_eq!(number(id(3).as_bytes()), Some(3));
        assert_eq!(number(br#"{"event":{"id":"other"}}"#), None);
        assert_eq!(number(b"trial-event-"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_kept() {
        let began = Instant::now();
        assert_eq!(paced(5, Some(10)).collect::<Vec<u32>>().await, [0, 1, 2, 3, 4]);
        assert_eq!(began.elapsed().as_millis(), 400);
        assert_eq!(paced(2, None).collect::<Vec<u32>>().await, [0, 1]);
    }
}
