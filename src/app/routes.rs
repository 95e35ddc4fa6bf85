//! The routes of a process, over what it works with.

use std::sync::Arc;

use crate::app::Backends;
use crate::catalog::files::Files;
use crate::catalog::revisions::Revisions;
use crate::catalog::watch::Followed;
use crate::config::Settings;
use crate::http::catalog::Catalog;
use crate::http::gates::Gates;
use crate::http::gateway::{self, Gateway};
use crate::http::invocations::Invocations;
use crate::http::kheish::Kheish;
use crate::http::letters::Letters;
use crate::http::probes::Probes;
use crate::http::{Group, Intake, Kind, Routes};
use crate::operations::events::Events;
use crate::operations::jobs::Jobs;
use crate::operations::{Hooks, Operations};

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
        let routes = |group: &Group| {
            Some(match group {
                Group::Probes => Routes::Probes(probes.clone()),
                Group::Catalog => Routes::Catalog(self.catalog(gates(self.intake()))),
                Group::Invocations => Routes::Invocations(self.invocations()),
                Group::Letters => Routes::Letters(self.letters()),
                Group::Gateway => Routes::Gateway(self.gateway()),
                Group::Gates => Routes::Gates(gates(self.intake())),
                Group::Kheish if !self.settings.http.kheish_api => return None,
                Group::Bernstein if !self.settings.http.bernstein.serves_paths() => return None,
                Group::Bernstein => Routes::Bernstein(self.gateway()),
                Group::Kheish => {
                    let catalog = self.catalog(gates(self.intake()));
                    let (files, operations) = (Files::of(self.settings), self.operations.clone());
                    Routes::Kheish(Kheish { catalog, files, operations })
                }
            })
        };
        kind.groups().iter().filter_map(routes).collect()
    }

    fn intake(&self) -> Intake {
        Intake { reading: self.settings.events, hooks: self.catalog.hooks.clone() }
    }

    fn gateway(&self) -> Gateway {
        let publisher = gateway::publisher(Arc::clone(&self.backends.broker), &self.settings.events);
        let bernstein = Arc::new(self.settings.http.bernstein.clone());
        Gateway { intake: self.intake(), publisher, bernstein }
    }

    /// Changes of the catalog are asked about at these gates.
    fn catalog(&self, gates: Gates) -> Catalog {
        Catalog {
            consent: Arc::new(gates),
            followed: self.catalog.clone(),
            revisions: self.revisions.clone(),
            flow: Arc::clone(&self.backends.flow),
            hint_max: self.settings.hint_max,
        }
    }

    fn invocations(&self) -> Invocations {
        let hooks = Ok(self.catalog.hooks.clone());
        invocations(self.settings, self.backends, self.operations.clone(), hooks)
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

/// The same, where the catalog was read once.
#[must_use]
pub fn letters_beside(settings: &Settings, operations: Operations, hooks: Hooks) -> Letters {
    Letters { hooks, ..letters(settings, operations) }
}

/// Single invocations, and the events that they are of.
#[must_use]
pub fn invocations(settings: &Settings, backends: &Backends, operations: Operations, hooks: Hooks) -> Invocations {
    let (claims, file) = (Arc::clone(&backends.claims), backends.file.clone());
    Invocations { events: Events { claims, operations, hooks, file }, cancelled_for: settings.cancelled_for() }
}
