//! Claims in one Redis server (7.0 or newer).
//!
//! The first claim of a key is one `SET NX GET PX`; everything else is one Lua script, the twin of
//! [`crate::domain::claim::step`]. Every request touches exactly one key, whose hash tag is the event's digest.
//!
//! What a Redis that forgot costs: the runs of its lost claims happen again under the same Idempotency-Key. Never an
//! event. Run it with an append-only file and `noeviction`.

use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, ErrorKind, RedisError, Script, ServerErrorKind};
use async_trait::async_trait;

use super::value;
use super::{Idempotency, StoreError};
use crate::domain::claim::{Answer, Claim, ClaimRequest, Request, Verdict};
use crate::domain::invocation::InvocationKey;
use crate::domain::settle::Next;

/// Longest wait for an answer. A call that timed out may still run: see the rule on tokens.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Claims in Redis.
pub struct RedisClaims {
    connection: ConnectionManager,
    step: Script,
    namespace: String,
    poisoned: String,
}

impl RedisClaims {
    /// Prepares a connection, which is opened on first use and opened again whenever it is lost.
    ///
    /// # Errors
    /// The URL is none that a Redis client understands.
    pub fn new(url: &str, namespace: &str) -> Result<Self, StoreError> {
        let away = |error: RedisError| StoreError::Away(error.to_string());
        let client = Client::open(url).map_err(away)?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            // The callers repeat; a call must not sit in a queue of reconnects.
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(200));
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(away)?;
        Ok(Self {
            connection,
            step: Script::new(include_str!("redis/step.lua")),
            namespace: namespace.to_owned(),
            poisoned: value::next_json(&Next::poisoned()),
        })
    }

    /// The connection, for others that keep something there.
    #[must_use]
    pub fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    fn key(&self, key: &InvocationKey) -> String {
        format!("{}:claim:{{{}}}:{}", self.namespace, key.event, key.hook)
    }

    /// The cheap way in: right unless something is stored already.
    async fn first_claim(&self, key: &str, claim: &ClaimRequest) -> Result<Option<Answer>, StoreError> {
        let ClaimRequest { at, token, deaths, lease_ms, floor_ms, .. } = *claim;
        let held = Claim::Held { at, token, deaths, floor_ms };
        let found: Option<String> = ::redis::cmd("SET")
            .arg(key)
            .arg(value::encode(&held))
            .arg("NX")
            .arg("GET")
            .arg("PX")
            .arg(lease_ms + floor_ms)
            .query_async(&mut self.connection.clone())
            .await
            .map_err(|error| store_error(&error))?;
        match found {
            None => Ok(Some(Answer::Won { deaths, taken_over: false })),
            Some(found) => match value::decode(&found)? {
                Claim::Done { generation, token } if claim.forced <= generation => Ok(Some(Answer::Done { token })),
                Claim::Done { .. }
                | Claim::Held { .. }
                | Claim::Settled { .. }
                | Claim::Out { .. }
                | Claim::Buried { .. } => Ok(None),
            },
        }
    }

    async fn script(&self, key: &str, arguments: &[String]) -> Result<Answer, StoreError> {
        let mut call = self.step.key(key);
        for argument in arguments {
            call.arg(argument);
        }
        let answer: Vec<String> =
            call.invoke_async(&mut self.connection.clone()).await.map_err(|error| store_error(&error))?;
        read_answer(&answer).ok_or_else(|| StoreError::Unreadable(answer.join(" ")))?
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
            Request::Settle { at, token, deaths, verdict, keep_ms } => {
                let claim = match verdict {
                    Verdict::Done => Claim::Done { generation: at.generation, token: *token },
                    Verdict::Next(next) => {
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
        }
    }
}

#[async_trait]
impl Idempotency for RedisClaims {
    async fn ask(&self, key: &InvocationKey, request: &Request) -> Result<Answer, StoreError> {
        let key = self.key(key);
        if let Request::Claim(claim) = request
            && claim.deaths < claim.limits.suspect
            && let Some(answer) = self.first_claim(&key, claim).await?
        {
            return Ok(answer);
        }
        self.script(&key, &self.arguments(request)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // A write, because a server that only reads (full, loading, a replica) cannot keep claims.
        let key = format!("{}:ping", self.namespace);
        ::redis::cmd("SET")
            .arg(key)
            .arg("1")
            .arg("PX")
            .arg(60_000)
            .query_async::<()>(&mut self.connection.clone())
            .await
            .map_err(|error| store_error(&error))
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
        ["ok"] => Answer::Ok,
        ["not yours"] => Answer::NotYours,
        _ => return None,
    };
    Some(Ok(answer))
}

fn store_error(error: &RedisError) -> StoreError {
    if error.is_timeout() {
        return StoreError::Timeout;
    }
    let hint = match error.kind() {
        ErrorKind::AuthenticationFailed => " (check the user and password in redis.url)",
        ErrorKind::Server(ServerErrorKind::BusyLoading) => " (it is loading its data; it will answer soon)",
        ErrorKind::Server(ServerErrorKind::ReadOnly) => " (it is a replica; redis.url must name the primary)",
        _ => "",
    };
    StoreError::Away(format!("{error}{hint}"))
}
