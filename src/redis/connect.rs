//! New connections to Redis: whom to ask, with which password and certificates, and whether what answers will do.
//!
//! Everything is looked up anew each time: names, password, certificates, and who the primary is. So a failover, a new
//! password or a new certificate needs no restart.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use ::redis::io::tcp::TcpSettings;
use ::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo as _, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode, Value, cmd,
    from_redis_value,
};
use futures_util::StreamExt as _;
use futures_util::future::{join_all, join3};
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;
use url::Url;

use super::error::{Failure, Hello, Place, PlaceKind, Trouble, judge};
use crate::config::{Node, Redis, Tls, Topology};
use crate::domain::secret::Secret;

/// Longest wait for one server: address, TCP, TLS and greeting.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a connection that can be used, whoever has to be asked on the way.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two tries of a call inside a cluster, at least and at most, in milliseconds.
const CLUSTER_WAIT_MS: (u64, u64) = (10, 100);
const CLUSTER_TRIES: u32 = 4;

/// A connection that calls share. Cheap to clone.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    /// Knows which node has which key, and follows keys that move.
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::One(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// Asks this node of a cluster; a single server is the only one.
    pub(super) async fn query_at<T: FromRedisValue>(&mut self, node: &Node, command: &Cmd) -> RedisResult<T> {
        let Self::Cluster(connection) = self else { return self.query(command).await };
        let at = SingleNodeRoutingInfo::ByAddress { host: node.host.clone(), port: node.port };
        Ok(from_redis_value(connection.route_command(command.clone(), RoutingInfo::SingleNode(at)).await?)?)
    }
}

/// Where to connect to, and with what.
pub(super) struct Dial {
    redis: Redis,
    call_timeout: Duration,
    place: Place,
}

/// Credentials and certificates as they are now.
struct Access {
    user: Option<String>,
    password: Option<String>,
    database: i64,
    /// With TLS: what to trust and what to show.
    certificates: Option<TlsCertificates>,
}

impl Dial {
    /// `call_timeout` is the longest that a call to a node of a cluster may take.
    pub(super) fn new(redis: Redis, call_timeout: Duration) -> Self {
        let place = place(&redis);
        Self { redis, call_timeout, place }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// A new connection, and who is at its other end.
    pub(super) async fn open(&self) -> Result<(Connection, String), Trouble> {
        let late = || Trouble::away(format!("{} did not answer within {OPEN_TIMEOUT:?}", self.place.shown));
        timeout(OPEN_TIMEOUT, self.open_in_time()).await.map_err(|_| late())?
    }

    async fn open_in_time(&self) -> Result<(Connection, String), Trouble> {
        let url = self.redis.url.expose();
        let password = match &self.redis.password_file {
            Some(path) => Some(read_password(path).await?),
            None => None,
        };
        let access = Access::new(url, password, &self.redis.tls, &self.place).await?;
        match &self.redis.topology {
            Topology::Single => {
                let (node, place) = (node(url, 6379), &self.place);
                let connection = self.server(&node, &access, place).await?;
                Ok((Connection::One(connection), shown(&node)))
            }
            Topology::Sentinels(sentinels) => self.primary(sentinels, &access).await,
            Topology::Cluster { nodes } => self.cluster(nodes, &access).await,
        }
    }

    /// A server that says it is what is needed.
    async fn server(&self, node: &Node, access: &Access, place: &Place) -> Result<MultiplexedConnection, Trouble> {
        let (connection, hello) = greeted(node, access, place).await?;
        hello.check(place)?;
        Ok(connection)
    }

    /// Asks all sentinels at once and takes the first primary that is one: some may be away, or out of date.
    async fn primary(&self, sentinels: &[Secret<Url>], access: &Access) -> Result<(Connection, String), Trouble> {
        let name = self.redis.url.expose().host_str().unwrap_or_default();
        let asked = sentinels.iter().map(|sentinel| ask_sentinel(sentinel.expose(), name, &self.redis.tls));
        let mut answers: FuturesUnordered<_> = asked.collect();
        let (mut tried, mut troubles) = (Vec::new(), Vec::new());
        while let Some(answer) = answers.next().await {
            let node = match answer {
                Ok(node) if tried.contains(&node) => continue,
                Ok(node) => node,
                Err(trouble) => {
                    troubles.push(trouble);
                    continue;
                }
            };
            let shown = shown(&node);
            let place = Place { shown: format!("the primary \"{name}\" at {shown}"), ..self.place.clone() };
            match self.server(&node, access, &place).await {
                Ok(connection) => return Ok((Connection::One(connection), shown)),
                Err(trouble) => troubles.push(trouble),
            }
            tried.push(node);
        }
        Err(worst(troubles, &self.place))
    }

    /// Greets all nodes at once; the first that answers tells of the others.
    async fn cluster(&self, nodes: &[Node], access: &Access) -> Result<(Connection, String), Trouble> {
        let first = node(self.redis.url.expose(), 6379);
        let greeted = std::iter::once(&first).chain(nodes).map(|node| async move {
            let place = Place { shown: format!("the cluster node {}", shown(node)), ..self.place.clone() };
            self.server(node, access, &place).await.map(|_| node)
        });
        let mut answers: FuturesUnordered<_> = greeted.collect();
        let mut troubles = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(node) => {
                    let connection = self.cluster_by(node, access).await.map_err(|error| judge(&error, &self.place))?;
                    return Ok((Connection::Cluster(connection), shown(node)));
                }
                Err(trouble) => troubles.push(trouble),
            }
        }
        Err(worst(troubles, &self.place))
    }

    async fn cluster_by(&self, node: &Node, access: &Access) -> RedisResult<ClusterConnection> {
        let mut builder = ClusterClient::builder([access.info(node)?])
            .connection_timeout(SERVER_TIMEOUT / 2)
            .response_timeout(self.call_timeout)
            .retries(CLUSTER_TRIES)
            .min_retry_wait(CLUSTER_WAIT_MS.0)
            .max_retry_wait(CLUSTER_WAIT_MS.1)
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .database_id(access.database);
        if let Some(user) = &access.user {
            builder = builder.username(user);
        }
        if let Some(password) = &access.password {
            builder = builder.password(password);
        }
        if let Some(certificates) = &access.certificates {
            builder = builder.tls(TlsMode::Secure).certs(certificates.clone());
        }
        builder.build()?.get_async_connection().await
    }
}

