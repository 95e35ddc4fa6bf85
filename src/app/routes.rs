//! The routes of a process, over what it works with.

use std::sync::Arc;

use tokio::sync::watch;

use crate::app::Backends;
use crate::catalog::revisions::Revisions;
use crate::catalog::watch::Followed;
use crate::config::Settings;
use crate::domain::matching::HookSet;
use crate::http::catalog::Catalog;
use crate::http::gates::Gates;
use crate::http::gateway::{self, Gateway};
use crate::http::invocations::Invocations;
use crate::http::letters::Letters;
use crate::http::probes::Probes;
use crate::http::{Group, Intake, Kind, Routes};
use crate::operations::Operations;
use crate::operations::jobs::Jobs;

/// What the routes of a process have in common.
pub(super) struct Parts<'a> {
    pub(super) settings: &'a Settings,
    pub(super) backends: &'a Backends,
    pub(super) catalog: &'a Followed,
    /// The fleet's catalog, if that is what is followed.
    pub(super) revisions: Option<Arc<Revisions>>,
    pub(super) operations: &'a Operations,
}

impl Parts<'_> {
    /// The groups that this kind of process serves; how it is doing and who decides is its own.
    pub(super) fn routes(&self, kind: Kind, probes: &Probes, gates: impl Fn(Intake) -> Gates) -> Vec<Routes> {
        let routes = |group: &Group| match group {
            Group::Probes => Routes::Probes(probes.clone()),
            Group::Catalog => Routes::Catalog(self.catalog()),
            Group::Invocations => Routes::Invocations(invocations(self.settings, self.backends)),
            Group::Letters => Routes::Letters(self.letters()),
            Group::Gateway => Routes::Gateway(self.gateway()),
            Group::Gates => Routes::Gates(gates(self.intake())),
        };
        kind.groups().iter().map(routes).collect()
    }

    fn intake(&self) -> Intake {
        Intake { reading: self.settings.events, hooks: self.catalog.hooks.clone() }
    }

    fn gateway(&self) -> Gateway {
        let publisher = gateway::publisher(Arc::clone(&self.backends.broker), &self.settings.events);
        Gateway { intake: self.intake(), publisher }
    }

    fn catalog(&self) -> Catalog {
        Catalog {
            followed: self.catalog.clone(),
            revisions: self.revisions.clone(),
            flow: Arc::clone(&self.backends.flow),
            hint_max: self.settings.hint_max,
        }
    }

    fn letters(&self) -> Letters {
        let hooks = Ok(self.catalog.hooks.clone());
        Letters { hooks, ..letters(self.settings, self.operations.clone()) }
    }
}

/// Dead letters, where no catalog is followed.
#[must_use]
pub fn letters(settings: &Settings, operations: Operations) -> Letters {
    let hooks = Err("the catalog was not read".into());
    Letters { operations, jobs: Jobs::default(), redact: settings.redact.as_slice().into(), hooks }
}

/// The same, where the catalog is read once, or why it could not be.
#[must_use]
pub fn letters_beside(settings: &Settings, operations: Operations, hooks: anyhow::Result<Arc<HookSet>>) -> Letters {
    let hooks = hooks.map(|hooks| watch::channel(hooks).1).map_err(|error| {
        let error = format!("{error:#}; give this command the settings of the workers, or ask a `hookfleet server`");
        error.into()
    });
    Letters { hooks, ..letters(settings, operations) }
}

/// Single invocations.
#[must_use]
pub fn invocations(settings: &Settings, backends: &Backends) -> Invocations {
    Invocations { claims: Arc::clone(&backends.claims), cancelled_for: settings.cancelled_for() }
}
