//! The current catalog, for a process that follows none: read when it is asked for.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use tokio::sync::watch;

use super::Backends;
use crate::catalog::apply;
use crate::catalog::files::Files;
use crate::catalog::revisions::Revisions;
use crate::catalog::{self, Catalog};
use crate::config::{CatalogFrom, Settings};
use crate::domain::revision::Revision;
use crate::operations::Hooks;

/// The hooks of the fleet's current revision, or of the hooks file of these settings, as far as they can be known anywhere:
/// what `${...}` stands for is the workers' to know. They do not change any more.
pub async fn current_hooks(settings: &Settings, backends: &Backends) -> Hooks {
    match read(settings, backends).await {
        Ok(Catalog { hooks, .. }) => Ok(watch::channel(Arc::new(hooks)).1),
        Err(error) => {
            let error =
                format!("{error:#}; give this command the settings of the workers, or ask a `hookfleet server`");
            Err(error.into())
        }
    }
}

async fn read(settings: &Settings, backends: &Backends) -> anyhow::Result<Catalog> {
    match settings.catalog.from {
        CatalogFrom::File => {
            let documents = Files::of(settings).open();
            let read = documents.and_then(|documents| catalog::read_for_others(&documents, settings.hint_max));
            read.map_err(|problems| {
                let (file, why) = (settings.hooks.display(), problems.to_string());
                anyhow!("the hooks file {file} of the settings cannot be read here: {}", first(&why))
            })
        }
        CatalogFrom::Redis => {
            let link = backends.redis.clone().context("catalog.from: redis needs redis.url")?;
            let stored = apply::current(&Revisions::new(link, &settings.namespace)).await?;
            let stored = stored.context("the fleet has no catalog yet: `hookfleet hooks apply` makes the first")?;
            let revision = Revision::Numbered(stored.about.number);
            let read = catalog::attempt_for_others(&revision, &stored.documents, settings.hint_max);
            read.map_err(|problems| anyhow!("catalog {revision} cannot be read here: {}", first(&problems.to_string())))
        }
    }
}

/// The first line of a report.
fn first(report: &str) -> &str {
    report.lines().next().unwrap_or_default()
}
