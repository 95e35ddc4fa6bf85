//! Settings: `config/hookfleet.yaml`, then `HOOKFLEET_*`, then flags; resolved and checked once, as a whole.
//!
//! `table` says what settings there are, `raw` gathers what was said about each, `resolve` makes [`Settings`] of it.
//! Invariant: who holds [`Settings`] holds checked ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::domain::dialect::Dialect;
use crate::domain::event::Reading;
use crate::domain::flow::BreakerPolicy;
use crate::domain::hook::HookLane;
use crate::domain::redaction::Pointer;
use crate::domain::secret::Secret;
use crate::yaml;
use crate::yaml::problem::{At, Mismatch, Problems};
use crate::yaml::report::Report;

mod broker;
mod catalog;
mod egress;
mod http;
pub(crate) mod parse;
mod raw;
mod redis;
mod resolve;
mod shown;
mod table;

pub use egress::{Egress, Proxy};
pub use http::{BernsteinSecrets, Http, ServerCertificate};

/// The settings file that is read if none is named.
pub const DEFAULT_FILE: &str = "config/hookfleet.yaml";

/// Everything a process needs to know, checked. README has the list of what can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// First part of every queue, exchange and key name, so that two fleets can share a broker and a Redis.
    #[doc(hidden)]
    pub namespace: String,
    /// Where events and invocations travel, and where claims are kept.
    #[doc(hidden)]
    pub backend: Backend,
    /// Hooks file, or a folder of them.
    #[doc(hidden)]
    pub hooks: PathBuf,
    #[doc(hidden)]
    pub catalog: Catalog,
    #[doc(hidden)]
    pub http: Http,
    #[doc(hidden)]
    pub startup: Startup,
    #[doc(hidden)]
    pub worker: Worker,
    #[doc(hidden)]
    pub gates: Gates,
    #[doc(hidden)]
    pub claims: Claims,
    #[doc(hidden)]
    pub breaker: BreakerPolicy,
    #[doc(hidden)]
    pub events: Reading,
    /// Longest `Retry-After` that is honoured.
    #[doc(hidden)]
    pub hint_max: Duration,
    #[doc(hidden)]
    pub egress: Egress,
    #[doc(hidden)]
    pub commands: Commands,
    /// How long the dead-letter log keeps records; replays are remembered as long.
    #[doc(hidden)]
    pub dead_letter_retention: Duration,
    /// Places in the data of events that views leave out.
    #[doc(hidden)]
    pub redact: Vec<Pointer>,
    #[doc(hidden)]
    pub log: Log,
    /// For [`Settings::shown`].
    effective: Vec<shown::Effective>,
}

/// The environment as it was at one moment. Variables that are no UTF-8 and empty ones count as not set.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// Settings from flags: paths such as `broker.url`, and values written as in variables.
#[derive(Debug, Clone, Default)]
pub struct Overrides(pub Vec<(String, String)>);

/// Broker and claims together: a fleet has both on servers, a single process both in one file.
#[derive(Debug, Clone)]
pub enum Backend {
    Servers {
        broker: Box<BrokerServer>,
        redis: Box<Redis>,
    },
    Embedded {
        /// The SQLite file; one process owns it.
        path: PathBuf,
    },
}

/// How the message broker is reached.
#[derive(Debug, Clone)]
pub struct BrokerServer {
    /// `amqp[s]://user:password@host:port/vhost`, one for each node; at least one.
    pub urls: Vec<Secret<Url>>,
    /// A file with the password, in place of the one in the URLs. What it holds may change at any time.
    pub password_file: Option<PathBuf>,
    pub tls: Tls,
    /// The name that the broker's certificate has to have, if it is not the URL's host.
    pub tls_name: Option<String>,
    /// The management API, if it is not where the URLs let one expect it.
    pub management: Option<Secret<Url>>,
}

impl BrokerServer {
    /// One node, with nothing but its URL.
    #[must_use]
    pub fn at(url: Url) -> Self {
        let urls = vec![Secret::new(url)];
        Self { urls, password_file: None, tls: Tls::default(), tls_name: None, management: None }
    }
}

/// How the store of claims is reached.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `redis[s]://[user[:password]@]host[:port][/database]`; with sentinels, the host is the name of the primary.
    pub url: Secret<Url>,
    /// A file with the password, if the URL has none. What it holds may change at any time.
    pub password_file: Option<PathBuf>,
    pub tls: Tls,
    pub topology: Topology,
}

/// What stands behind the URL of the store of claims.
#[derive(Debug, Clone)]
pub enum Topology {
    /// One server.
    Single,
    /// A primary and its replicas; these sentinels know which of them is the primary.
    Sentinels(Vec<Secret<Url>>),
    /// A Redis Cluster. The node in the URL and these are asked for the others.
    Cluster { nodes: Vec<Node> },
}

/// A server by its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
}

/// Files (PEM) for connections with TLS.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Who is trusted in place of the public authorities.
    pub ca: Option<PathBuf>,
    pub client: Option<ClientCertificate>,
}

/// How this process shows who it is.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The certificate, then those that lead to the authority.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where workers take their hooks from.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub from: CatalogFrom,
    /// Whose words hooks files are in.
    pub dialect: Dialect,
    /// Where the last good catalog of Redis is kept.
    pub cache: Option<PathBuf>,
    /// How long ago Redis may have confirmed what is kept there.
    pub max_age: Duration,
}

/// What a catalog is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogFrom {
    File,
    Redis,
}

/// How long servers that are away are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Startup {
    /// By a process that starts.
    pub timeout: Duration,
    /// By a command at a terminal.
    pub command_timeout: Duration,
}

