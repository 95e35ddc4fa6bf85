//! The seam to what a hook does: one attempt in, one [`Outcome`] out.
//!
//! A refusal, a panic and a target that never answers are outcomes, not errors. Nothing here knows of retries, claims
//! or brokers. Dropping a run stops it: the connection is closed, the process group killed. No order and no uniqueness
//! is promised; the receiver tells repeats by the idempotency key.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::domain::contract::{About, Exchange, Question, Raw, Reply};
use crate::domain::decision::{Answer, Json};
use crate::domain::excerpt::with_excerpt;
use crate::domain::failure::Class;
use crate::domain::hook::{Action, Hook};
use crate::domain::invocation::Invocation;
use crate::domain::outcome::{Again, Failure, Outcome};
use crate::telemetry::Metric;
use crate::{config, dialect};

pub mod callback;
mod clients;
mod command;
mod compress;
mod egress;
pub mod hint;
mod http;
mod places;
mod process;
pub mod publish;
mod replies;
mod secrets;
pub mod shim;
mod shortage;
pub mod tokens;
mod unanswered;

use callback::Callbacks;
use clients::Clients;
use places::Places;
use publish::{Home, Publishing};
use tokens::Tokens;

/// As whom requests are sent.
const US: &str = concat!("hookfleet/", env!("CARGO_PKG_VERSION"));
/// How much later than its deadline a run is cut off if its executor did not end it.
const BACKSTOP: Duration = Duration::from_millis(250);
/// A deadline beyond what the clock can say is this far away.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// Why the executors could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// No roots of trust, or no TLS at all.
    #[error("cannot set up the HTTP client")]
    HttpClient(#[source] rustls::Error),
}

/// Carries out attempts.
#[async_trait]
pub trait Execute: Send + Sync {
    /// One attempt, within `hook.timeout` and the moment that ending a process group takes. Cancel-safe: dropping the
    /// future stops the run.
    async fn run(&self, hook: &Hook, invocation: &Invocation) -> Outcome;

    /// One attempt, as `run` makes one, for what the hook answers; `input` is what hooks before it have put in
    /// place of what the event is about. Cancel-safe. Answers and errors are what the target said: whoever passes them on
    /// redacts them by the catalog's secrets.
    ///
    /// # Errors
    /// There is no answer: a failure, or the end of this process. Never `Done`.
    async fn ask(&self, hook: &Hook, invocation: &Invocation, input: Option<&Json>) -> Result<Answer, Outcome>;
}

/// All executors, with what they share between runs: connections, and the environment that commands inherit.
#[derive(Debug)]
pub struct Executors {
    http: http::Http,
    commands: command::Commands,
    callbacks: Callbacks,
    publishing: Publishing,
    places: Arc<Places>,
}

/// What the executors of one process share: the tokens of its http hooks, and places where a dialect bounds them.
#[derive(Debug, Clone, Default)]
pub struct Commons {
    pub tokens: Arc<Tokens>,
    places: Arc<Places>,
}

