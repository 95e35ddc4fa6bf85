//! Claims in Redis 7.0 or newer, or Valkey: one server, a primary that sentinels watch, or a Redis Cluster.
//!
//! The first claim of a key is one `SET NX GET PX`; everything else is one Lua script, the twin of
//! [`crate::domain::claim::step`]. Such a request touches exactly one key, whose hash tag is the event's digest. A window of
//! `once_per` is a key with a hash tag of its own; a second one beside it remembers each event that has taken it.
//!
//! What a Redis that forgot costs: the runs of its lost claims happen again under the same Idempotency-Key. Never an
//! event; but one that shares the window of a `once_per` with others may be taken for one of those, if it comes twice.
//! Replicas follow late, so a failover forgets the newest claims. Run it with an append-only file and `noeviction`.

use ::redis::{Cmd, cmd};
use async_trait::async_trait;

use super::{Idempotency, StoreError, value};
use crate::domain::claim::{Answer, Before, Claim, ClaimRequest, Found, Next, Request, Settlement};
use crate::domain::dedup_window::{Taken, Window};
use crate::domain::id::{EventDigest, InvocationKey};
use crate::redis::connection::Link;
use crate::redis::error::Failure;
use crate::redis::script::Script;

/// Claims in Redis.
pub struct RedisClaims {
    link: Link,
    step: Script,
    take: Script,
    namespace: String,
    poisoned: String,
}

impl RedisClaims {
    /// Over a connection that others may use too.
    #[must_use]
    pub fn new(link: Link, namespace: &str) -> Self {
        Self {
            link,
            step: Script::new(include_str!("redis/step.lua")),
            take: Script::new(include_str!("redis/take.lua")),
            namespace: namespace.to_owned(),
            poisoned: value::next_json(&Next::poisoned()),
        }
    }

    fn key(&self, key: &InvocationKey) -> String {
        [&self.namespace, ":claim:{", &key.event.to_string(), "}:", key.hook.as_str()].concat()
    }

    fn arguments(&self, request: &Request) -> Vec<String> {
        match request {
            Request::Claim(claim) => vec![
                "claim".to_owned(),
                claim.at.generation.to_string(),
                claim.at.attempt.to_string(),
                claim.token.to_string(),
                claim.deaths.to_string(),
                claim.forced.to_string(),
                u8::from(claim.in_suspect).to_string(),
                claim.limits.suspect.to_string(),
                claim.limits.poisoned.to_string(),
                claim.lease_ms.to_string(),
                claim.floor_ms.to_string(),
                self.poisoned.clone(),
            ],
            Request::Renew { token, lease_ms } => vec!["renew".to_owned(), token.to_string(), lease_ms.to_string()],
            Request::Settle { at, token, deaths, settlement, keep_ms } => {
                let claim = match settlement {
                    Settlement::Done => Claim::Done { generation: at.generation, token: *token },
                    Settlement::Next(next) => {
                        Claim::Settled { at: *at, token: *token, deaths: *deaths, next: next.clone() }
                    }
                };
                vec!["settle".to_owned(), token.to_string(), value::encode(&claim), keep_ms.to_string()]
            }
            Request::Advance { at, token, keep_ms } => vec![
                "advance".to_owned(),
                at.generation.to_string(),
                at.attempt.to_string(),
                token.to_string(),
                keep_ms.to_string(),
            ],
            Request::Release { token, keep_ms } => vec!["release".to_owned(), token.to_string(), keep_ms.to_string()],
            Request::Cancel { generation, keep_ms } => {
                vec!["cancel".to_owned(), generation.to_string(), keep_ms.to_string()]
            }
            Request::Decide { token, decision, keep_ms } => {
                let claim = Claim::Decided { token: *token, decision: decision.clone() };
                vec!["decide".to_owned(), value::encode(&claim), keep_ms.to_string()]
            }
            Request::Recall => vec!["recall".to_owned()],
        }
    }
}

#[async_trait]
impl Idempotency for RedisClaims {
    async fn ask(&self, key: &InvocationKey, request: &Request) -> Result<Answer, StoreError> {
        // A request may be sent twice: its token tells.
        let (key, mut call) = (self.key(key), self.link.call());
        if let Request::Claim(claim) = request
            && claim.deaths < claim.limits.suspect
        {
            let found: Option<String> = call.query(&first_claim(&key, claim)).await?;
            if let Some(answer) = answer_at_once(found.as_deref(), claim)? {
                return Ok(answer);
            }
        }
        let answer: Vec<String> = call.run(&self.step, &[&key], &self.arguments(request)).await?;
        let read = read_answer(&answer).unwrap_or_else(|| Err(StoreError::Unreadable(answer.join(" "))))?;
        Ok(match request {
            // It is not sent back to whoever has sent it.
            Request::Decide { token, decision, .. } if read == Answer::Ok => {
                Answer::Decided { token: *token, decision: decision.clone() }
            }
            _ => read,
        })
    }

