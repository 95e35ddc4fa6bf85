//! Runs a hook by calling a function of the program that this library is part of.
//!
//! Functions run on the runtime of that program, as tasks of their own: one that panics or never ends is an outcome. One that
//! blocks its thread holds up what else runs on that thread, as anywhere; on a runtime of one thread that is a part of the
//! worker too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryFutureExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;

use super::Attempt;
use crate::dialect::kheish::HookInvocation;
use crate::domain::contract::{Raw, Reply};
use crate::domain::decision::{Answer, Decided, Decision};
use crate::domain::event::Event;
use crate::domain::excerpt::excerpt;
use crate::domain::failure::Class;
use crate::domain::outcome::{Again, Failure, Outcome};

type Running = Pin<Box<dyn Future<Output = Result<Option<Box<Answer>>, Failed>> + Send>>;
type Callback = Arc<dyn Fn(Call) -> Running + Send + Sync>;

/// The functions that hooks may call, by name.
#[derive(Clone, Default)]
pub struct Callbacks {
    named: BTreeMap<String, Callback>,
    /// Where they run; none: where the worker does.
    runtime: Option<Handle>,
}

impl Callbacks {
    /// Under a name that hooks have in `callback`; another one under it is replaced.
    pub fn add<F>(&mut self, name: impl Into<String>, callback: impl Fn(Call) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        self.named.insert(name.into(), Arc::new(move |call| Box::pin(callback(call).map_ok(|()| None))));
    }

    /// As [`Callbacks::add`], with an answer for those who wait for one.
    pub fn add_gate<F>(&mut self, name: impl Into<String>, callback: impl Fn(Call) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Answer, Failed>> + Send + 'static,
    {
        let answers = move |call| -> Running { Box::pin(callback(call).map_ok(|answer| Some(Box::new(answer)))) };
        self.named.insert(name.into(), Arc::new(answers));
    }

    /// As [`Callbacks::add_gate`], with what hooks of Kheish are called with.
    pub fn add_kheish<F>(
        &mut self,
        name: impl Into<String>,
        callback: impl Fn(HookInvocation<'static>) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<Answer, Failed>> + Send + 'static,
    {
        let answers = move |call: Call| -> Running {
            match HookInvocation::of_event(&call.event).map(HookInvocation::into_owned) {
                Ok(invocation) => Box::pin(callback(invocation).map_ok(|answer| Some(Box::new(answer)))),
                Err(error) => Box::pin(ready(Err(Failed::never(error)))),
            }
        };
        self.named.insert(name.into(), Arc::new(answers));
    }

    /// They run on the runtime that this is called on.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn run_here(&mut self) {
        self.runtime = Some(Handle::current());
    }

    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        self.named.keys().cloned().collect()
    }

    /// Calls it, and leaves it at the attempt's deadline.
    pub(super) async fn run(&self, name: &str, attempt: &Attempt<'_>) -> Result<Reply, Outcome> {
        let Some(callback) = self.named.get(name) else {
            return Err(Outcome::never(Class::Invalid, format!("this program has no callback `{name}`")));
        };
        // In the task, so that a panic before the first await is its own too.
        let (callback, call) = (Arc::clone(callback), Call::of(attempt));
        let running = async move { callback(call).await };
        let running = match &self.runtime {
            Some(runtime) => runtime.spawn(running),
            None => tokio::spawn(running),
        };
        match timeout_at(attempt.deadline, AbortOnDropHandle::new(running)).await {
            Err(_) => Err(attempt.timed_out("")),
            Ok(Ok(Ok(answer))) => attempt.read(Raw::Value(answer), Vec::new),
            Ok(Ok(Err(failed))) => Err(failed.outcome()),
            Ok(Err(error)) if error.is_panic() => attempt.read(Raw::Panic, Vec::new),
            Ok(Err(_)) => Err(Outcome::Interrupted), // its runtime ends
        }
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.named.keys()).finish()
    }
}

/// One attempt, as a callback gets it.
///
/// ```
/// # async fn charge(key: &str, cents: u64) -> std::io::Result<()> { Ok(()) }
/// #[derive(serde::Deserialize)]
/// struct Order {
///     cents: u64,
/// }
///
/// async fn book(call: hookfleet::Call) -> Result<(), hookfleet::Failed> {
///     let order: Order = call.data().map_err(hookfleet::Failed::never)?; // it will be the same the next time
///     charge(&call.key, order.cents).await?; // an error is tried again, under the same key
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    /// The same over all attempts and replays of one event at one hook: keep those that you have handled, and you will
    /// never do a thing twice.
    pub key: String,
    /// The hook's id.
    pub hook: String,
    /// From 1 on.
    pub attempt: u32,
    /// How often an operator has sent it again.
    pub generation: u32,
    event: Arc<Event>,
    decision: Option<Decided>,
}

impl Call {
    fn of(attempt: &Attempt<'_>) -> Self {
        let invocation = attempt.invocation;
        Self {
            key: attempt.key.to_owned(),
            hook: attempt.hook.id.to_string(),
            attempt: invocation.at.attempt,
            generation: invocation.at.generation,
            event: Arc::clone(&invocation.event),
            decision: invocation.decision.clone(),
        }
    }