/// Chooses the cryptography of this process, which every HTTP client needs before it is built.
pub fn install_crypto() {
    // Fails only if a provider is there already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Why the guard lets no hook call this URL, if so; an error says that its name has no address.
///
/// # Errors
/// One sentence.
pub async fn refused(egress: &config::Egress, url: &url::Url) -> Result<Option<String>, String> {
    egress::refused(egress, url).await
}

impl Executors {
    /// Built once. The pooled connections live on the runtime that opened them, so each runtime is best given its own.
    pub fn new(
        egress: &config::Egress,
        commands: &config::Commands,
        callbacks: Callbacks,
    ) -> Result<Self, ExecutorError> {
        let clients = Clients::new(egress).map_err(ExecutorError::HttpClient)?;
        Ok(Self::with(Arc::new(clients), commands, callbacks))
    }

    /// With these clients, which all executors share that call over HTTP. What they may not reach brokers may not either.
    fn with(clients: Arc<Clients>, commands: &config::Commands, callbacks: Callbacks) -> Self {
        Self {
            publishing: Publishing::new(clients.guard.clone()),
            http: http::Http { clients, tokens: Arc::default() },
            commands: command::Commands::new(commands),
            callbacks,
            places: Arc::default(),
        }
    }

    /// With a broker that hooks publish to which name none.
    #[must_use]
    pub fn at(mut self, home: Home) -> Self {
        self.publishing.home = home;
        self
    }

    /// Shares this with other executors of this process.
    #[must_use]
    pub fn sharing(mut self, commons: Commons) -> Self {
        self.http.tokens = commons.tokens;
        self.places = commons.places;
        self
    }

    async fn bounded(
        &self,
        hook: &Hook,
        invocation: &Invocation,
        question: Option<Question<'_>>,
    ) -> Result<Reply, Outcome> {
        let now = Instant::now();
        let deadline = now.checked_add(hook.timeout).unwrap_or(now + NEVER);
        if hook.retry.in_run.is_some() {
            return Box::pin(self.repeated(hook, invocation, question, deadline)).await;
        }
        self.once(hook, invocation, question, deadline).await
    }

    async fn once(
        &self,
        hook: &Hook,
        invocation: &Invocation,
        question: Option<Question<'_>>,
        deadline: Instant,
    ) -> Result<Reply, Outcome> {
        let place = self.places.take(hook, deadline).await;
        let _place = place.map_err(|width| no_place(hook, width))?;
        // The executors keep the deadline themselves, since only they know whether the action has taken place by then.
        let bounded = timeout_at(deadline + BACKSTOP, self.attempt(hook, invocation, question, deadline));
        isolated(bounded.map(|ended| ended.unwrap_or_else(|_| Err(timed_out(hook.timeout, ""))))).await
    }

    /// As often as the hook's policy has it within one run. The deadline is over all tries and the waits between them. What
    /// is left at the end has failed for good.
    async fn repeated(
        &self,
        hook: &Hook,
        invocation: &Invocation,
        question: Option<Question<'_>>,
        deadline: Instant,
    ) -> Result<Reply, Outcome> {
        let mut tries = 1;
        loop {
            let failure = match self.once(hook, invocation, question, deadline).await {
                Err(Outcome::Failed(failure)) => failure,
                ended => return ended,
            };
            let (class, wait) = match failure.again {
                Again::Never(class) => (class, None),
                Again::Later(hint) => (Class::Exhausted, hook.retry.delay_in_run(tries, hint, fastrand::f64())),
            };
            match wait.and_then(|wait| Instant::now().checked_add(wait)).filter(|at| *at < deadline) {
                Some(at) => {
                    Metric::Retries.count(&[("hook", hook.id.to_string())]);
                    sleep_until(at).await;
                }
                None => return Err(Outcome::Failed(Failure { again: Again::Never(class), tries, ..failure })),
            }
            tries += 1;
        }
    }

    async fn attempt(
        &self,
        hook: &Hook,
        invocation: &Invocation,
        question: Option<Question<'_>>,
        deadline: Instant,
    ) -> Result<Reply, Outcome> {
        let key = &invocation.idempotency_key();
        let exchange = dialect::encode(hook, invocation, key, question.as_ref())
            .map_err(|error| Outcome::never(Class::Invalid, error))?; // it would be the same next time
        let attempt = Attempt { hook, invocation, key, exchange, deadline, question };
        match &hook.action {
            Action::Http(action) => self.http.run(action, &attempt).await,
            // Next to starting a process a box is nothing, and every run has room for the largest.
            Action::Command(action) => Box::pin(self.commands.run(action, &attempt)).await,
            Action::Callback(name) => Box::pin(self.callbacks.run(name, &attempt)).await,
            // The catalog lets no such hook be enabled.
            Action::Model(model) => {
                let error = format!("no executor of this version runs `{}`", model.kind());
                Err(Outcome::never(Class::Invalid, error))
            }
            Action::Publish(action) => Box::pin(self.publishing.run(action, &attempt)).await,
        }
    }
}

#[async_trait]
impl Execute for Executors {
    async fn run(&self, hook: &Hook, invocation: &Invocation) -> Outcome {
        match self.bounded(hook, invocation, None).await {
            Ok(_) => Outcome::Done,
            Err(outcome) => outcome,
        }
    }

    async fn ask(&self, hook: &Hook, invocation: &Invocation, input: Option<&Json>) -> Result<Answer, Outcome> {
        if let Some(answer) = dialect::prejudged(hook, &invocation.event, input) {
            return Ok(answer);
        }
        let said = self.bounded(hook, invocation, Some(Question { input })).await?;
        Ok(said.map_or_else(Answer::default, |answer| *answer))
    }
}

/// One attempt, ready to be carried out.
struct Attempt<'a> {
    hook: &'a Hook,
    invocation: &'a Invocation,
    /// What the receiver tells repeats by.
    key: &'a str,
    /// What the hook's dialect has the target get.
    exchange: Exchange<'a>,
    deadline: Instant,
    /// A caller waits for the answer.
    question: Option<Question<'a>>,
}

