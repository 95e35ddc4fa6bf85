//! A worker uses every core by cells: a runtime of one thread each, with connections and an HTTP client of its own, so
//! that nothing is passed between threads at every event. Permits, breakers, the catalog and tokens are the process's.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::wanted::{requests, wanted};
use super::{Backends, rules};
use crate::broker::Wanted;
use crate::broker::patience::Patience;
use crate::config::{Backend, Settings};
use crate::domain::matching::HookSet;
use crate::executor::callback::Callbacks;
use crate::executor::publish::Home;
use crate::executor::{Commons, Executors};
use crate::fleet::{Fleet, Halts};
use crate::http::process::CellView;
use crate::worker::admission::Admission;
use crate::worker::metrics::WorkerMetrics;
use crate::worker::store::Store;
use crate::worker::{InFlight, Listener, Worker};

/// What the cells of a process share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) settings: Arc<Settings>,
    pub(super) catalog: watch::Receiver<Arc<HookSet>>,
    pub(super) halts: Halts,
    /// Why the store of claims was away at the start, if it was.
    pub(super) store_away: Option<String>,
    pub(super) admission: Arc<Admission>,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) listener: Arc<Listener>,
    pub(super) callbacks: Callbacks,
    pub(super) commons: Commons,
    /// Ends the consuming of all cells.
    pub(super) stop: CancellationToken,
}

/// A cell on a thread of its own.
pub(super) struct Cell {
    thread: JoinHandle<Vec<String>>,
    pub(super) view: CellView,
}

impl Shared {
    /// A pipeline on the runtime that this is called on, `backends` being its own.
    pub(super) fn fleet(
        &self,
        backends: Backends,
        wanted: Vec<Wanted>,
        waits_for_store: bool,
    ) -> anyhow::Result<Fleet> {
        let settings = &self.settings;
        let store = Store::new(backends.claims);
        if let Some(reason) = &self.store_away {
            store.begin_away(reason);
        }
        let home = match &settings.backend {
            Backend::Servers { broker, .. } => Home::Server(broker.clone(), settings.namespace.clone()),
            Backend::Embedded { .. } => Home::Embedded(Arc::clone(&backends.broker)),
        };
        let executors = Executors::new(&settings.egress, &settings.commands, self.callbacks.clone())?
            .at(home)
            .sharing(self.commons.clone());
        let worker = Worker {
            broker: backends.broker,
            store,
            letters: backends.letters,
            executors: Arc::new(executors),
            catalog: self.catalog.clone(),
            admission: Arc::clone(&self.admission),
            metrics: Arc::clone(&self.metrics),
            rules: rules(settings),
            interrupt: CancellationToken::new(),
            tasks: TaskTracker::new(),
            in_flight: InFlight::default(),
            listener: Arc::clone(&self.listener),
        };
        Ok(Fleet {
            worker: Arc::new(worker),
            wanted,
            waits_for_store,
            halts: self.halts.clone(),
            grace: settings.worker.grace,
        })
    }

    /// Starts the cells beside the first of so many, and the one of gates.
    ///
    /// # Errors
    /// As for [`Shared::start`].
    pub(super) async fn others(&self, count: u16) -> anyhow::Result<Vec<Cell>> {
        let mut cells = Vec::new();
        for number in 1..count {
            let name = format!("hookfleet-cell-{number}");
            cells.push(self.start(name, wanted(&self.settings, count), true).await?);
        }
        if let Some(requests) = requests(&self.settings) {
            // Who asks is answered without the store too, as the hooks' `on_failure` says.
            cells.push(self.start("hookfleet-gates".to_owned(), vec![requests], false).await?);
        }
        Ok(cells)
    }

    /// Starts a cell and waits until it is connected. It ends, drained, after `stop`.
    ///
    /// # Errors
    /// No thread, or what [`Backends::open`] says.
    async fn start(&self, name: String, wanted: Vec<Wanted>, waits_for_store: bool) -> anyhow::Result<Cell> {
        let (ready, connected) = oneshot::channel();
        let shared = self.clone();
        let work = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = ready.send(Err(error.into())); // nobody waits: the process is ending
                    return Vec::new();
                }
            };
            // However this cell ends, the process does not go on without it.
            let _stop = shared.stop.clone().drop_guard();
            runtime.block_on(async {
                let patience = Patience::of(shared.settings.startup.timeout);
                let opened = async {
                    let backends = Backends::open_within(&shared.settings, &patience).await?;
                    shared.fleet(backends, wanted, waits_for_store)
                };
                match opened.await {
                    Ok(fleet) => {
                        let _ = ready.send(Ok(view(&fleet)));
                        fleet.run(shared.stop.cancelled()).await
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        Vec::new()
                    }
                }
            })
        };
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        let view = connected.await.context("a cell ended before it was connected")??;
        Ok(Cell { thread, view })
    }
}

/// What others see of a cell; to be called on its thread.
pub(super) fn view(fleet: &Fleet) -> CellView {
    let worker = &fleet.worker;
    CellView {
        health: worker.broker.health(),
        store_away: worker.store.away(),
        worker: Arc::clone(worker),
        runtime: Handle::current(),
        is_of_gates: !fleet.waits_for_store,
    }
}

/// Waits for the cells to drain; answers the names of what they cut off.
///
/// # Errors
/// A cell panicked.
pub(super) async fn join(cells: Vec<Cell>) -> anyhow::Result<Vec<String>> {
    let all = move || {
        let ended = cells.into_iter().map(|cell| cell.thread.join());
        // All are waited for, whatever became of one of them.
        let ended: Vec<_> = ended.map(|end| end.map_err(|_| anyhow::anyhow!("a cell panicked"))).collect();
        ended.into_iter().collect::<anyhow::Result<Vec<_>>>().map(|names| names.concat())
    };
    tokio::task::spawn_blocking(all).await?
}