impl Access {
    async fn new(url: &Url, password: Option<String>, tls: &Tls, place: &Place) -> Result<Self, Trouble> {
        let info = url.clone().into_connection_info().map_err(|error| judge(&error, place))?;
        let with_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let settings = info.redis_settings();
        Ok(Self {
            user: settings.username().map(str::to_owned),
            password: password.or_else(|| settings.password().map(str::to_owned)),
            database: settings.db(),
            certificates: if with_tls { Some(read_certificates(tls).await?) } else { None },
        })
    }

    fn info(&self, node: &Node) -> RedisResult<ConnectionInfo> {
        let (host, port) = (node.host.clone(), node.port);
        let address = if self.certificates.is_some() {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        // No word before the greeting: of a server that refuses the connection, the first answer is the reason.
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info = address.into_connection_info()?.set_redis_settings(settings);
        Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
    }

    async fn connect(&self, node: &Node) -> RedisResult<MultiplexedConnection> {
        let info = self.info(node)?;
        let client = match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
            None => Client::open(info)?,
        };
        // Calls have a timeout of their own, over all that they do.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(SERVER_TIMEOUT)).set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Says who this is and asks who that is, in one round trip.
    async fn greet(&self, connection: &MultiplexedConnection) -> RedisResult<Hello> {
        let mut commands = Vec::new();
        if let Some(password) = &self.password {
            let mut auth = cmd("AUTH");
            if let Some(user) = &self.user {
                auth.arg(user);
            }
            auth.arg(password);
            commands.push(auth);
        }
        if self.database != 0 {
            let mut select = cmd("SELECT");
            select.arg(self.database);
            commands.push(select);
        }
        let mut name = cmd("CLIENT");
        name.arg("SETNAME").arg("hookfleet");
        let first = join_all(commands.iter().map(|command| answer(connection, command)));
        let (first, hello, _) = join3(first, hello(connection), answer(connection, &name)).await;
        for answer in first {
            answer?;
        }
        hello
    }
}

async fn answer(connection: &MultiplexedConnection, command: &Cmd) -> RedisResult<Value> {
    command.query_async(&mut connection.clone()).await
}

/// What a server says of itself: pairs of names and values.
pub(super) async fn hello(connection: &MultiplexedConnection) -> RedisResult<Hello> {
    let mut said: HashMap<String, Value> = match answer(connection, &cmd("HELLO")).await {
        Ok(said) => from_redis_value(said)?,
        // A proxy may not know it; then nothing is known of what is behind it.
        Err(error) if error.detail().is_some_and(|detail| detail.contains("unknown command")) => HashMap::new(),
        Err(error) => return Err(error),
    };
    let mut text = |name| said.remove(name).and_then(|value| from_redis_value(value).ok()).unwrap_or_default();
    Ok(Hello { mode: text("mode"), role: text("role"), version: text("version") })
}

/// A connection that is let in, and what the server says of itself.
async fn greeted(node: &Node, access: &Access, place: &Place) -> Result<(MultiplexedConnection, Hello), Trouble> {
    let greeted = async {
        let connection = access.connect(node).await?;
        let hello = access.greet(&connection).await?;
        Ok::<_, RedisError>((connection, hello))
    };
    match timeout(SERVER_TIMEOUT, greeted).await {
        Ok(Ok(greeted)) => Ok(greeted),
        Ok(Err(error)) if !error.is_timeout() => Err(judge(&error, place)),
        Ok(Err(_)) | Err(_) => {
            // A port without TLS waits for more.
            let hint = if access.certificates.is_some() { ": is that its port for TLS?" } else { "" };
            Err(Trouble::away(format!("{} did not answer within {SERVER_TIMEOUT:?}{hint}", place.shown)))
        }
    }
}

/// Where a sentinel says that the primary is.
async fn ask_sentinel(url: &Url, name: &str, tls: &Tls) -> Result<Node, Trouble> {
    let node = node(url, 26_379);
    let place = Place {
        shown: format!("the sentinel {}", shown(&node)),
        setting: "redis.sentinels",
        user: user(url),
        kind: PlaceKind::Watched,
    };
    let access = Access::new(url, None, tls, &place).await?;
    let (mut connection, hello) = greeted(&node, &access, &place).await?;
    let mut question = cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let answer = timeout(SERVER_TIMEOUT, question.query_async::<Option<(String, u16)>>(&mut connection)).await;
    match answer {
        Ok(Ok(Some((host, port)))) => Ok(Node { host, port }),
        Ok(Ok(None)) => Err(Trouble::settings(format!(
            "{} watches no primary named \"{name}\": redis.url must have its name in place of the host",
            place.shown
        ))),
        Ok(Err(_)) if !matches!(hello.mode.as_str(), "sentinel" | "") => {
            Err(Trouble::settings(format!("{} is no sentinel: check redis.sentinels", place.shown)))
        }
        Ok(Err(error)) => Err(judge(&error, &place)),
        Err(_) => Err(Trouble::away(format!("{} did not answer within {SERVER_TIMEOUT:?}", place.shown))),
    }
}

/// Of many reasons the one to tell: what nobody mends by waiting comes first.
fn worst(troubles: Vec<Trouble>, place: &Place) -> Trouble {
    let settings = troubles.iter().position(|trouble| matches!(trouble.error, Failure::Settings(_)));
    let mut troubles = troubles;
    match settings {
        Some(at) => troubles.swap_remove(at),
        None => troubles.pop().unwrap_or_else(|| Trouble::away(format!("nobody knows where {} is", place.shown))),
    }
}

fn place(redis: &Redis) -> Place {
    let url = redis.url.expose();
    let host = url.host_str().unwrap_or_default();
    let (shown, kind) = match &redis.topology {
        Topology::Single => (shown(&node(url, 6379)), PlaceKind::Single),
        Topology::Sentinels(_) => (format!("the primary \"{host}\""), PlaceKind::Watched),
        Topology::Cluster { .. } => (format!("the cluster of {}", shown(&node(url, 6379))), PlaceKind::Cluster),
    };
    Place { shown, setting: "redis.url", user: user(url), kind }
}

fn user(url: &Url) -> String {
    let info = url.clone().into_connection_info().ok();
    let user = info.as_ref().and_then(|info| info.redis_settings().username());
    user.unwrap_or("default").to_owned()
}

fn node(url: &Url, port: u16) -> Node {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Node { host, port: url.port().unwrap_or(port) }
}

fn shown(Node { host, port }: &Node) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn read_password(path: &Path) -> Result<String, Trouble> {
    let text = read(path, "redis.password_file").await?;
    let text = String::from_utf8(text).map_err(|_| {
        Trouble::settings(format!("redis.password_file ({}) holds something that is no text", path.display()))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

async fn read_certificates(tls: &Tls) -> Result<TlsCertificates, Trouble> {
    let root_cert = match &tls.ca {
        Some(path) => Some(read_pem(path, "redis.tls_ca", "CERTIFICATE-----").await?),
        None => None,
    };
    let client_tls = match &tls.client {
        Some(client) => Some(ClientTlsConfig {
            client_cert: read_pem(&client.chain, "redis.tls_cert", "CERTIFICATE-----").await?,
            client_key: read_pem(&client.key, "redis.tls_key", "PRIVATE KEY-----").await?,
        }),
        None => None,
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

async fn read_pem(path: &Path, setting: &str, what: &str) -> Result<Vec<u8>, Trouble> {
    let text = read(path, setting).await?;
    if text.windows(what.len()).any(|window| window == what.as_bytes()) {
        return Ok(text);
    }
    let what = what.trim_end_matches('-').to_lowercase();
    Err(Trouble::settings(format!("{setting} ({}) holds no {what} in the form of PEM", path.display())))
}

async fn read(path: &Path, setting: &str) -> Result<Vec<u8>, Trouble> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| Trouble::settings(format!("cannot read {setting} ({}): {error}", path.display())))
}
