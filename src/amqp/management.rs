//! A small client of RabbitMQ's management API: what is there, and setting policies. Every question has a bound on its
//! time; nothing here is needed for running hooks.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use url::Url;

use super::connection::{login, vhost};
use super::policy::harm::InForce;
use super::policy::{ExchangeFound, Policy, PolicyFound, QueueFound};
use super::tls;
use crate::config::BrokerServer;
use crate::domain::secret::Secret;
use crate::error_chain::root;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why the API gave no answer. `Display` never shows a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagementError {
    /// Nothing answers: the plugin is off, or it is elsewhere.
    #[error("{0}")]
    Away(String),
    /// It answers, and will answer the same next time.
    #[error("{0}")]
    Refused(String),
}

/// The broker in general.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Overview {
    pub rabbitmq_version: String,
    #[serde(default)]
    pub cluster_name: String,
}

/// A binding of the vhost; an empty source is the default exchange.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BindingFound {
    pub source: String,
    pub destination: String,
    /// `queue` or `exchange`.
    pub destination_type: String,
    pub routing_key: String,
}

/// A node of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeFound {
    pub name: String,
    pub running: bool,
    /// It has too little memory, or disk: it takes no messages.
    pub mem_alarm: bool,
    pub disk_free_alarm: bool,
    /// Nodes that it has lost sight of.
    pub partitions: Vec<String>,
}

impl NodeFound {
    /// Why it does not serve as it should, if so, one sentence each.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let name = &self.name;
        if !self.running {
            return vec![format!("node {name} does not run")];
        }
        let mut troubles = Vec::new();
        if self.mem_alarm {
            troubles.push(format!("node {name} is short of memory: the broker takes no messages"));
        }
        if self.disk_free_alarm {
            troubles.push(format!("node {name} is short of disk space: the broker takes no messages"));
        }
        if !self.partitions.is_empty() {
            troubles.push(format!("node {name} has lost sight of {}", self.partitions.join(", ")));
        }
        troubles
    }
}

/// The management API of a broker, seen from one vhost.
#[derive(Debug)]
pub struct Management {
    client: Client,
    /// Without user and password. The first that answers is asked.
    bases: Vec<Url>,
    user: String,
    password: Secret<String>,
    vhost: String,
}

impl Management {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    /// One sentence: a file or URL of the settings is no good.
    pub async fn new(server: &BrokerServer) -> Result<Self, String> {
        let Some(first) = server.urls.first().map(Secret::expose) else {
            return Err("broker.url names no broker".to_owned());
        };
        let client = Client::builder()
            .tls_backend_preconfigured(tls::client_config(&server.tls).await?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| format!("cannot set up the HTTP client: {error}"))?;
        let (mut user, mut password) = login(server, first).await?;
        let bases = match &server.management {
            None => server.urls.iter().filter_map(|url| derived(url.expose())).collect(),
            Some(url) => {
                let url = url.expose();
                if !url.username().is_empty() {
                    user = decoded(url.username());
                    password = decoded(url.password().unwrap_or_default());
                }
                vec![bare(url.clone())]
            }
        };
        Ok(Self { client, bases, user, password: Secret::new(password), vhost: vhost(first)? })
    }

    /// # Errors
    /// See [`ManagementError`]; as for all that follow.
    pub async fn overview(&self) -> Result<Overview, ManagementError> {
        self.get(&["overview"]).await
    }

    /// The queues of the vhost.
    pub async fn queues(&self) -> Result<Vec<QueueFound>, ManagementError> {
        self.get(&["queues", &self.vhost]).await
    }

    /// The exchanges of the vhost.
    pub async fn exchanges(&self) -> Result<Vec<ExchangeFound>, ManagementError> {
        self.get(&["exchanges", &self.vhost]).await
    }

    /// What holds for queues and exchanges of the vhost.
    pub async fn in_force(&self) -> Result<InForce, ManagementError> {
        let (queues, exchanges, policies) = tokio::try_join!(self.queues(), self.exchanges(), self.policies())?;
        Ok(InForce { queues, exchanges, policies })
    }

    /// The bindings of the vhost.
    pub async fn bindings(&self) -> Result<Vec<BindingFound>, ManagementError> {
        self.get(&["bindings", &self.vhost]).await
    }

    /// The policies of the vhost.
    pub async fn policies(&self) -> Result<Vec<PolicyFound>, ManagementError> {
        self.get(&["policies", &self.vhost]).await
    }

    /// The nodes of the cluster.
    pub async fn nodes(&self) -> Result<Vec<NodeFound>, ManagementError> {
        self.get(&["nodes"]).await
    }

