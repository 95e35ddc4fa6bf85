//! The tokens of http hooks, of a whole process: kept while they last, and fetched once for all that wait.
//!
//! Of those that need the same token one fetches it, within its own deadline, while the others wait for what comes of that:
//! a token, or the failure, which is then theirs too. One that is cancelled or late hands the turn to the next. A token is
//! renewed before it ends; until then the old one is used, also where the renewal fails.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER, USER_AGENT};
use tokio::time::{Instant, timeout_at};

use super::clients::{Clients, Outbound};
use super::hint::retry_after;
use super::replies::{REPLY_BYTES_MAX, whole};
use super::unanswered::{self, is_ours};
use super::{Attempt, US, shortage};
use crate::domain::contract::Body;
use crate::domain::failure::Class;
use crate::domain::oauth::life::{Life, RENEW_AGAIN, Standing};
use crate::domain::oauth::{ClientCredentials, Token};
use crate::domain::outcome::{Again, Failure, Outcome};
use crate::domain::secret::Secret;
use crate::domain::template::Text;
use crate::domain::tls::Tls;
use crate::telemetry::Metric;

/// One fetch takes no longer, since others wait for it.
const FETCH_MAX: Duration = Duration::from_secs(30);
/// Longest renewal. The attempt that makes it has a good token in hand, so that it need not wait longer.
const RENEWAL_MAX: Duration = Duration::from_secs(3);
/// What no hook has asked for in this long belongs to a revision that is gone.
const UNUSED_AFTER_MS: u64 = 3_600_000;

/// The tokens of a process, which all of its executors share.
#[derive(Debug)]
pub struct Tokens {
    since: Instant,
    by_digest: Mutex<HashMap<Key, Arc<Entry>>>,
}

/// The credentials, and the certificates by which the server is called.
type Key = ([u8; 32], Option<[u8; 32]>);

#[derive(Debug, Default)]
struct Entry {
    /// Held by the one that fetches.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Arc<Held>>,
    /// Fetches that have ended, and what the last of them came to.
    ended: u64,
    last: Option<Result<Arc<Held>, Outcome>>,
    /// No renewal before then.
    put_off_ms: u64,
    used_ms: u64,
}

/// A token in use.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) secret: Secret<String>,
    pub(super) life: Life,
    /// Which fetch it is of.
    pub(super) number: u64,
}

/// Who needs a token, for what.
pub(super) struct Need<'a> {
    pub(super) credentials: &'a ClientCredentials,
    /// The server of tokens is called as the target is.
    pub(super) tls: &'a Tls,
    pub(super) attempt: &'a Attempt<'a>,
    pub(super) clients: &'a Clients,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { since: Instant::now(), by_digest: Mutex::default() }
    }
}

impl Tokens {
    /// Milliseconds by the clock of tokens, which nobody sets.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A token that is good now; another one than `refused`. Ends at the attempt's deadline. Cancel-safe.
    ///
    /// # Errors
    /// No token was granted. That is no failure of the target.
    pub(super) async fn token(&self, need: &Need<'_>, refused: Option<u64>) -> Result<Arc<Held>, Outcome> {
        let (entry, now_ms) = (self.entry(need.credentials, need.tls), self.now_ms());
        let (held, seen) = entry.look(refused, now_ms);
        let deadline = need.attempt.deadline;
        if let Some((held, standing)) = held {
            if standing == Standing::Renew
                && let Ok(_turn) = entry.turn.try_lock()
            {
                return match entry.since(seen) {
                    Some(Ok(next)) => Ok(next),
                    _ => Ok(self.renewed(need, &entry, held).await),
                };
            }
            return Ok(held);
        }
        let _turn = timeout_at(deadline, entry.turn.lock()).await.map_err(|_| need.late())?;
        if let Some(last) = entry.since(seen) {
            return last;
        }
        let latest = deadline.min(Instant::now() + FETCH_MAX);
        match self.fetch(need, latest).await {
            Ok((token, asked_ms)) => entry.end(Ok((token, asked_ms, self.now_ms()))),
            Err(Ended::Failed(failed)) => entry.end(Err(failed)),
            Err(Ended::Late(Outcome::Failed(_))) if latest < deadline => {
                entry.end(Err(need.failed(Outcome::later(format!("no answer within {FETCH_MAX:?}")))))
            }
            Err(Ended::Late(late)) => Err(late), // it may have had little time: the next one has a turn of its own
        }
    }

