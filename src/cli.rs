//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Backend, Environment, Overrides, Settings};
use crate::failpoint;
use crate::telemetry::logs::last_words;
use crate::yaml::problem::Problems;
use exit::{Exit, Usage};
use place::Place;
use verify::launch::Launch;

mod answer;
mod api;
mod backup;
mod bench;
mod bridge;
mod by;
mod connect;
mod decide;
mod doctor;
mod events;
mod exit;
mod fleet;
mod hooks;
mod invocations;
mod letters;
mod listen;
mod openapi;
mod output;
mod place;
mod publish;
mod remote;
mod sample;
mod schema;
mod serve;
mod signals;
mod sink;
mod topology;
mod trial;
mod verify;

/// A fleet of stateless workers that run hooks.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 80, after_help = exit::TABLE)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Settings that every command takes; the rest come from the settings file and HOOKFLEET_*.
#[derive(Debug, Args)]
struct Common {
    /// Settings file [default: config/hookfleet.yaml, if there is one]
    #[arg(long, global = true, env = "HOOKFLEET_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, over file and environment, such as `--set worker.prefetch=64`
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// RabbitMQ, such as amqp://user:password@host:5672/vhost
    #[arg(long, global = true, value_name = "URL")]
    broker_url: Option<String>,
    /// Redis, such as redis://host:6379
    #[arg(long, global = true, value_name = "URL")]
    redis_url: Option<String>,
    /// Hooks file
    #[arg(long, global = true, value_name = "FILE")]
    hooks: Option<String>,
    /// First part of all queue and key names
    #[arg(long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// Address of metrics, health and gateway
    #[arg(long, global = true, value_name = "ADDRESS")]
    http_bind: Option<String>,
    /// Log filter, such as `info` or `hookfleet=debug`
    #[arg(long, global = true, value_name = "FILTER")]
    log_level: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything in one process: worker, event gateway, dead letters. Embedded unless a broker is configured.
    Up(serve::Up),
    /// A worker of the fleet.
    Worker,
    /// HTTP for the fleet, without a worker: events, gates, dead letters, hooks, and the status of all workers.
    Server,
    /// Publish events: one from flags, or many from NDJSON.
    Publish(publish::Publish),
    /// Ask the gates about one event: exit 0 if it may be done, 2 if not, 3 if somebody else is to be asked.
    Decide(decide::Decide),
    /// A command hook of another system: hand its event to the fleet, and answer as that system reads it.
    #[command(subcommand)]
    Bridge(bridge::Bridge),
    /// See where an event is.
    #[command(subcommand)]
    Events(events::Events),
    /// Look at hooks, and change those of the whole fleet.
    #[command(subcommand)]
    Hooks(hooks::Hooks),
    /// See the workers, pause them, let them go on.
    #[command(subcommand)]
    Fleet(fleet::Fleet),
    /// Find and replay what the fleet gave up on.
    #[command(subcommand)]
    DeadLetters(Box<letters::Letters>),
    /// Receive what hooks send, on this machine: a line a request.
    Listen(listen::Listen),
    /// Exchanges and queues on the broker.
    #[command(subcommand)]
    Topology(topology::Command),
    /// Copy the file that everything is kept in without a broker, while `up` runs or not.
    Backup(backup::Backup),
    /// Look at servers, catalog, clocks and disk: what is wrong, and what to do about it.
    Doctor(doctor::Doctor),
    /// Put load on the fleet's servers, or on a file: throughput, latency, cost, what was lost.
    Bench(bench::Bench),
    /// Look for loss and duplicates on the fleet's servers, or in a file, while workers are killed, restarted, stopped.
    Verify(verify::Verify),
    /// Every setting in force and where it comes from; secrets stay hidden.
    Settings,
    /// The JSON Schema (2020-12) of hooks files, for editors.
    Schema,
    /// What is served over HTTP, as OpenAPI 3.1.
    Openapi,
}