    async fn look(&self, key: &InvocationKey) -> Result<Option<Found>, StoreError> {
        let (key, mut call) = (self.key(key), self.link.call());
        let Some(stored): Option<String> = call.query(cmd("GET").arg(&key)).await? else { return Ok(None) };
        let claim = value::decode(&stored)?;
        let lease_left_ms = match &claim {
            Claim::Held { floor_ms, .. } => {
                let ttl_ms: i64 = call.query(cmd("PTTL").arg(&key)).await?; // below zero: gone since
                u64::try_from(ttl_ms).unwrap_or_default().saturating_sub(*floor_ms)
            }
            Claim::Settled { .. }
            | Claim::Out { .. }
            | Claim::Done { .. }
            | Claim::Buried { .. }
            | Claim::Decided { .. } => 0,
        };
        Ok(Some(Found { claim, lease_left_ms }))
    }

    async fn take(&self, window: &Window, owner: EventDigest, keep_ms: u64) -> Result<Taken, StoreError> {
        let (key, owner) = (format!("{}:once:{{{}}}", self.namespace, window.digest), owner.to_string());
        let had = format!("{key}:{owner}");
        let times = [window.length_ms.max(1).to_string(), keep_ms.max(1).to_string()];
        let [length_ms, keep_ms] = &times;
        // It may be sent twice: the second answer is the same.
        let is_ours: bool = self.link.call().run(&self.take, &[&key, &had], &[&owner, length_ms, keep_ms]).await?;
        Ok(if is_ours { Taken::Ours } else { Taken::Anothers })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.link.ping(&format!("{}:ping", self.namespace)).await?)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Settings(sentence) => Self::Settings(sentence),
            Failure::Away(reason) => Self::Away(reason),
            Failure::Timeout => Self::Timeout,
            Failure::Unreadable(sentence) => Self::Unreadable(sentence),
        }
    }
}

/// The cheap way in: right unless something is stored already.
fn first_claim(key: &str, claim: &ClaimRequest) -> Cmd {
    let ClaimRequest { at, token, deaths, lease_ms, floor_ms, .. } = *claim;
    let held = Claim::Held { at, token, deaths, floor_ms };
    let mut set = cmd("SET");
    set.arg(key).arg(value::encode(&held)).arg("NX").arg("GET").arg("PX").arg(lease_ms + floor_ms);
    set
}

/// The answer to a first claim by what was found, where no script needs to look.
fn answer_at_once(found: Option<&str>, claim: &ClaimRequest) -> Result<Option<Answer>, StoreError> {
    let Some(found) = found else {
        return Ok(Some(Answer::Won { deaths: claim.deaths, taken_over: false }));
    };
    match value::decode(found)? {
        Claim::Done { generation, token } if claim.forced <= generation => Ok(Some(Answer::Done { token })),
        Claim::Decided { token, decision } => Ok(Some(Answer::Decided { token, decision })),
        Claim::Done { .. } | Claim::Held { .. } | Claim::Settled { .. } | Claim::Out { .. } | Claim::Buried { .. } => {
            Ok(None)
        }
    }
}

/// `None` if it is no answer of the script.
fn read_answer(answer: &[String]) -> Option<Result<Answer, StoreError>> {
    let words: Vec<&str> = answer.iter().map(String::as_str).collect();
    let answer = match words.as_slice() {
        ["won", deaths, takeover] => Answer::Won { deaths: deaths.parse().ok()?, taken_over: *takeover == "1" },
        ["done", token] => Answer::Done { token: value::token(token)? },
        ["superseded"] => Answer::Superseded,
        ["busy", left] => Answer::Busy { lease_left_ms: left.parse().ok()? },
        ["suspect", deaths] => Answer::Suspect { deaths: deaths.parse().ok()? },
        ["resume", stored] => match value::decode(stored) {
            Ok(Claim::Settled { at, token, deaths, next }) => Answer::Resume { at, token, deaths, next },
            Ok(_) => return None,
            Err(error) => return Some(Err(error)),
        },
        ["decided", stored] => match value::decode(stored) {
            Ok(Claim::Decided { token, decision }) => Answer::Decided { token, decision },
            Ok(_) => return None,
            Err(error) => return Some(Err(error)),
        },
        ["ok"] => Answer::Ok,
        ["not yours"] => Answer::NotYours,
        ["cancelled", before] => Answer::Cancelled {
            before: match *before {
                "n" => Before::Nothing,
                "h" => Before::Held,
                "s" | "o" => Before::Pending,
                "b" => Before::Buried,
                "c" => Before::Cancelled,
                _ => return None,
            },
        },
        _ => return None,
    };
    Some(Ok(answer))
}