    /// The event's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.event.id
    }

    /// Where the event comes from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.event.source
    }

    /// The event's type.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.event.kind
    }

    /// What the event is about.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.event.subject.as_deref()
    }

    /// The whole event, as CloudEvents has it in JSON.
    #[must_use]
    pub fn event(&self) -> &[u8] {
        &self.event.body
    }

    /// What gates have said of the event, where they were asked; of one that nobody decided in time, nothing.
    #[must_use]
    pub fn decision(&self) -> Option<Decision> {
        serde_json::from_str(self.decision.as_ref()?.as_json()).ok()
    }

    /// The event's data; of an event without any, what `null` is read as.
    ///
    /// # Errors
    /// They are of another type. With `?` in a callback that is a failure like others; since the same data come again at
    /// every attempt, [`Failed::never`] fits better.
    pub fn data<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        #[derive(Deserialize)]
        struct Data<T> {
            data: T,
        }
        let whole: serde_json::Value = serde_json::from_slice(&self.event.body)?;
        let data = whole.get("data").cloned().unwrap_or_default();
        serde_json::from_value::<Data<T>>(serde_json::json!({ "data": data })).map(|whole| whole.data)
    }
}

/// Why a callback has not done what it is for. Any error becomes one that may pass by itself, with its text.
///
/// ```
/// use std::time::Duration;
///
/// use hookfleet::{Call, Failed};
///
/// async fn mirror(call: Call) -> Result<(), Failed> {
///     match call.subject() {
///         None => Err(Failed::never("expected a subject, found none")),
///         Some("/busy") => Err(Failed::after(Duration::from_secs(30), "the mirror is busy")),
///         Some(file) => {
///             std::fs::copy(file, "/mnt/mirror")?; // tried again as the hook's `retry` says
///             Ok(())
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Failed {
    again: Again,
    error: String,
}

impl Failed {
    /// It may pass by itself: the hook's `retry` says when it is tried again.
    pub fn later(error: impl fmt::Display) -> Self {
        Self { again: Again::Later(None), error: error.to_string() }
    }

    /// It is tried again no sooner than this, up to `retry.hint_max`.
    pub fn after(wait: Duration, error: impl fmt::Display) -> Self {
        Self { again: Again::Later(Some(wait)), error: error.to_string() }
    }

    /// It would be the same however often it is tried: a dead letter at once.
    pub fn never(error: impl fmt::Display) -> Self {
        Self { again: Again::Never(Class::Rejected), error: error.to_string() }
    }