impl Attempt<'_> {
    /// Reads what the target gave back, as the hook's dialect does.
    fn read(&self, raw: Raw, secrets: impl FnOnce() -> Vec<String>) -> Result<Reply, Outcome> {
        let about = About { event: &self.invocation.event, question: self.question.as_ref() };
        dialect::read(self.hook, &about, raw, secrets)
    }

    /// The outcome of an attempt that has not ended by its deadline; `said` is what the target said before.
    fn timed_out(&self, said: &str) -> Outcome {
        timed_out(self.hook.timeout, said)
    }
}

/// A panic ends the attempt, not the worker. Its message went to the panic hook; it may hold anything, so it stays there.
/// Not `async`: such a function keeps its argument twice, and this one is moved about at every event.
fn isolated<T>(run: impl Future<Output = Result<T, Outcome>>) -> impl Future<Output = Result<T, Outcome>> {
    let caught = AssertUnwindSafe(run).catch_unwind();
    caught.map(|ended| ended.unwrap_or_else(|_| Err(Outcome::later("the executor panicked"))))
}

/// The outcome of an attempt for which there was no place, so that its target was not called.
fn no_place(hook: &Hook, width: usize) -> Outcome {
    let error = format!(
        "timed out after {:?}: {width} hooks run at a time that are `{}` of the dialect {}, and none of them has ended",
        hook.timeout,
        hook.action.kind(),
        hook.dialect.name()
    );
    Outcome::Failed(Failure { of_target: false, ..Failure::new(Again::Later(None), None, error) })
}

fn timed_out(timeout: Duration, said: &str) -> Outcome {
    Outcome::later(with_excerpt(format!("timed out after {timeout:?}"), said))
}

#[cfg(test)]
mod fixture {
    use super::*;
    use crate::domain::event::{Event, Reading};
    use crate::domain::hook::fixture;
    use crate::domain::id::HookId;
    use crate::domain::message::{Message, Properties};

    /// May call this machine.
    pub(super) fn executors() -> Executors {
        let egress = config::Egress {
            allow: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            ..config::Egress::default()
        };
        Executors::new(&egress, &config::Commands::default(), Callbacks::default()).unwrap()
    }

    pub(super) fn hook(action: Action, timeout_ms: u64) -> Hook {
        Hook { action, timeout: Duration::from_millis(timeout_ms), ..fixture::hook("h-1") }
    }

    pub(super) fn invocation(body: &str) -> Invocation {
        invocation_of("a.b", body)
    }

    pub(super) fn invocation_of(kind: &str, body: &str) -> Invocation {
        let properties =
            Properties { kind: Some(kind.into()), message_id: Some("e\u{0}1".into()), ..Properties::default() };
        let message = Message { body: body.to_owned().into(), properties, ..Message::default() };
        let message = message.with("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let event = Event::decode(&message, &Reading { body_bytes_max: usize::MAX, ..Reading::default() }).unwrap();
        Invocation::first(Arc::new(event), HookId::new("h-1").unwrap(), "r1".into())
    }

    /// An outcome on one line: how it failed, its status, its error.
    pub(super) fn line(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Done => "done".to_owned(),
            Outcome::Interrupted => "interrupted".to_owned(),
            Outcome::Failed(Failure { again, status, error, .. }) => {
                let again = match again {
                    Again::Never(class) => format!("never {class:?}"),
                    Again::Later(None) => "later".to_owned(),
                    Again::Later(Some(hint)) => format!("later {hint:?}"),
                };
                let status = status.map(|status| format!(" [{status}]")).unwrap_or_default();
                format!("{again}{status}: {error}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::hook::CommandAction;

    #[test]
    fn a_run_can_be_spawned() {
        fn spawnable<T: Send>(_: &T) {}
        let action = Action::Command(CommandAction::plain(&[]));
        let (executors, hook, invocation) = (fixture::executors(), fixture::hook(action, 1), fixture::invocation("{}"));
        spawnable(&executors.run(&hook, &invocation));
        spawnable(&executors);
    }

    #[tokio::test]
    async fn a_panic_is_an_outcome() {
        let run = async { if std::env::args().count() > 0 { panic!("secret") } else { Ok(()) } };
        assert_eq!(isolated(run).await, Err(Outcome::later("the executor panicked")));
    }
}