    /// Sets a policy, or sets it again.
    pub async fn set_policy(&self, policy: &Policy) -> Result<(), ManagementError> {
        let Policy { name, pattern, definition, .. } = policy;
        let body = json!({ "pattern": pattern, "definition": definition, "apply-to": "queues", "priority": 0 });
        self.ask(Method::PUT, &["policies", &self.vhost, name], |request| request.json(&body)).await.map(|_| ())
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ManagementError> {
        let answer = self.ask(Method::GET, path, |request| request).await?;
        answer.json().await.map_err(|error| {
            ManagementError::Refused(format!("the management API said something unexpected about {path:?}: {error}"))
        })
    }

    /// Asks one base after the other until one answers.
    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<reqwest::Response, ManagementError> {
        let mut away = Vec::new();
        for base in &self.bases {
            let mut url = base.clone();
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop_if_empty().push("api").extend(path);
            }
            let request = self.client.request(method.clone(), url);
            let request = fill(request.basic_auth(&self.user, Some(self.password.expose())));
            match request.send().await {
                Ok(answer) => return self.judge(base, path, answer),
                Err(error) => away.push(format!("{base} ({})", root(&error))),
            }
        }
        Err(ManagementError::Away(format!(
            "no management API answers at {}: switch it on (rabbitmq-plugins enable rabbitmq_management), or set \
             broker.management_url",
            away.join(", ")
        )))
    }

    fn judge(
        &self,
        base: &Url,
        path: &[&str],
        answer: reqwest::Response,
    ) -> Result<reqwest::Response, ManagementError> {
        let (user, vhost) = (&self.user, &self.vhost);
        let refused = |text: String| Err(ManagementError::Refused(text));
        match answer.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => refused(format!(
                "the management API at {base} refused user \"{user}\": it needs the tag `policymaker` \
                 (rabbitmqctl set_user_tags {user} policymaker) and permissions on vhost \"{vhost}\""
            )),
            StatusCode::NOT_FOUND => {
                refused(format!("the management API at {base} knows no {path:?}: is vhost \"{vhost}\" there?"))
            }
            status => refused(format!("the management API at {base} answered {status} about {path:?}")),
        }
    }
}

/// Where the API of a node is by default.
fn derived(broker: &Url) -> Option<Url> {
    let (scheme, port) = if broker.scheme() == "amqps" { ("https", 15671) } else { ("http", 15672) };
    Url::parse(&format!("{scheme}://{}:{port}", broker.host_str()?)).ok()
}

fn bare(mut url: Url) -> Url {
    // Neither fails for a URL with a host, which the settings have checked.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

fn decoded(text: &str) -> String {
    url::form_urlencoded::parse(format!("x={}", text.replace('+', "%2B")).as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_looked_for_beside_the_broker() {
        let check = |broker: &str, expected: &str| {
            assert_eq!(derived(&Url::parse(broker).unwrap()).unwrap().as_str(), expected);
        };
        check("amqp://user:secret@mq:5673/x", "http://mq:15672/");
        check("amqps://mq", "https://mq:15671/");
        check("amqp://[::1]:5672", "http://[::1]:15672/");
        assert_eq!(bare(Url::parse("http://a:b@h:1/x").unwrap()).as_str(), "http://h:1/x");
        assert_eq!(decoded("p%40+ss"), "p@+ss");
    }

    #[test]
    fn nodes_in_trouble() {
        let node = |text: &str| serde_json::from_str::<NodeFound>(text).unwrap().troubles().join("; ");
        assert_eq!(node(r#"{"name":"a@h","running":true,"mem_alarm":false,"partitions":[]}"#), "");
        assert_eq!(node(r#"{"name":"a@h","running":false}"#), "node a@h does not run");
        assert_eq!(
            node(r#"{"name":"a@h","running":true,"mem_alarm":true,"partitions":["b@h"]}"#),
            "node a@h is short of memory: the broker takes no messages; node a@h has lost sight of b@h"
        );
    }

    #[tokio::test]
    async fn where_nothing_answers_it_says_so() {
        let server = BrokerServer {
            management: Some(Secret::new(Url::parse("http://me:hunter2@127.0.0.1:1").unwrap())),
            ..BrokerServer::at(Url::parse("amqp://h").unwrap())
        };
        let error = Management::new(&server).await.unwrap().overview().await.unwrap_err();
        assert!(matches!(&error, ManagementError::Away(text) if text.contains("127.0.0.1:1")), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
