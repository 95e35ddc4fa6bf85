//! The catalog of the whole fleet, at the command line.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;

use super::Change;
use crate::catalog::apply::{self, Applied, Done, Refused, Wish, apply};
use crate::catalog::consent::{Consent, Way};
use crate::catalog::diff::{self, Changes};
use crate::catalog::files::Files;
use crate::catalog::revisions::{About, Revisions, Stored};
use crate::catalog::{self, Document};
use crate::cli::output;
use crate::cli::output::time;
use crate::cli::sink::Sink;
use crate::config::{CatalogFrom, Redis, Settings};
use crate::domain::decision::Decision;
use crate::domain::dialect::Dialect;
use crate::domain::revision::Revision;
use crate::executor;
use crate::flow::redis::RedisFlow;
use crate::publish;
use crate::redis::connection::Link;
use crate::telemetry::now_ms;

/// The fleet's catalog, and whom it concerns.
pub(super) struct Shared<'s> {
    revisions: Revisions,
    flow: RedisFlow,
    settings: &'s Settings,
}

impl<'s> Shared<'s> {
    pub(super) fn new(redis: &Redis, settings: &'s Settings) -> Self {
        executor::install_crypto();
        let link = Link::new(redis.clone());
        let revisions = Revisions::new(link.clone(), &settings.namespace);
        Self { revisions, flow: RedisFlow::new(link, &settings.namespace), settings }
    }

    pub(super) async fn apply(&self, path: &Path, change: Change, dry_run: bool) -> anyhow::Result<()> {
        self.change(documents(&Files::at(path, self.settings))?, change, dry_run).await
    }

    pub(super) async fn rollback(&self, number: u64, change: Change) -> anyhow::Result<()> {
        let Stored { documents, .. } = self.revisions.get(number).await?;
        let message = change.message.or_else(|| Some(format!("back to r{number}")));
        self.change(documents, Change { message, ..change }, false).await
    }

    async fn change(&self, documents: Vec<Document>, change: Change, dry_run: bool) -> anyhow::Result<()> {
        let Change { expect_revision: expected, message, by, skip_hooks } = change;
        let hint_max = self.settings.hint_max;
        let (by, at_ms, way) = (by.name(), now_ms(), Way::CommandLine);
        let wish = Wish { documents, expected, by, message, dry_run, at_ms, hint_max, way, skip_hooks };
        let applied = apply(&self.revisions, &self.flow, &Gates(self.settings), wish).await;
        let Applied { done, changes, warnings } = applied.map_err(|refused| match refused {
            Refused::Invalid(problems) => anyhow!(problems), // shown as a compiler would
            other => anyhow!(other),
        })?;
        for warning in warnings {
            output::err(&format!("{warning}\n"));
        }
        if self.settings.catalog.from == CatalogFrom::File {
            output::err("note: by these settings workers take their hooks from files (catalog.from: redis changes it)");
        }
        let (what, about, text) = match &done {
            Done::Same(about) => {
                ("same", Some(about), format!("nothing to change: this is {} already", name(about.number)))
            }
            Done::Tried => ("tried", None, format!("would change:\n{changes}")),
            Done::New(about) => {
                let text = format!("{} is the current revision, with {} hooks", name(about.number), about.hooks);
                ("changed", Some(about), format!("{text}\n{changes}"))
            }
        };
        output::answer(&json!({ "done": what, "revision": about, "changes": changes.to_string() }), || text)
    }

    pub(super) async fn diff(&self, path: &Path) -> anyhow::Result<()> {
        let new = documents(&Files::at(path, self.settings))?;
        let hint_max = self.settings.hint_max;
        let hooks = catalog::read_for_others(&new, hint_max)?.hooks;
        let current = apply::current(&self.revisions).await?;
        let changes = Changes::between(&apply::hooks(current.as_ref(), hint_max), &hooks).to_string();
        let old = current.map(|stored| stored.documents).unwrap_or_default();
        let texts = diff::texts(&old, &new);
        output::answer(&json!({ "changes": changes, "texts": texts }), || {
            if texts.is_empty() { changes.clone() } else { format!("{changes}\n\n{texts}") }
        })
    }

    /// The text alone goes to standard output, so that it can be written to a file. Several are no hooks file together.
    pub(super) async fn show(&self, number: Option<u64>, folder: Option<&Path>) -> anyhow::Result<()> {
        let stored = match number {
            Some(number) => Some(self.revisions.get(number).await?),
            None => apply::current(&self.revisions).await?,
        };
        let Stored { about, documents } = stored.ok_or_else(|| anyhow!(NONE))?;
        if output::is_json() && folder.is_none() {
            let texts: Vec<_> = documents.iter().map(|it| json!({ "name": it.name, "text": it.text })).collect();
            return output::answer(&json!({ "revision": about, "items": texts }), String::new);
        }
        output::err(&line(&about));
        match (folder, documents.as_slice()) {
            (Some(folder), documents) => save(folder, documents)?,
            (None, [document]) => output::out(&document.text),
            (None, documents) => {
                let count = documents.len();
                bail!("expected a catalog of one file, found {count}: write them into a folder with `--output DIR`")
            }
        }
        Ok(())
    }

