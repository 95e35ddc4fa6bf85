//! A worker in a program of one's own, whose functions hooks may call.

use super::App;
use super::start::Start;
use crate::catalog::files::Files;
use crate::catalog::watch::Source;
use crate::catalog::{Terms, variable};
use crate::config::{Backend, CatalogFrom, Settings};
use crate::dialect::kheish::HookInvocation;
use crate::domain::decision::Answer;
use crate::executor::callback::{Call, Callbacks, Failed};
use crate::http::Kind;
use crate::worker::no_listener;

/// Runs hooks in this process: all that `hookfleet up` does for an embedded file, and `hookfleet worker` on servers,
/// with functions of this program beside.
///
/// ```no_run
/// use hookfleet::{Failed, Fleet, Settings};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let fleet = Fleet::builder(Settings::of_process()?).callback("audit", |call| async move {
///     let total: u64 = call.data().map_err(Failed::never)?;
///     println!("{} of {total}, under {}", call.kind(), call.key);
///     Ok(())
/// });
/// let cut_off = fleet.run(async { drop(tokio::signal::ctrl_c().await) }).await?;
/// assert!(cut_off.is_empty(), "they will be taken over: {cut_off:?}");
/// # Ok(())
/// # }
/// ```
///
/// A hook calls it by its name: `run: { callback: audit }`. Hooks that name one which is not there are refused where hooks are
/// read, so programs that share a catalog have to have the same callbacks. Where hooks run commands too, set `commands.shim` to
/// a `hookfleet` program, which starts them.
#[derive(Debug)]
pub struct Fleet {
    settings: Settings,
    callbacks: Callbacks,
}

impl Fleet {
    /// With these settings, and no callback yet.
    #[must_use]
    pub fn builder(settings: Settings) -> Self {
        Self { settings, callbacks: Callbacks::default() }
    }

    /// A function that hooks call by this name. It runs on the runtime that [`Fleet::run`] is called on. A panic is an attempt
    /// that failed, and so is a call that has not ended by the hook's `timeout`: its future is dropped then.
    #[must_use]
    pub fn callback<F>(mut self, name: &str, callback: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        self.callbacks.add(name, callback);
        self
    }

    /// A function that decides, for hooks with `mode: gate` that name it: as [`Fleet::callback`], with an answer.
    ///
    /// ```no_run
    /// use hookfleet::{Answer, Failed, Fleet, Settings};
    ///
    /// # fn example(settings: Settings) -> Fleet {
    /// Fleet::builder(settings).gate("freeze", |call| async move {
    ///     let target: String = call.data().map_err(Failed::never)?;
    ///     Ok(if target == "production" { Answer::refusal("a freeze is on") } else { Answer::default() })
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn gate<F>(mut self, name: &str, callback: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Answer, Failed>> + Send + 'static,
    {
        self.callbacks.add_gate(name, callback);
        self
    }

    /// A function for hooks of Kheish that name it, as its daemon calls one: with the invocation of the hook, and an answer.
    ///
    /// ```no_run
    /// use hookfleet::{Answer, Fleet, Settings};
    ///
    /// # fn example(settings: Settings) -> Fleet {
    /// Fleet::builder(settings).kheish_callback("guard", |invocation| async move {
    ///     let is_known = invocation.subject.as_deref() == Some("bash");
    ///     Ok(if is_known { Answer::default() } else { Answer::refusal("only bash here") })
    /// })
    /// # }
    /// ```
    ///
    /// An error is tried again as the hook's `retry` says, and [`Failed::never`] is not. A panic is one try that has failed
    /// for good, as there.
    #[must_use]
    pub fn kheish_callback<F>(
        mut self,
        name: &str,
        callback: impl Fn(HookInvocation<'static>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Answer, Failed>> + Send + 'static,
    {
        self.callbacks.add_kheish(name, callback);
        self
    }

    /// Works until `shutdown` completes, and drains then. Answers the names of the runs that were cut off: others take them
    /// over.
    ///
    /// # Errors
    /// One sentence: what cannot be reached, opened or read, and what to do.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Vec<String>, FleetError> {
        self.work(shutdown).await.map_err(FleetError)
    }

    async fn work(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<Vec<String>> {
        let Self { settings, mut callbacks } = self;
        callbacks.run_here();
        let file = source(&settings, &callbacks)?;
        let is_alone = matches!(settings.backend, Backend::Embedded { .. });
        let start = Start::new(&settings, if is_alone { Kind::Up } else { Kind::Worker }).await?;
        let backends = start.open(&settings).await?;
        let source = file.map_or_else(|| backends.shared(&settings), Ok)?;
        let app = App::new(&settings, start, backends, source, no_listener(), callbacks).await?;
        tracing::info!(address = %app.address(), "a worker is up");
        app.run(shutdown).await
    }
}

/// Why a fleet did not start, or had to end: what cannot be reached, opened or read, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct FleetError(anyhow::Error);

/// The hooks of files, if that is where they come from: a worker does not start on a mistake.
///
/// # Errors
/// Everything that is wrong with them.
pub fn source(settings: &Settings, callbacks: &Callbacks) -> anyhow::Result<Option<Source>> {
    if settings.catalog.from == CatalogFrom::Redis {
        return Ok(None);
    }
    let callbacks = callbacks.names();
    let terms = Terms {
        hint_max: settings.hint_max,
        env: &variable,
        egress: &settings.egress.allow,
        callbacks: Some(&callbacks),
    };
    let files = Files::of(settings);
    let catalog = files.load(&terms)?;
    for warning in &catalog.warnings {
        tracing::warn!("{warning:#}");
    }
    Ok(Some(Source::File(files, catalog)))
}
