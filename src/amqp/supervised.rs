//! A connection that is kept up: it is opened, watched, and opened again after every loss, with a wait that grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::{Channel, Connection, Event};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::connection::{backoff, close};

/// A session that lived this long starts the backoff anew.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// How often it is looked whether a channel is still open: the library reports its end to its users only.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// It cannot go on, for this reason: another one begins.
    Lost(String),
    /// It was asked to end: there is no other.
    Closed,
}

/// What is done on a connection. One value serves one session after the other.
#[async_trait]
pub trait Session: Send {
    /// What one session works with.
    type Work: Send;

    /// Opens a connection.
    async fn connect(&mut self) -> Result<Connection, String>;

    /// Opens what the session works with, and answers also the channel with which the session ends.
    async fn begin(&mut self, connection: &Arc<Connection>) -> Result<(Channel, Self::Work), String>;

    /// Works until it cannot go on or is asked to end. It is dropped if the connection or the channel is lost first.
    async fn run(&mut self, work: Self::Work) -> SessionEnd;

    /// Hears that a session which had begun is over, and why, before its connection is closed.
    fn ended(&mut self, _: &SessionEnd) {}
}

/// Hears when a connection is up (`None`), and else in one sentence why it is of no use.
pub type Report = Box<dyn Fn(Option<String>) + Send + Sync>;

/// Keeps a connection up.
pub struct Supervisor {
    /// What logs call the connection.
    pub name: &'static str,
    pub report: Report,
    /// Ends the session at once, and lets no other begin.
    pub stop: CancellationToken,
}

impl Supervisor {
    /// Runs one session after the other, until one is closed or `stop` is cancelled.
    pub async fn run<S: Session>(&self, session: &mut S) {
        let mut tries = 0;
        let is_away = AtomicBool::new(false);
        loop {
            let began = Instant::now();
            let end = tokio::select! {
                biased; // no session begins after the stop
                () = self.stop.cancelled() => SessionEnd::Closed,
                end = self.once(session, &is_away) => end,
            };
            let reason = match end {
                SessionEnd::Lost(reason) if !self.stop.is_cancelled() => reason,
                SessionEnd::Lost(_) | SessionEnd::Closed => break,
            };
            if began.elapsed() > SETTLED_AFTER {
                tries = 0;
            }
            if !is_away.swap(true, Ordering::Relaxed) {
                tracing::warn!(part = self.name, reason, "the broker connection ended, connecting again");
            }
            (self.report)(Some(reason));
            tokio::select! {
                () = sleep(backoff(tries, fastrand::f64())) => {}
                () = self.stop.cancelled() => {}
            }
            tries += 1;
        }
        (self.report)(Some("closed".to_owned()));
    }

    /// One session, from the opening of its connection to its loss.
    async fn once<S: Session>(&self, session: &mut S, was_away: &AtomicBool) -> SessionEnd {
        let connection = match session.connect().await {
            Ok(connection) => Arc::new(connection),
            Err(reason) => return SessionEnd::Lost(reason),
        };
        let (channel, work) = match session.begin(&connection).await {
            Ok(begun) => begun,
            Err(reason) => return SessionEnd::Lost(reason),
        };
        (self.report)(None);
        if was_away.swap(false, Ordering::Relaxed) {
            tracing::info!(part = self.name, "the broker connection is back");
        }
        let end = tokio::select! {
            reason = self.until_lost(&connection, &channel) => SessionEnd::Lost(reason),
            end = session.run(work) => end,
        };
        session.ended(&end);
        // One lost channel ends the session, not the connection: left open, its consumers would go on taking messages.
        close(&connection).await;
        end
    }

    /// Waits until the connection or the channel is gone, and reports meanwhile when the broker blocks it.
    async fn until_lost(&self, connection: &Connection, channel: &Channel) -> String {
        let mut events = Box::pin(connection.events_listener());
        if connection.status().blocked() {
            // The listener came too late for the event.
            (self.report)(Some("the broker takes no messages".to_owned()));
        }
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = sleep(LOOK_EVERY) => {
                    if connection.status().connected() && channel.status().connected() {
                        continue;
                    }
                    return "the connection was closed".to_owned();
                }
            };
            match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    (self.report)(Some(format!("the broker takes no messages: {reason}")));
                }
                Some(Event::ConnectionUnblocked) => (self.report)(None),
                Some(Event::Error(error)) => return error.to_string(),
                Some(_) => {}
                None => return "the connection was closed".to_owned(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A broker that is away: every try to connect fails after this time.
    struct Away {
        tries: Vec<Instant>,
        takes: Duration,
    }

    #[async_trait]
    impl Session for Away {
        type Work = ();

        async fn connect(&mut self) -> Result<Connection, String> {
            self.tries.push(Instant::now());
            sleep(self.takes).await;
            Err("no answer".to_owned())
        }

        async fn begin(&mut self, _: &Arc<Connection>) -> Result<(Channel, ()), String> {
            Err("nothing begins here".to_owned())
        }

        async fn run(&mut self, (): ()) -> SessionEnd {
            SessionEnd::Closed
        }
    }

    /// The waits between the tries to connect, and what was reported last.
    async fn supervised(takes: Duration, for_so_long: Duration) -> (Vec<Duration>, Option<String>) {
        let reported = Arc::new(Mutex::new(None));
        let heard = Arc::clone(&reported);
        let report: Report = Box::new(move |reason| *heard.lock().unwrap() = reason);
        let supervisor = Supervisor { name: "test", report, stop: CancellationToken::new() };
        let mut session = Away { tries: Vec::new(), takes };
        let stop = supervisor.stop.clone();
        let stopping = async {
            sleep(for_so_long).await;
            assert_eq!(reported.lock().unwrap().as_deref(), Some("no answer"));
            stop.cancel();
        };
        tokio::join!(supervisor.run(&mut session), stopping);
        let waits =
            session.tries.windows(2).map(|pair| pair[1].duration_since(pair[0]).saturating_sub(takes)).collect();
        (waits, reported.lock().unwrap().clone())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_while_sessions_end_early() {
        let (waits, reported) = supervised(Duration::from_millis(10), Duration::from_mins(1)).await;
        for (tries, wait) in waits.iter().enumerate() {
            let tries = u32::try_from(tries).unwrap();
            let tick = Duration::from_millis(1);
            assert!((backoff(tries, 0.0)..=backoff(tries, 1.0) + tick).contains(wait), "{waits:?}");
        }
        assert!((12..30).contains(&waits.len()), "{waits:?}");
        assert_eq!(reported.as_deref(), Some("closed"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_lasts_starts_the_backoff_anew() {
        let (waits, _) = supervised(Duration::from_secs(11), Duration::from_mins(2)).await;
        assert!(waits.len() > 5 && waits.iter().all(|wait| wait.as_millis() <= 101), "{waits:?}");
    }
}
