//! The current catalog, for a process that follows none: read when it is asked for.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use super::Backends;
use crate::catalog::apply;
use crate::catalog::revisions::Revisions;
use crate::catalog::{self, Catalog};
use crate::config::{CatalogFrom, Settings};
use crate::domain::matching::HookSet;
use crate::domain::revision::Revision;

/// The hooks of the fleet's current revision, or of the hooks file of these settings, as far as they can be known anywhere:
/// what `${...}` stands for is the workers' to know.
///
/// # Errors
/// There is no catalog, or it cannot be read.
pub async fn current_hooks(settings: &Settings, backends: &Backends) -> anyhow::Result<Arc<HookSet>> {
    let catalog = match settings.catalog.from {
        CatalogFrom::File => {
            let file = settings.hooks.display();
            let documents = catalog::open(&settings.hooks);
            let read = documents.and_then(|documents| catalog::read_for_others(&documents, settings.hint_max));
            read.map_err(|problems| {
                anyhow!("the hooks file {file} of the settings cannot be read here: {}", first(&problems.to_string()))
            })?
        }
        CatalogFrom::Redis => {
            let link = backends.redis.clone().context("catalog.from: redis needs redis.url")?;
            let stored = apply::current(&Revisions::new(link, &settings.namespace)).await?;
            let stored = stored.context("the fleet has no catalog yet: `hookfleet hooks apply` makes the first")?;
            let revision = Revision::Numbered(stored.about.number);
            let read = catalog::attempt_for_others(&revision, &stored.documents, settings.hint_max);
            read.map_err(|problems| {
                anyhow!("the catalog {revision} cannot be read here: {}", first(&problems.to_string()))
            })?
        }
    };
    let Catalog { hooks, .. } = catalog;
    Ok(Arc::new(hooks))
}

/// The first line of a report.
fn first(report: &str) -> &str {
    report.lines().next().unwrap_or_default()
}
