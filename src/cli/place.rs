//! What a command talks to: it is said before the command does anything, so that nobody takes one fleet for another.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use url::Url;

use crate::config::{Backend, Settings, Topology};
use crate::embedded;

/// What a command talks to. No password of a URL is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Place {
    /// The servers of a fleet.
    Servers { broker: Vec<String>, redis: String, namespace: String },
    /// The file in which one process keeps everything.
    File {
        path: PathBuf,
        is_there: bool,
        /// Where the process that has it open serves HTTP.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
    },
    /// A file or folder of hooks.
    Hooks { path: PathBuf },
    /// A file that goes in the end.
    TemporaryFile,
}

impl Place {
    /// Where these settings say that events, letters and claims are.
    pub(super) fn of(settings: &Settings) -> Self {
        match &settings.backend {
            Backend::Servers { broker, redis } => Self::Servers {
                broker: broker.urls.iter().map(|url| shown(url.expose())).collect(),
                redis: match redis.topology {
                    Topology::Single => shown(redis.url.expose()),
                    Topology::Sentinels(_) => format!("{} (by Sentinel)", shown(redis.url.expose())),
                    Topology::Cluster { .. } => format!("{} (a cluster)", shown(redis.url.expose())),
                },
                namespace: settings.namespace.clone(),
            },
            Backend::Embedded { path } => Self::File {
                path: path.clone(),
                is_there: path.exists(),
                owner: embedded::owner(path).map(|owner| owner.to_string()),
            },
        }
    }

    /// Hooks that are read from disk.
    pub(super) fn hooks(path: &Path) -> Self {
        Self::Hooks { path: path.to_owned() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Servers { broker, redis, namespace } => {
                write!(f, "RabbitMQ {}, Redis {redis}, namespace {namespace}", broker.join(" "))
            }
            Self::File { path, owner: Some(owner), .. } => {
                write!(f, "the file {}, by the process that has it open at {owner}", path.display())
            }
            Self::File { path, is_there, owner: None } => {
                let state = if *is_there { "which no `hookfleet up` has open" } else { "which is not there" };
                write!(f, "the file {}, {state} (broker.url is not set)", path.display())
            }
            Self::Hooks { path } => write!(f, "the hooks of {}", path.display()),
            Self::TemporaryFile => f.write_str("a temporary file (broker.url is not set)"),
        }
    }
}

/// A URL without user, password and parameters.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path().trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settings: &str, expected: &str) {
        assert_eq!(Place::of(&Settings::from_yaml(settings).unwrap()).to_string(), expected, "{settings}");
    }

    #[test]
    fn places_are_named_without_secrets() {
        check(
            "broker: { url: 'amqp://me:hunter2@mq:5672/shop?heartbeat=5' }\nredis: { url: 'redis://:hunter2@r:6379/3' }",
            "RabbitMQ amqp://mq:5672/shop, Redis redis://r:6379/3, namespace hookfleet",
        );
        check(
            "namespace: shop\nbroker: { url: ['amqps://a', 'amqps://b'] }\n\
             redis: { url: 'redis://mymaster', sentinels: ['redis://s:26379'] }",
            "RabbitMQ amqps://a amqps://b, Redis redis://mymaster (by Sentinel), namespace shop",
        );
        check(
            "embedded: { path: /nowhere/x.db }",
            "the file /nowhere/x.db, which is not there (broker.url is not set)",
        );
    }
}
