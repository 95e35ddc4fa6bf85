//! Dead letters by their HTTP routes, wherever these are.

use anyhow::bail;
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;

use crate::app::current::current_hooks;
use crate::app::{Backends, routes};
use crate::cli::api::Api;
use crate::cli::connect;
use crate::cli::remote::Remote;
use crate::config::{Backend, Settings};
use crate::dead_letters::Recovered;
use crate::domain::id::LetterId;
use crate::embedded;
use crate::http::Routes;
use crate::operations::api_types::{
    Asked, EditAsked, Grouped, JobShown, Listed, PageAsked, Preview, ReplayAsked, ResolveAsked, Resolved,
};
use crate::operations::{Edited, OperationError};

const PATH: &str = "/v1/dead-letters";
/// Reading a whole log takes a core: workers on the same machine go first.
const NICENESS: i32 = 10;
/// What stands in the place of an id in other routes.
const NO_IDS: [&str; 7] = ["", ".", "..", "groups", "export", "replay", "resolve"];

/// The letters of a fleet.
pub(in crate::cli) struct Client {
    api: Api,
    /// What the routes of this process work with.
    backends: Option<Backends>,
}

impl Client {
    /// Over the process that owns the file, if one does, else over connections of our own. A file that is not there is
    /// not made: there is nothing in it.
    pub(super) async fn open(settings: &Settings, only_reads: bool) -> anyhow::Result<Self> {
        if let Backend::Embedded { path } = &settings.backend
            && let Some(owner) = embedded::owner(path)
        {
            return Ok(Self::of_owner(Remote::new(owner, &settings.http)?));
        }
        let _ = rustix::process::nice(NICENESS); // where that cannot be had, it is only slower for others
        let backends = match &settings.backend {
            Backend::Embedded { path } if only_reads || !path.exists() => Backends::open_to_read(path)?,
            _ => connect::open(settings).await?,
        };
        Ok(Self::over(settings, backends))
    }

    /// The same, with the current catalog at hand, which the process that owns the file has anyway.
    pub(super) async fn with_hooks(self, settings: &Settings) -> Self {
        let Self { backends: Some(backends), .. } = self else { return self };
        let hooks = current_hooks(settings, &backends).await;
        let letters = routes::letters_beside(settings, backends.operations(settings), hooks);
        Self { api: Api::in_process(Routes::Letters(letters)), backends: Some(backends) }
    }

    /// Over these connections.
    pub(in crate::cli) fn over(settings: &Settings, backends: Backends) -> Self {
        let letters = routes::letters(settings, backends.operations(settings));
        Self { api: Api::in_process(Routes::Letters(letters)), backends: Some(backends) }
    }

    /// Over the process that owns the file.
    pub(in crate::cli) const fn of_owner(owner: Remote) -> Self {
        Self { api: Api::Loopback(owner), backends: None }
    }

    pub(super) async fn list(&self, asked: &PageAsked) -> anyhow::Result<Listed> {
        self.api.get(&format!("{PATH}?{}", query(asked))).await
    }

    pub(super) async fn groups(&self, asked: &Asked) -> anyhow::Result<Grouped> {
        self.api.get(&format!("{PATH}/groups?{}", query(asked))).await
    }

    pub(super) async fn show(&self, id: &str, body: bool) -> anyhow::Result<Value> {
        self.api.get(&format!("{PATH}/{}?body={body}", segment(id)?)).await
    }

    /// Every letter that is asked for, whole lines at a time.
    pub(in crate::cli) async fn export(
        &self,
        asked: &Asked,
        body: bool,
        sink: &mut (dyn FnMut(&str) + Send),
    ) -> anyhow::Result<()> {
        let mut broken = None;
        let mut keep = |line: &str| match broken_off(line) {
            Some(error) => broken = Some(error),
            None => sink(line),
        };
        let path = format!("{PATH}/export?body={body}&{}", query(asked));
        self.api.send(Method::GET, &path, None).await?.lines(&mut keep).await?;
        broken.map_or(Ok(()), |error| bail!("the export broke off: {error}"))
    }

    /// What a replay would send.
    pub(super) async fn preview(&self, asked: &ReplayAsked) -> anyhow::Result<Preview> {
        self.api.post(&format!("{PATH}/replay"), &ReplayAsked { dry_run: true, ..asked.clone() }).await
    }

    /// Begins to send letters out again.
    pub(super) async fn start(&self, asked: &ReplayAsked) -> anyhow::Result<JobShown> {
        self.api.post(&format!("{PATH}/replay"), asked).await
    }

    /// How far a job is.
    pub(super) async fn job(&self, id: &str) -> anyhow::Result<JobShown> {
        self.api.get(&format!("{PATH}/jobs/{id}")).await
    }

    /// Ends a job in order.
    pub(super) async fn stop(&self, id: &str) -> anyhow::Result<JobShown> {
        self.api.post(&format!("{PATH}/jobs/{id}/cancel"), &()).await
    }

    pub(super) async fn edit(&self, id: &str, asked: &EditAsked) -> anyhow::Result<Edited> {
        self.api.post(&format!("{PATH}/{}/edit", segment(id)?), asked).await
    }

    pub(super) async fn resolve(&self, asked: &ResolveAsked) -> anyhow::Result<Resolved> {
        self.api.post(&format!("{PATH}/resolve"), asked).await
    }

    /// Appends what the broker's stream lacks; no route does that.
    pub(super) async fn recover(&self) -> anyhow::Result<String> {
        match &self.backends {
            Some(backends) if backends.file.is_none() => {
                let Recovered { copies, appended } = backends.letters.recover().await?;
                Ok(format!("{copies} copies compared, {appended} records were missing and are back"))
            }
            _ => Ok("nothing to recover: the file is on disk before a letter is confirmed".to_owned()),
        }
    }

    pub(super) async fn close(self) {
        if let Some(backends) = self.backends {
            backends.broker.close().await;
            if let Some(file) = backends.file {
                file.close().await;
            }
        }
    }
}

/// An object of texts as a query.
fn query(asked: &impl Serialize) -> String {
    let asked = serde_json::to_value(asked).unwrap_or_default();
    let pairs = asked.as_object().into_iter().flatten().filter_map(|(name, value)| Some((name, value.as_str()?)));
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// An id as a part of a path.
///
/// # Errors
/// No letter can have it: another route would be asked.
fn segment(id: &str) -> Result<String, OperationError> {
    if NO_IDS.contains(&id) {
        return Err(OperationError::Unknown(LetterId::from(id)));
    }
    Ok(url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20"))
}

/// The reason in the last line of an export that broke off. A letter is an object with other members.
fn broken_off(line: &str) -> Option<String> {
    let line: Value = if line.starts_with("{\"error\":") { serde_json::from_str(line).ok()? } else { return None };
    line.get("error").and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parts_of_paths() {
        let check = |id: &str, expected: Option<&str>| assert_eq!(segment(id).ok().as_deref(), expected, "{id}");
        check("4be1c5b0a4b1d26e5f0c3a77", Some("4be1c5b0a4b1d26e5f0c3a77"));
        check("a b/c?d", Some("a%20b%2Fc%3Fd"));
        for id in NO_IDS {
            check(id, None);
        }
    }

    #[test]
    fn exports_may_break_off() {
        let check = |line: &str, expected: Option<&str>| assert_eq!(broken_off(line).as_deref(), expected, "{line}");
        check(r#"{"error":"the log: \"gone\""}"#, Some("the log: \"gone\""));
        check(r#"{"letter":{"id":"1"},"error":"x"}"#, None);
    }
}