    fn outcome(self) -> Outcome {
        let error = excerpt(self.error.as_bytes(), Vec::new());
        Outcome::Failed(Failure::new(self.again, None, error))
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::later(error)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::panic::resume_unwind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::fixture::{hook, invocation, invocation_of, line};
    use super::super::{Execute as _, Executors};
    use super::*;
    use crate::config;
    use crate::domain::dialect::Dialect;
    use crate::domain::hook::{Action, Hook};
    use crate::domain::retry::RetryPolicy;

    fn executors(callbacks: Callbacks) -> Executors {
        Executors::new(&config::Egress::default(), &config::Commands::default(), callbacks).unwrap()
    }

    async fn run(executors: &Executors, name: &str) -> String {
        line(&executors.run(&hook(Action::Callback(name.to_owned()), 300), &invocation(r#"{"n":7}"#)).await)
    }

    #[tokio::test]
    async fn what_it_comes_to() {
        let mut callbacks = Callbacks::default();
        callbacks.add("done", |_| async { Ok(()) });
        callbacks.add("later", |_| async { Err(Failed::later("not\nnow")) });
        callbacks.add("after", |_| async { Err(Failed::after(Duration::from_secs(7), "busy")) });
        callbacks.add("never", |_| async { Err(Failed::never("no")) });
        callbacks.add("error", |_| async { Ok("x".parse::<u8>().map(|_| ())?) });
        callbacks.add("panics", |call| async move { if call.attempt > 0 { panic!("secret") } else { Ok(()) } });
        callbacks.add("panics-at-once", |call| {
            assert!(call.attempt > 9, "secret");
            async { Ok(()) }
        });
        callbacks.add("hangs", |_| pending());
        let executors = executors(callbacks);
        for (name, expected) in [
            ("done", "done"),
            ("later", "later: not now"),
            ("after", "later 7s: busy"),
            ("never", "never Rejected: no"),
            ("error", "later: invalid digit found in string"),
            ("panics", "later: the callback panicked"),
            ("panics-at-once", "later: the callback panicked"),
            ("hangs", "later: timed out after 300ms"),
            ("unknown", "never Invalid: this program has no callback `unknown`"),
        ] {
            assert_eq!(run(&executors, name).await, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn what_it_answers() {
        let mut callbacks = Callbacks::default();
        callbacks.add("observes", |_| async { Ok(()) });
        callbacks.add_gate("refuses", |call| async move { Ok(Answer::refusal(&format!("not {}", call.kind()))) });
        callbacks.add_gate("fails", |_| async { Err(Failed::never("no")) });
        let executors = executors(callbacks);
        let ask = async |name: &str| {
            let hook = hook(Action::Callback(name.to_owned()), 300);
            executors.ask(&hook, &invocation("{}"), None).await.map_err(|outcome| line(&outcome))
        };
        assert_eq!(ask("observes").await, Ok(Answer::default()));
        assert_eq!(ask("refuses").await, Ok(Answer::refusal("not a.b")));
        assert_eq!(ask("fails").await, Err("never Rejected: no".to_owned()));
        assert_eq!(run(&executors, "refuses").await, "done", "an event asks nobody");
    }

    #[tokio::test]
    async fn what_it_gets() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Numbered {
            n: u32,
        }
        let mut callbacks = Callbacks::default();
        callbacks.add("looks", |call| async move {
            let key = invocation(r#"{"n":7}"#).idempotency_key();
            assert_eq!((call.key.as_str(), call.hook.as_str(), call.attempt, call.generation), (&*key, "h-1", 1, 0));
            assert_eq!((call.kind(), call.subject()), ("a.b", None));
            assert!(call.data::<Numbered>().is_ok_and(|data| data == Numbered { n: 7 }));
            assert!(call.data::<Vec<u8>>().is_err());
            Ok(())
        });
        assert_eq!(run(&executors(callbacks), "looks").await, "done");
    }

    /// What hooks of Kheish are called with, and what a hook of ours is called with that names such a function.
    #[tokio::test]
    async fn what_hooks_of_kheish_get() {
        let mut callbacks = Callbacks::default();
        callbacks.add_kheish("says", |invocation| async move {
            let payload: BTreeMap<String, u32> = invocation.payload()?;
            let said = format!(
                "{} of {:?} in {:?}: {payload:?}",
                invocation.event.snake, invocation.subject, invocation.session_id
            );
            Ok(Answer::refusal(&said))
        });
        callbacks.add_kheish("panics", |invocation| async move {
            assert_eq!(invocation.event.snake, "stop", "secret");
            Ok(Answer::default())
        });
        let executors = executors(callbacks);
        let ask = async |dialect, name: &str, kind: &str, body: &str| {
            let retry = RetryPolicy { attempts: 4, ..crate::dialect::retry(Dialect::Kheish, &[]).unwrap() };
            let hook = Hook { dialect, retry, ..hook(Action::Callback(name.to_owned()), 2_000) };
            let answered = executors.ask(&hook, &invocation_of(kind, body), None).await;
            answered.map_err(|outcome| (line(&outcome), outcome))
        };
        let body = r#"{"event":"pre_tool_use","subject":"bash","session_id":"s","payload":{"n":7}}"#;
        let said = r#"pre_tool_use of Some("bash") in Some("s"): {"n": 7}"#;
        for dialect in [Dialect::Kheish, Dialect::Native] {
            let found = ask(dialect, "says", "kheish.pre_tool_use", body).await;
            assert_eq!(found.unwrap(), Answer::refusal(said), "{dialect:?}");
        }
        let (failed, outcome) = ask(Dialect::Kheish, "panics", "kheish.pre_tool_use", body).await.unwrap_err();
        assert_eq!(failed, "never Exhausted: hook task panicked");
        assert!(matches!(outcome, Outcome::Failed(Failure { tries: 1, .. })), "a panic is not tried again");
        let of_ours = ask(Dialect::Kheish, "says", "order.paid", r#"{"n":7}"#).await.unwrap_err();
        assert_eq!(
            of_ours.0, "never Exhausted: invalid type: string \"1.0\", expected u32 at line 1 column 20",
            "the whole event"
        );
    }

    /// One that panics one time in ten and hangs one time in a hundred: counts are right, and nothing is left running.
    #[tokio::test]
    async fn ten_thousand_of_which_some_fail() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let (calls, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut callbacks = Callbacks::default();
        let (count, counted) = (Arc::clone(&calls), Arc::clone(&running));
        callbacks.add("some", move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            counted.fetch_add(1, Ordering::SeqCst);
            let running = Counted(Arc::clone(&counted));
            async move {
                let _running = running;
                match number % 100 {
                    50 => pending().await,
                    tens if tens % 10 == 0 => resume_unwind(Box::new(())), // a panic that says nothing
                    _ => Ok(()),
                }
            }
        });
        let executors = executors(callbacks);
        let mut found = BTreeMap::<String, usize>::new();
        for _ in 0..20 {
            for outcome in futures_util::future::join_all((0..500).map(|_| run(&executors, "some"))).await {
                *found.entry(outcome).or_default() += 1;
            }
        }
        let found: Vec<(&str, usize)> = found.iter().map(|(outcome, count)| (outcome.as_str(), *count)).collect();
        assert_eq!(
            found,
            [("done", 9_000), ("later: the callback panicked", 900), ("later: timed out after 300ms", 100)]
        );
        while running.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await; // those that were left are gone as soon as they are looked at
        }
    }
}
