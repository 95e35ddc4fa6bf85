//! HTTP for people, programs and probes: groups of routes, each with a state of its own.
//!
//! Which groups a process serves is a list: [`Kind::groups`] says it for the commands of the program, and [`Routes`] are
//! the groups with what their handlers work with. `app` puts them together.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::config::{BernsteinSecrets, Http};
use crate::telemetry::Registry;

mod access;
mod bernstein;
mod browser;
pub mod catalog;
mod connections;
mod dialects;
mod extract;
pub mod fleet;
pub mod gates;
pub mod gateway;
mod hook_events;
mod intake;
pub mod invocations;
pub mod kheish;
pub mod letters;
pub mod openapi;
pub mod probes;
mod problem;
pub mod process;
mod repeats;
mod serving;
pub mod source;
mod status;
mod tls;
mod unknown;

use access::Door;
use browser::Local;
use catalog::Catalog;
use connections::Site;
use gates::Gates;
use gateway::Gateway;
use invocations::Invocations;
use kheish::Kheish;
use letters::Letters;
use probes::Probes;
use serving::Starting;
use tls::Certificate;

pub use intake::Intake;
pub use serving::Serving;

/// A kind of process, by the command that starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `hookfleet worker`: runs hooks.
    Worker,
    /// `hookfleet server`: serves everything for the fleet, and runs no hooks.
    Server,
    /// `hookfleet up`: runs hooks, and serves everything.
    Up,
}

/// Routes that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Metrics, health, status and the document of all routes.
    Probes,
    /// The hooks in force, and changing them.
    Catalog,
    /// Single invocations.
    Invocations,
    /// Dead letters.
    Letters,
    /// Events in.
    Gateway,
    /// Decisions.
    Gates,
    /// Kheish's own paths, where `http.kheish_api` is set.
    Kheish,
    /// Bernstein's own paths, where a secret of theirs is set.
    Bernstein,
}

impl Group {
    const ALL: [Self; 8] = [
        Self::Probes,
        Self::Catalog,
        Self::Invocations,
        Self::Letters,
        Self::Gateway,
        Self::Gates,
        Self::Kheish,
        Self::Bernstein,
    ];

    /// What it is, in a word or two.
    const fn what(self) -> &'static str {
        match self {
            Self::Probes => "metrics, health, readiness and status",
            Self::Catalog => "hooks",
            Self::Invocations => "single invocations",
            Self::Letters => "dead letters",
            Self::Gateway => "events",
            Self::Gates => "decisions of gates",
            Self::Kheish => "paths of Kheish (with `http.kheish_api`)",
            Self::Bernstein => {
                "paths of Bernstein (with `http.bernstein_hook_secret` or `http.bernstein_webhook_secret`)"
            }
        }
    }

    /// Its routes as a document.
    fn documented(self) -> OpenApiRouter {
        let document = match self {
            Self::Probes => probes::router(None).into_openapi(),
            Self::Catalog => catalog::router(None).into_openapi(),
            Self::Invocations => invocations::router(None).into_openapi(),
            Self::Letters => letters::router(None).into_openapi(),
            Self::Gateway => {
                let bernstein = bernstein::payloads(None, &BernsteinSecrets::default());
                gateway::router(None).merge(hook_events::router(None)).merge(bernstein).into_openapi()
            }
            Self::Gates => gates::router(None).merge(dialects::router(None)).into_openapi(),
            Self::Kheish => kheish::router(None).into_openapi(),
            Self::Bernstein => bernstein::router().into_openapi(),
        };
        OpenApiRouter::with_openapi(document)
    }
}

impl Kind {
    const ALL: [Self; 3] = [Self::Worker, Self::Server, Self::Up];

    /// The command that starts it.
    #[must_use]
    pub const fn command(self) -> &'static str {
        match self {
            Self::Worker => "hookfleet worker",
            Self::Server => "hookfleet server",
            Self::Up => "hookfleet up",
        }
    }

    /// What it serves.
    #[must_use]
    pub const fn groups(self) -> &'static [Group] {
        match self {
            Self::Worker => &[Group::Probes],
            Self::Server | Self::Up => &Group::ALL,
        }
    }
}

/// A group of routes, with the state of its handlers.
#[derive(Clone)]
pub enum Routes {
    Probes(Probes),
    Catalog(Catalog),
    Invocations(Invocations),
    Letters(Letters),
    Gateway(Gateway),
    Gates(Gates),
    Kheish(Kheish),
    Bernstein(Gateway),
}

impl Routes {
    /// The routes behind the roles that they take; without a door behind none.
    fn router(self, door: Option<&Arc<Door>>) -> OpenApiRouter {
        match self {
            Self::Probes(state) => probes::router(door).with_state(state),
            Self::Catalog(state) => catalog::router(door).with_state(state),
            Self::Invocations(state) => invocations::router(door).with_state(state),
            Self::Letters(state) => letters::router(door).with_state(state),
            Self::Gateway(state) => {
                let bernstein = bernstein::payloads(door, &state.bernstein);
                gateway::router(door).merge(hook_events::router(door)).merge(bernstein).with_state(state)
            }
            Self::Gates(state) => gates::router(door).merge(dialects::router(door)).with_state(state),
            Self::Kheish(state) => kheish::router(door).with_state(state),
            Self::Bernstein(state) => bernstein::router().with_state(state),
        }
    }
}

/// These routes for calls within the process, which need no role.
pub fn in_process(served: Vec<Routes>) -> Router {
    merged(served, None).split_for_parts().0
}

fn merged(served: Vec<Routes>, door: Option<&Arc<Door>>) -> OpenApiRouter {
    served.into_iter().map(|routes| routes.router(door)).fold(openapi::base(), OpenApiRouter::merge)
}

/// The address of a process, with what is checked before a request is taken there.
pub struct Front {
    listener: TcpListener,
    door: Arc<Door>,
    certificate: Option<Arc<Certificate>>,
}

impl Front {
    /// Over this listener.
    ///
    /// # Errors
    /// One sentence: tokens or certificate cannot be read.
    pub fn new(listener: TcpListener, settings: &Http) -> io::Result<Self> {
        let door = Arc::new(Door::new(settings, listener.local_addr()?)?);
        let certificate = settings.certificate.as_ref().map(Certificate::read).transpose()?.map(Arc::new);
        Ok(Self { listener, door, certificate })
    }

    /// Begins to serve as a process of this kind. Until it takes its routes, it says that it is starting and what it waits
    /// for.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn begin(
        self,
        kind: Kind,
        metrics: Arc<Registry>,
        waiting: watch::Receiver<Option<String>>,
    ) -> io::Result<Serving> {
        let Self { listener, door, certificate } = self;
        let address = listener.local_addr()?;
        let local = Local { is_loopback: address.ip().is_loopback(), is_tls: certificate.is_some() };
        let (taken, closing) = (Arc::default(), CancellationToken::new());
        let routes = serving::router(Starting { metrics, waiting }, Arc::clone(&taken));
        let routes = routes.layer(from_fn_with_state(local, browser::guard));
        let site = Site { listener, certificate, routes, bound: connections::bound(kind) };
        let task = tokio::spawn(site.serve(closing.clone().cancelled_owned()));
        Ok(Serving { address, kind, door, routes: taken, closing, task })
    }
}

/// These routes as a process of this kind serves them, and a problem for every other request.
fn routes(served: Vec<Routes>, kind: Kind, door: &Arc<Door>) -> Router {
    unknown::answered(merged(served, Some(door)).split_for_parts().0, kind)
}