    /// The token that replaces one which ends soon. If the renewal fails, the old token, which is still good.
    async fn renewed(&self, need: &Need<'_>, entry: &Entry, held: Arc<Held>) -> Arc<Held> {
        let latest = need.attempt.deadline.min(Instant::now() + RENEWAL_MAX);
        entry.state().put_off_ms = self.now_ms() + millis(RENEW_AGAIN); // also if this is cancelled
        match self.fetch(need, latest).await {
            Ok((token, asked_ms)) => entry.end(Ok((token, asked_ms, self.now_ms()))).unwrap_or(held),
            Err(Ended::Failed(Outcome::Failed(Failure { error, .. }))) => {
                tracing::warn!(error, "a token could not be renewed: the old one is used until it ends");
                held
            }
            Err(_) => {
                let server = need.credentials.server();
                tracing::warn!(server, "a token was not renewed in time: the old one is used until it ends");
                held
            }
        }
    }

    fn entry(&self, credentials: &ClientCredentials, tls: &Tls) -> Arc<Entry> {
        let tls = if let Tls::Own(own) = tls { Some(own.id) } else { None };
        let (key, now_ms) = ((credentials.digest(), tls), self.now_ms());
        let mut all = self.by_digest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.get(&key) {
            return Arc::clone(found);
        }
        all.retain(|_, entry| now_ms.saturating_sub(entry.state().used_ms) < UNUSED_AFTER_MS);
        Arc::clone(all.entry(key).or_insert_with(|| {
            let state = Mutex::new(State { used_ms: now_ms, ..State::default() });
            Arc::new(Entry { state, ..Entry::default() })
        }))
    }

    /// One request for a token, and when it went out.
    async fn fetch(&self, need: &Need<'_>, deadline: Instant) -> Result<(Token, u64), Ended> {
        let asked_ms = self.now_ms();
        let fetched = need.fetched(deadline).await;
        let outcome = match &fetched {
            Ok(_) => "granted",
            Err(Ended::Failed(Outcome::Failed(Failure { status: Some(..=428 | 430..500), .. }))) => "refused",
            Err(_) => "failed",
        };
        Metric::TokenFetches.count(&[("outcome", outcome.to_owned())]);
        fetched.map(|token| (token, asked_ms)).map_err(Ended::without_status)
    }
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token that is good now and is not `refused`, if there is one, and how many fetches have ended by now.
    fn look(&self, refused: Option<u64>, now_ms: u64) -> (Option<(Arc<Held>, Standing)>, u64) {
        let mut state = self.state();
        state.used_ms = now_ms;
        if refused.is_some() && state.held.as_ref().map(|held| held.number) == refused {
            state.held = None;
        }
        let put_off_ms = state.put_off_ms;
        let held = state.held.as_ref().map(|held| (Arc::clone(held), held.life.standing(now_ms, put_off_ms)));
        (held.filter(|(_, standing)| *standing != Standing::Over), state.ended)
    }

    /// What the last fetch came to, if one has ended since.
    fn since(&self, seen: u64) -> Option<Result<Arc<Held>, Outcome>> {
        let state = self.state();
        if state.ended == seen { None } else { state.last.clone() }
    }

    /// A fetch came to a token, with when it was asked for and granted, or to none.
    fn end(&self, ended: Result<(Token, u64, u64), Outcome>) -> Result<Arc<Held>, Outcome> {
        let mut state = self.state();
        state.ended += 1;
        let number = state.ended;
        let ended = ended.map(|(token, asked_ms, granted_ms)| {
            let life = Life::new(asked_ms, granted_ms, token.expires_in);
            Arc::new(Held { secret: token.secret, life, number })
        });
        if let Ok(held) = &ended {
            state.held = Some(Arc::clone(held));
            state.put_off_ms = 0;
        }
        state.last = Some(ended.clone());
        ended
    }
}