/// How a worker takes and leaves work.
#[derive(Debug, Clone, Copy)]
pub struct Worker {
    /// Threads that work.
    pub cells: u16,
    /// Unacked deliveries a queue.
    pub prefetch: u16,
    /// Runs at a time in this process, in each lane.
    pub concurrency: usize,
    /// The lanes whose hooks run here, by place in [`HookLane::ALL`].
    pub lanes: [bool; HookLane::ALL.len()],
    /// No delivery is held longer than this.
    pub hold_max: Duration,
    /// Time that runs get to finish at shutdown.
    pub grace: Duration,
}

/// How requests to gates are taken.
#[derive(Debug, Clone, Copy)]
pub struct Gates {
    /// Requests in hand at a time, and runs of gates; 0: this process takes none from the queue.
    pub concurrency: u16,
    /// How long a request may take that does not say so itself.
    pub deadline: Duration,
}

/// How claims are kept.
#[derive(Debug, Clone, Copy)]
pub struct Claims {
    /// A run that is not renewed this long is taken over.
    pub lease: Duration,
    /// How long a finished invocation is remembered.
    pub window: Duration,
    pub when_away: WhenAway,
}

/// What to do while the store of claims is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAway {
    /// Take no new work until it is back: nothing runs twice.
    Hold,
    /// Run first attempts without a claim: nothing waits, redeliveries may run twice.
    Proceed,
}

/// Which programs command hooks may run.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    /// Program names or paths, as hooks write them in `argv[0]`. Empty: command hooks are off.
    pub allow: Vec<String>,
    /// Names of variables that programs inherit.
    pub env: Vec<String>,
    /// The hookfleet program that starts them; `None`: this one, where it is one.
    pub shim: Option<PathBuf>,
}

/// Logging.
#[derive(Debug, Clone)]
pub struct Log {
    /// `tracing` filter, such as `info` or `hookfleet=debug`.
    pub filter: String,
    pub json: bool,
    /// Show payloads in debug lines.
    pub payloads: bool,
}

/// The names of the variables that set a setting, such as `broker.url`; none if there is no such setting.
#[must_use]
pub fn variables(path: &str) -> Vec<String> {
    table::find(path).map(table::Setting::variables).unwrap_or_default()
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
            .collect()
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The names of all variables that are set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().filter(|(_, text)| !text.is_empty()).collect())
    }
}

impl Settings {
    /// How long an invocation is remembered that an operator cancelled: as long as any message of it may be on its way.
    #[doc(hidden)]
    #[must_use]
    pub fn cancelled_for(&self) -> Duration {
        self.claims.window.max(self.dead_letter_retention)
    }

    /// As the program `hookfleet` has them without flags: `config/hookfleet.yaml`, if there is one, and over it the variables
    /// `HOOKFLEET_*` of this process.
    ///
    /// # Errors
    /// Every problem, wherever it is.
    ///
    /// ```no_run
    /// let settings = hookfleet::Settings::of_process()?;
    /// # Ok::<(), hookfleet::Problems>(())
    /// ```
    pub fn of_process() -> Result<Self, Problems> {
        Self::load(None, &Environment::of_process(), &Overrides::default())
    }

    /// From the text of a settings file alone.
    ///
    /// # Errors
    /// Every problem of the text.
    ///
    /// ```
    /// let settings = hookfleet::Settings::from_yaml("namespace: shop\nembedded: { path: shop.db }");
    /// assert!(settings.is_ok());
    /// let problems = hookfleet::Settings::from_yaml("namspace: shop").unwrap_err();
    /// assert!(problems.to_string().contains("did you mean `namespace`?"));
    /// ```
    pub fn from_yaml(text: &str) -> Result<Self, Problems> {
        Self::parse(text, "settings", &Environment::default(), &Overrides::default())
    }

    /// Reads `file`, or [`DEFAULT_FILE`] if none is named and there is one; then the environment; then flags.
    ///
    /// # Errors
    /// Every problem, wherever it is.
    #[doc(hidden)]
    pub fn load(file: Option<&Path>, env: &Environment, flags: &Overrides) -> Result<Self, Problems> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = if file.is_none() && matches!(path.try_exists(), Ok(false)) {
            Ok(String::new())
        } else {
            yaml::read_file(path, yaml::BYTES_MAX)
        };
        Self::from_parts(text, &path.display().to_string(), env, flags)
    }

    /// Like [`Settings::load`], from the text of a file; `file` is the name that problems show.
    ///
    /// # Errors
    /// Every problem, wherever it is.
    #[doc(hidden)]
    pub fn parse(text: &str, file: &str, env: &Environment, flags: &Overrides) -> Result<Self, Problems> {
        Self::from_parts(Ok(text.to_owned()), file, env, flags)
    }

    fn from_parts(
        text: Result<String, Mismatch>,
        file: &str,
        env: &Environment,
        flags: &Overrides,
    ) -> Result<Self, Problems> {
        let (text, unreadable) = text.map_or_else(|mismatch| (String::new(), Some(mismatch)), |text| (text, None));
        let report = Report::new(file, &text);
        let root = yaml::parse(&report);
        // Without the file, relations between settings would be found broken that are fine in truth.
        let whole = root.is_some() && unreadable.is_none();
        if let Some(mismatch) = unreadable {
            report.push(At::File, "", mismatch);
        }
        let root = root.unwrap_or(yaml::Node::NOTHING);
        let raw = raw::Raw::gather(&report, &root, env, flags);
        let settings = if whole { resolve::resolve(&raw) } else { None };
        report.into_result(settings)
    }
}

#[cfg(test)]
mod tests;
