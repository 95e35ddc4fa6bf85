//! The letters where they are: in reach, or behind the process that owns the file.

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::app::Backends;
use crate::cli::remote::Remote;
use crate::config::{Backend, Settings};
use crate::dead_letters::Recovered;
use crate::domain::dead_letter::LetterId;
use crate::domain::redaction::Pointer;
use crate::domain::selection::Plan;
use crate::embedded;
use crate::operations::api_types::{
    Asked, EditAsked, Grouped, JobShown, Listed, OneAsked, PageAsked, Preview, ReplayAsked, ResolveAsked, Resolved,
};
use crate::operations::replay::Manner;
use crate::operations::{Operations, Replayed};
use crate::telemetry::now_ms;

const PATH: &str = "/v1/runtime/hooks/dead-letter";

/// How the last line of an export begins that broke off.
const BROKEN_OFF: &str = "{\"error\":";

/// The letters where they are.
pub(in crate::cli) enum Client {
    Operations(Operations, Backends),
    Owner(Remote),
}

/// A replay that can be begun, and what it would send.
pub(super) enum Ready {
    Here(Plan),
    There,
}

/// Reading a whole log takes a core: workers on the same machine go first.
const NICENESS: i32 = 10;

impl Client {
    pub(super) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        if let Backend::Embedded { path } = &settings.backend
            && let Some(address) = embedded::owner(path)
        {
            return Ok(Self::Owner(Remote::new(address, &settings.http)?));
        }
        let _ = rustix::process::nice(NICENESS); // where that cannot be had, it is only slower for others
        let backends = Backends::open(settings).await?;
        Ok(Self::Operations(backends.operations(), backends))
    }

    pub(super) async fn list(&self, asked: &PageAsked) -> anyhow::Result<Listed> {
        match self {
            Self::Operations(operations, _) => Ok(operations.list(asked).await?),
            Self::Owner(remote) => get(remote, &format!("{PATH}?{}", query(asked))).await,
        }
    }

    pub(super) async fn groups(&self, asked: &Asked) -> anyhow::Result<Grouped> {
        match self {
            Self::Operations(operations, _) => {
                Ok(Grouped { items: operations.groups(&asked.filter(now_ms())?).await? })
            }
            Self::Owner(remote) => get(remote, &format!("{PATH}/groups?{}", query(asked))).await,
        }
    }

    pub(super) async fn show(&self, id: &str, body: bool, without: &[Pointer]) -> anyhow::Result<Value> {
        match self {
            Self::Operations(operations, _) => Ok(operations.find(&LetterId::from(id)).await?.view(body, without)),
            Self::Owner(remote) => get(remote, &format!("{PATH}/{}?body={body}", segment(id))).await,
        }
    }

    /// Every letter that is asked for, whole lines at a time.
    pub(in crate::cli) async fn export(
        &self,
        asked: &Asked,
        body: bool,
        without: &[Pointer],
        sink: &mut (dyn FnMut(&str) + Send),
    ) -> anyhow::Result<()> {
        match self {
            Self::Operations(operations, _) => {
                let mut export = operations.export(&asked.filter(now_ms())?).await?;
                while let Some(details) = export.next().await? {
                    for detail in details {
                        sink(&detail.view(body, without).to_string());
                    }
                }
                Ok(())
            }
            Self::Owner(remote) => {
                let mut broken = None;
                let mut keep = |line: &str| match line.strip_prefix(BROKEN_OFF) {
                    Some(error) => broken = Some(error.to_owned()),
                    None => sink(line),
                };
                remote.lines(&format!("{PATH}/export?body={body}&{}", query(asked)), &mut keep).await?;
                broken.map_or(Ok(()), |error| anyhow::bail!("the export broke off: {}", error.trim_end_matches('}')))
            }
        }
    }

    /// What a replay would send.
    pub(super) async fn plan(&self, asked: &ReplayAsked) -> anyhow::Result<(Ready, Preview)> {
        match self {
            Self::Operations(operations, _) => {
                let purpose = manner(asked)?.purpose(asked.force)?;
                let plan = operations.plan(&asked.chosen().selection(now_ms())?, purpose).await?;
                let preview = Preview::from(&plan);
                Ok((Ready::Here(plan), preview))
            }
            Self::Owner(remote) => {
                let asked = ReplayAsked { dry_run: true, ..asked.clone() };
                Ok((Ready::There, post(remote, &format!("{PATH}/replay"), &asked).await?))
            }
        }
    }

    /// Sends one letter out again.
    pub(super) async fn replay(&self, asked: &ReplayAsked, id: &LetterId) -> anyhow::Result<Replayed> {
        match self {
            Self::Operations(operations, _) => Ok(operations.replay(id, asked.force, &manner(asked)?).await?),
            Self::Owner(remote) => {
                let ReplayAsked { force, to_hook, by, .. } = asked.clone();
                let path = format!("{PATH}/{}/replay", segment(id.as_str()));
                post(remote, &path, &OneAsked { force, to_hook, by }).await
            }
        }
    }

    pub(super) async fn job(&self, path: &str) -> anyhow::Result<JobShown> {
        match self {
            Self::Operations(..) => anyhow::bail!("jobs are those of a running `hookfleet up`"),
            Self::Owner(remote) if path.ends_with("/cancel") => post(remote, &format!("{PATH}/jobs/{path}"), &()).await,
            Self::Owner(remote) => get(remote, &format!("{PATH}/jobs/{path}")).await,
        }
    }

    pub(super) async fn start(&self, asked: &ReplayAsked) -> anyhow::Result<JobShown> {
        match self {
            Self::Operations(..) => anyhow::bail!("jobs are those of a running `hookfleet up`"),
            Self::Owner(remote) => post(remote, &format!("{PATH}/replay"), asked).await,
        }
    }

    pub(super) async fn edit(&self, id: &str, asked: EditAsked) -> anyhow::Result<Replayed> {
        match self {
            Self::Operations(operations, _) => {
                let by = asked.by.clone().unwrap_or_default();
                Ok(operations.edit(&LetterId::from(id), &asked.edit()?, &by).await?)
            }
            Self::Owner(remote) => post(remote, &format!("{PATH}/{}/edit", segment(id)), &asked).await,
        }
    }

    pub(super) async fn resolve(&self, asked: ResolveAsked) -> anyhow::Result<Resolved> {
        match self {
            Self::Operations(operations, _) => {
                let selection = asked.chosen().selection(now_ms())?;
                let by = asked.by.clone().unwrap_or_default();
                Ok(Resolved { resolved: operations.resolve(&selection, &asked.reason, &by).await? })
            }
            Self::Owner(remote) => post(remote, &format!("{PATH}/resolve"), &asked).await,
        }
    }

    pub(super) async fn recover(&self) -> anyhow::Result<String> {
        match self {
            Self::Operations(operations, backends) if backends.file.is_none() => {
                let Recovered { copies, appended } = operations.letters.log.recover().await?;
                Ok(format!("{copies} copies compared, {appended} records were missing and are back"))
            }
            Self::Operations(..) | Self::Owner(_) => {
                Ok("nothing to recover: the file is on disk before a letter is confirmed".to_owned())
            }
        }
    }

    pub(super) async fn close(self) {
        if let Self::Operations(operations, backends) = self {
            operations.broker.close().await;
            if let Some(file) = backends.file {
                file.close().await;
            }
        }
    }
}

/// As the operations wants it.
pub(super) fn manner(asked: &ReplayAsked) -> anyhow::Result<Manner> {
    let by = asked.by.as_deref().unwrap_or_default();
    Ok(Manner::new(by, asked.to_hook.as_deref(), asked.rate)?)
}

async fn get<T: DeserializeOwned>(remote: &Remote, path: &str) -> anyhow::Result<T> {
    Ok(serde_json::from_value(remote.call(Method::GET, path, None).await?)?)
}

async fn post<T: DeserializeOwned>(remote: &Remote, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
    Ok(serde_json::from_value(remote.call(Method::POST, path, Some(serde_json::to_vec(body)?)).await?)?)
}

/// An object of texts as a query.
fn query(asked: &impl Serialize) -> String {
    let asked = serde_json::to_value(asked).unwrap_or_default();
    let pairs = asked.as_object().into_iter().flatten().filter_map(|(name, value)| Some((name, value.as_str()?)));
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// A text as a part of a path.
fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}