/// How a fetch ended without a token.
enum Ended {
    /// The deadline of its attempt has passed, or this machine was short of something: others may fare better.
    Late(Outcome),
    Failed(Outcome),
}

impl Ended {
    /// A status tells metrics that the server has answered. It is not the target's, so that no report shows it.
    fn without_status(self) -> Self {
        match self {
            Self::Failed(Outcome::Failed(failure)) => {
                Self::Failed(Outcome::Failed(Failure { status: None, ..failure }))
            }
            other => other,
        }
    }
}

impl Need<'_> {
    async fn fetched(&self, deadline: Instant) -> Result<Token, Ended> {
        let never = |error: String| Ended::Failed(self.failed(Outcome::never(Class::Invalid, error)));
        if self.credentials.texts().flat_map(Text::unknown).next().is_some() {
            return Err(never("values of the hook's `oauth2` are not known to this process".to_owned()));
        }
        let url = self.credentials.url.expose();
        let failed = |outcome| Ended::Failed(self.failed(outcome));
        self.clients.guard.check(url).map_err(|refused| failed(Outcome::from(&refused)))?;
        let client = self.clients.of(self.tls).map_err(never)?;
        let request = self.outbound().map_err(never)?;
        let exchange = || async {
            let (head, body) =
                client.send(&request, || {}).await.map_err(|error| Broken(Box::new(error)))?.into_parts();
            Ok::<_, Broken>((head, whole(body).await.map_err(|error| Broken(Box::new(error)))?))
        };
        let is_short = |broken: &Broken| is_ours(broken.0.as_ref(), url);
        let hook = self.attempt.hook.id.as_str();
        let replied =
            shortage::outlasted(hook, deadline, exchange, is_short, || self.late()).await.map_err(Ended::Late)?;
        let unreplied = |broken: Broken| failed(unanswered::outcome(broken.0.as_ref(), self.credentials.unshown()));
        let (head, body) = replied.map_err(unreplied)?;
        let status = Some(i32::from(head.status.as_u16()));
        let hint = head.headers.get(RETRY_AFTER).and_then(|value| retry_after(value.as_bytes(), SystemTime::now()));
        let refused = |error: String| {
            let again = Again::Later(hint);
            failed(Outcome::Failed(Failure { of_target: false, ..Failure::new(again, status, error) }))
        };
        match body {
            Body::Whole(body) => self.credentials.read(hyper::Response::from_parts(head, body)).map_err(refused),
            Body::Beginning(_) | Body::TooLarge { .. } => {
                Err(refused(format!("its answer has more than {REPLY_BYTES_MAX} bytes: check `token_url`")))
            }
        }
    }

    fn outbound(&self) -> Result<Outbound, String> {
        let (mut head, body) = self.credentials.request()?.into_parts();
        head.headers.insert(USER_AGENT, HeaderValue::from_static(US));
        if let Some(shown) = head.headers.get_mut(AUTHORIZATION) {
            shown.set_sensitive(true); // kept out of `Debug` output and of HTTP/2's compression tables
        }
        Ok(Outbound::from_parts(head, Full::new(body.into())))
    }

    fn late(&self) -> Outcome {
        self.failed(self.attempt.timed_out(""))
    }

    /// The same, of which no target hears, and with the server in its error text.
    fn failed(&self, outcome: Outcome) -> Outcome {
        let Outcome::Failed(failure) = outcome else { return outcome };
        let error = format!("token endpoint {}: {}", self.credentials.server(), failure.error);
        Outcome::Failed(Failure { error, of_target: false, ..failure })
    }
}

/// A request that got no reply, or the rest of a reply that did not come.
struct Broken(Box<dyn Error + Send + Sync>);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