impl Command {
    /// What the command talks to. Those that serve log it instead, and some talk to nothing.
    fn place(&self, settings: &Settings) -> Option<Place> {
        match self {
            Self::Up(_)
            | Self::Worker
            | Self::Server
            | Self::Settings
            | Self::Bridge(_)
            | Self::Listen(_)
            | Self::Schema
            | Self::Openapi
            | Self::Topology(topology::Command::Print) => None,
            Self::Hooks(hooks) => Some(hooks.place(settings)),
            Self::Bench(_) | Self::Verify(_) if matches!(settings.backend, Backend::Embedded { .. }) => {
                Some(Place::TemporaryFile)
            }
            _ => Some(Place::of(settings)),
        }
    }
}

/// Runs a command.
///
/// # Errors
/// One sentence for the person at the terminal, with its causes.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    failpoint::pretend_version();
    let settings = cli.common.settings()?;
    output::begin(cli.common.json, cli.command.place(&settings));
    match cli.command {
        Command::Up(up) => Box::pin(serve::up(settings, up)).await,
        Command::Worker => Box::pin(serve::worker(settings)).await,
        Command::Server => serve::server(settings).await,
        Command::Publish(publish) => publish::run(&settings, publish).await,
        Command::Decide(decide) => decide::run(&settings, decide).await,
        Command::Bridge(bridge) => bridge::run(&settings, bridge).await,
        Command::Events(events) => events::run(&settings, events).await,
        Command::Hooks(hooks) => hooks::run(&settings, hooks).await,
        Command::Fleet(fleet) => fleet::run(&settings, fleet).await,
        Command::DeadLetters(letters) => letters::run(&settings, *letters).await,
        Command::Listen(listen) => listen::run(listen).await,
        Command::Topology(command) => topology::run(&settings, command).await,
        Command::Backup(backup) => backup::run(&settings, backup).await,
        Command::Doctor(doctor) => doctor::run(&settings, &doctor).await,
        Command::Bench(bench) => Box::pin(bench::run(settings, bench)).await,
        Command::Verify(verify) => verify::run(settings, cli.common.launch()?, verify).await,
        Command::Settings => {
            output::answer(&settings.as_json(), || settings.shown())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Schema => {
            schema::run();
            Ok(ExitCode::SUCCESS)
        }
        Command::Openapi => {
            openapi::run()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Says what went wrong, causes included.
#[must_use]
pub fn fail(error: &anyhow::Error) -> ExitCode {
    let problems = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(Usage::Settings(problems)) => Some(problems),
        _ => cause.downcast_ref::<Problems>(),
    });
    match problems {
        Some(problems) => last_words(problems.to_string()), // each says "error" by itself
        None => last_words(format!("error: {error:#}")),
    }
    Exit::of(error).into()
}

/// Reads the arguments of this process.
///
/// # Errors
/// How the process ends: after help that was asked for, or with what is wrong with the arguments.
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        let _ = error.print(); // nobody reads it
        if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
    })
}

impl Common {
    fn settings(&self) -> anyhow::Result<Settings> {
        let settings = Settings::load(self.config.as_deref(), &Environment::of_process(), &self.overrides());
        Ok(settings.map_err(Usage::Settings)?)
    }

    /// How this program is started again with the same settings.
    fn launch(&self) -> std::io::Result<Launch> {
        Launch::new(self.config.clone(), &self.overrides())
    }

    fn overrides(&self) -> Overrides {
        let flags = [
            ("broker.url", &self.broker_url),
            ("redis.url", &self.redis_url),
            ("hooks", &self.hooks),
            ("namespace", &self.namespace),
            ("http.bind", &self.http_bind),
            ("log.level", &self.log_level),
        ];
        let named = flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
        Overrides(self.set.iter().cloned().chain(named).collect())
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.to_owned())),
        None => Err(format!("expected KEY=VALUE, found \"{text}\"")),
    }
}