    /// Those of the current revision.
    pub(super) async fn documents(&self) -> anyhow::Result<Vec<Document>> {
        let current = apply::current(&self.revisions).await?;
        Ok(current.ok_or_else(|| anyhow!(NONE))?.documents)
    }

    pub(super) async fn history(&self) -> anyhow::Result<()> {
        let history = self.revisions.history().await?;
        output::answer(&json!({ "items": history }), || match history.as_slice() {
            [] => NONE.to_owned(),
            history => history.iter().map(line).collect::<Vec<_>>().join("\n"),
        })
    }
}

/// The gates of the fleet, asked over its broker.
struct Gates<'s>(&'s Settings);

#[async_trait]
impl Consent for Gates<'_> {
    async fn decide(&self, invocation: Bytes) -> Result<Decision, String> {
        let Self(settings) = self;
        let event = publish::foreign(Dialect::Kheish, &[], &invocation, None, &settings.events);
        let event = event.map_err(|rejected| rejected.sentence().to_owned())?;
        let sink = Sink::open(settings).await.map_err(|error| format!("{error:#}"))?;
        let decided = sink.publisher.decide(&event, settings.gates.deadline).await;
        sink.close().await;
        decided.map_err(|error| error.to_string())
    }
}

const NONE: &str = "there is no catalog yet: `hookfleet hooks apply` makes the first";

fn name(number: u64) -> Revision {
    Revision::Numbered(number)
}

fn line(about: &About) -> String {
    let About { number, digest, at_ms, by, message, hooks, .. } = about;
    let message = message.as_deref().unwrap_or_default();
    format!("{:<6} {digest}  {}  {hooks:>5} hooks  {by:<12}  {message}", name(*number).to_string(), time(*at_ms))
        .trim_end()
        .to_owned()
}

/// The documents at a path, under the names that they have in any folder.
fn documents(files: &Files) -> anyhow::Result<Vec<Document>> {
    let mut documents = files.open()?;
    for document in &mut documents {
        if let Some(name) = Path::new(&document.name).file_name() {
            document.name = name.to_string_lossy().into_owned();
        }
    }
    Ok(documents)
}

/// Writes documents as the files of a folder, which `apply` takes back, or none if one is there already.
fn save(folder: &Path, documents: &[Document]) -> anyhow::Result<()> {
    let mut paths = Vec::new();
    for Document { name, dialect, .. } in documents {
        if Path::new(name).file_name() != Some(name.as_ref()) {
            bail!("expected documents that are named as files of one folder, found {name:?}");
        }
        // `apply` takes *.yaml of a folder, and of another system the file that its hooks are in.
        let is_named = !dialect.is_native()
            || Path::new(name).extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let path = folder.join(if is_named { name.clone() } else { format!("{name}.yaml") });
        if path.symlink_metadata().is_ok() {
            bail!("{} is there already: name another folder", path.display());
        }
        paths.push(path);
    }
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for (path, document) in paths.iter().zip(documents) {
        let written = std::fs::File::create_new(path).and_then(|mut file| file.write_all(document.text.as_bytes()));
        written.with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dialect::Dialect;

    #[test]
    fn documents_become_files_again() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("catalog");
        let documents = |names: &[&str]| -> Vec<Document> {
            names.iter().map(|name| Document::native(*name, format!("version: 1 # {name}"))).collect()
        };
        let read = |dialect| super::documents(&Files { path: folder.clone(), dialect }).unwrap();
        save(&folder, &documents(&["1.yaml", "2.yml"])).unwrap();
        assert_eq!(read(Dialect::Kheish), documents(&["1.yaml", "2.yml"]));
        let refused = save(&folder, &documents(&["0.yaml", "2.yml"])).unwrap_err().to_string();
        assert!(refused.contains("2.yml is there already"), "{refused}");
        assert!(!folder.join("0.yaml").exists(), "all or none");
        for name in ["../3.yaml", "/3.yaml", "..", ""] {
            let refused = save(&folder, &documents(&[name])).unwrap_err().to_string();
            assert!(refused.contains("named as files of one folder"), "{refused}");
        }
        save(&folder, &documents(&["plain"])).unwrap();
        assert!(folder.join("plain.yaml").exists(), "apply takes *.yaml of a folder");
        let foreign = Document { name: "hooks.json".into(), text: "{}".into(), dialect: Dialect::Kheish };
        save(&folder, std::slice::from_ref(&foreign)).unwrap();
        assert_eq!(read(Dialect::Kheish)[0], foreign);
        assert_eq!(read(Dialect::Native).len(), 3, "another system's file is for those who name its dialect");
    }
}
