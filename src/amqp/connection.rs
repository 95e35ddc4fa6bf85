//! Opening a connection, and saying in one sentence why it cannot be opened.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_compat::Compat;
use lapin::tcp::RustlsConnector;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, Error, ErrorKind};
use rustls::ClientConfig;
use tokio::time::timeout;
use url::{Host, Url};

use super::tls;
use crate::config::BrokerServer;
use crate::domain::publication::SHORT_BYTES_MAX;

/// Longest wait for one connection, TCP, TLS and greeting together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for one declaration, `qos` and the like.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Reconnects wait between these two, doubled each time, with jitter.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Longest wait for the broker's answer to a goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds between heartbeats, unless the URL says otherwise.
const HEARTBEAT_S: u16 = 15;

/// Why there is no connection. `Display` says what to do; it never shows a password.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Trying again with the same settings cannot help.
    #[error("{0}")]
    Settings(String),
    /// It may work later.
    #[error("{0}")]
    Away(String),
}

/// Opens a connection to a node: a random one first, so that a fleet spreads over all, then the others in turn.
/// Recovery by the library stays off: supervisors here start again from nothing.
///
/// # Errors
/// [`ConnectError`], with a sentence a node that says what to do. As long as one of them may come back by itself, so
/// may the whole.
pub async fn connect(server: &BrokerServer, name: &str) -> Result<Connection, ConnectError> {
    let count = server.urls.len();
    let first = fastrand::usize(..count.max(1));
    let mut failed = Vec::new();
    for url in server.urls.iter().cycle().skip(first).take(count) {
        match connect_to(server, url.expose(), name).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failed.push(error),
        }
    }
    Err(together(&failed))
}

fn together(failed: &[ConnectError]) -> ConnectError {
    let text = failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if failed.iter().all(|error| matches!(error, ConnectError::Settings(_))) {
        ConnectError::Settings(text)
    } else {
        ConnectError::Away(text)
    }
}

async fn connect_to(server: &BrokerServer, url: &Url, name: &str) -> Result<Connection, ConnectError> {
    let mut uri = uri(url).map_err(ConnectError::Settings)?;
    uri.authority.userinfo.password = password(server, url).await.map_err(ConnectError::Settings)?;
    let target = Target { shown: shown(url), uri: uri.clone(), server };
    let tls = match uri.scheme {
        AMQPScheme::AMQP => None,
        AMQPScheme::AMQPS => {
            let config = tls::client_config(&server.tls).await.map_err(ConnectError::Settings)?;
            Some((Arc::new(config), target.tls_name().to_owned()))
        }
    };
    match reach(uri, tls, None, name).await {
        Some(Ok(connection)) => Ok(connection),
        Some(Err(error)) => Err(target.sentence(&error)),
        None => Err(ConnectError::Away(format!(
            "the broker at {} did not answer within {CONNECT_TIMEOUT:?}: check host and port in broker.url, and \
             whether that port speaks TLS (amqps://) or not (amqp://)",
            target.shown
        ))),
    }
}

/// Opens a connection to the broker of a URL at these addresses and no others. `tls` is for a URL that asks for it.
///
/// # Errors
/// One sentence without a password.
pub async fn connect_at(
    url: &Url,
    addresses: Vec<SocketAddr>,
    tls: Option<ClientConfig>,
    name: &str,
) -> Result<Connection, String> {
    let uri = uri(url)?;
    let (shown, tls_name, user) = (shown(url), uri.authority.host.clone(), uri.authority.userinfo.username.clone());
    let encryption = match uri.scheme {
        AMQPScheme::AMQP => None,
        AMQPScheme::AMQPS => {
            Some((Arc::new(tls.ok_or("a broker behind TLS needs a configuration")?), tls_name.clone()))
        }
    };
    match reach(uri, encryption, Some(addresses), name).await {
        Some(Ok(connection)) => Ok(connection),
        None => Err(format!("the broker at {shown} did not answer within {CONNECT_TIMEOUT:?}")),
        Some(Err(error)) => Err(match error.kind() {
            ErrorKind::IOError(io) => match tls::cause(io) {
                Some(cause) => format!("no TLS with the broker at {shown}: {cause}"),
                None => format!("cannot connect to the broker at {shown}: {io}"),
            },
            _ if refuses_user(&error) => format!("the broker at {shown} refused user \"{user}\""),
            _ => format!("cannot connect to the broker at {shown}: {error}"),
        }),
    }
}

/// `None`: no answer in time.
async fn reach(
    uri: AMQPUri,
    tls: Encryption,
    addresses: Option<Vec<SocketAddr>>,
    name: &str,
) -> Option<lapin::Result<Connection>> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let socket = Socket::default();
    match timeout(CONNECT_TIMEOUT, open(uri, tls, addresses, properties, socket.clone())).await {
        Ok(Ok(connection)) => {
            socket.forget();
            Some(Ok(connection))
        }
        Ok(error @ Err(_)) => Some(error),
        Err(_) => {
            socket.cut();
            None
        }
    }
}

fn refuses_user(error: &Error) -> bool {
    let text = error.to_string();
    ["ACCESS_REFUSED", "ACCESS-REFUSED", "auth"].iter().any(|word| text.contains(word))
}

/// What the library needs to know of a URL. It reads no IPv6 addresses, and takes a slash alone for a vhost without a
/// name, which nobody has.
fn uri(url: &Url) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri =
        url.as_str().parse().map_err(|error| format!("the URL {} cannot be used: {error}", shown(url)))?;
    if uri.vhost.len() > SHORT_BYTES_MAX {
        return Err(format!(
            "the vhost of the URL {} has {} bytes, the limit is {SHORT_BYTES_MAX}",
            shown(url),
            uri.vhost.len()
        ));
    }
    uri.authority.host = host(url);
    if uri.vhost.is_empty() {
        "/".clone_into(&mut uri.vhost);
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
    Ok(uri)
}

/// The vhost that a URL names.
///
/// # Errors
/// The URL is none that the library can use.
pub fn vhost(url: &Url) -> Result<String, String> {
    uri(url).map(|uri| uri.vhost)
}

/// User and password for a URL of the broker: the password file counts more than the URL.
///
/// # Errors
/// The file cannot be read.
pub async fn login(server: &BrokerServer, url: &Url) -> Result<(String, String), String> {
    let userinfo = uri(url)?.authority.userinfo;
    Ok((userinfo.username, password(server, url).await?))
}

async fn password(server: &BrokerServer, url: &Url) -> Result<String, String> {
    let Some(file) = &server.password_file else { return Ok(uri(url)?.authority.userinfo.password) };
    match tokio::fs::read_to_string(file).await {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(format!(
            "cannot read the password of the broker from {} ({error}): check broker.password_file",
            file.display()
        )),
    }
}

/// The configuration of TLS, and the name that the certificate has to have.
type Encryption = Option<(Arc<ClientConfig>, String)>;

async fn open(
    uri: AMQPUri,
    tls: Encryption,
    addresses: Option<Vec<SocketAddr>>,
    properties: ConnectionProperties,
    socket: Socket,
) -> lapin::Result<Connection> {
    let dial = async move |uri: AMQPUri, _| {
        let connected = async {
            match &addresses {
                Some(known) => tokio::net::TcpStream::connect(known.as_slice()).await,
                None => tokio::net::TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await,
            }
        };
        let connected = timeout(CONNECT_TIMEOUT, connected).await;
        let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        socket.keep(&stream)?;
        let stream = AsyncTcpStream::Plain(Compat::new(stream));
        match &tls {
            None => Ok(stream),
            Some((config, name)) => Ok(stream.into_rustls(&RustlsConnector::from(Arc::clone(config)), name).await?),
        }
    };
    Connection::connector(uri, lapin::runtime::default_runtime()?, dial, properties).await
}

/// The socket of a connection that is being opened. The library waits for the broker's greeting for ever, in a thread
/// of its own: where nobody waits for that any more, the socket is cut, and the thread ends.
#[derive(Debug, Clone, Default)]
struct Socket(Arc<Mutex<Opening>>);

#[derive(Debug, Default)]
enum Opening {
    #[default]
    Dialing,
    Greeting(TcpStream),
    Over,
}

impl Socket {
    /// The connection stands, or is refused from now on, if it was cut.
    fn keep(&self, stream: &impl AsFd) -> io::Result<()> {
        let stream = TcpStream::from(stream.as_fd().try_clone_to_owned()?);
        let mut opening = self.lock();
        if matches!(*opening, Opening::Over) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        *opening = Opening::Greeting(stream);
        Ok(())
    }

    fn forget(&self) {
        *self.lock() = Opening::Over;
    }

    fn cut(&self) {
        if let Opening::Greeting(stream) = std::mem::replace(&mut *self.lock(), Opening::Over) {
            let _ = stream.shutdown(Shutdown::Both); // gone already
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Opening> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node, for what is said of it.
struct Target<'a> {
    shown: String,
    uri: AMQPUri,
    server: &'a BrokerServer,
}

impl Target<'_> {
    fn tls_name(&self) -> &str {
        self.server.tls_name.as_deref().unwrap_or(&self.uri.authority.host)
    }

    fn sentence(&self, error: &Error) -> ConnectError {
        let (shown, text, user) = (&self.shown, error.to_string(), &self.uri.authority.userinfo.username);
        if let ErrorKind::IOError(error) = error.kind() {
            return match tls::cause(error) {
                Some(cause) => ConnectError::Settings(tls::sentence(cause, shown, self.tls_name())),
                None => ConnectError::Away(format!(
                    "cannot connect to the broker at {shown} ({error}): is it running, and are host and port in \
                     broker.url right?"
                )),
            };
        }
        if refuses_user(error) {
            let places = match self.server.password_file {
                None => "user and password in broker.url",
                Some(_) => "the user in broker.url and the password in broker.password_file",
            };
            return ConnectError::Settings(format!("the broker at {shown} refused user \"{user}\": check {places}"));
        }
        if text.contains("NOT_ALLOWED") || text.contains("NOT-ALLOWED") {
            let vhost = &self.uri.vhost;
            return ConnectError::Settings(format!(
                "the broker at {shown} has no vhost \"{vhost}\", or user \"{user}\" may not use it: check the path of \
                 broker.url, or create the vhost (rabbitmqctl add_vhost)"
            ));
        }
        ConnectError::Away(format!("cannot connect to the broker at {shown}: {text}"))
    }
}

/// The host of a URL, as it is dialled.
fn host(url: &Url) -> String {
    match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(host) => host.to_string(),
        None => String::new(),
    }
}

/// Scheme, host and port of a broker URL.
#[must_use]
pub fn shown(url: &Url) -> String {
    let port = url.port().unwrap_or(if url.scheme() == "amqps" { 5671 } else { 5672 });
    format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// The wait before reconnect number `tries` (from 0); `roll` in 0..1 spreads a fleet over half of it.
#[must_use]
pub fn backoff(tries: u32, roll: f64) -> Duration {
    let full = BACKOFF_FIRST.saturating_mul(1 << tries.min(10)).min(BACKOFF_MAX);
    full.mul_f64(0.5 + roll / 2.0)
}

/// Whether the broker has ended a connection for a fault of its own (541). At a delivery that means that it cannot convert
/// the message which it would have handed out.
#[must_use]
pub fn is_internal_error(reason: &str) -> bool {
    reason.contains("INTERNAL-ERROR") || reason.contains("INTERNAL_ERROR")
}

/// Whether another connection has the exclusive queue that was asked for (405).
#[must_use]
pub fn is_locked(reason: &str) -> bool {
    reason.contains("RESOURCE_LOCKED") || reason.contains("RESOURCE-LOCKED")
}

/// Says goodbye to the broker. The connection may be lost already.
pub async fn close(connection: &Connection) {
    let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "bye".into())).await;
}

/// Runs one call to the broker with a bound on its time.
///
/// # Errors
/// One sentence: what the broker said, or that it said nothing in time.
pub async fn call<T>(what: &str, future: impl Future<Output = lapin::Result<T>>) -> Result<T, String> {
    match timeout(CALL_TIMEOUT, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: no answer within {CALL_TIMEOUT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::Secret;

    #[test]
    fn backoff_grows_to_its_bound() {
        let waits: Vec<u128> = (0..8).map(|tries| backoff(tries, 1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff(0, 0.0).as_millis(), 50);
        assert_eq!(backoff(u32::MAX, 0.0).as_millis(), 2500);
    }

    /// Whoever accepts and says nothing costs neither a socket nor a thread.
    #[tokio::test]
    async fn a_broker_that_says_nothing_is_left_alone() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("amqp://{}", silent.local_addr().unwrap())).unwrap();
        let accepted = async {
            let (mut stream, _) = silent.accept().await.unwrap();
            let mut greeting = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut greeting).await.unwrap(); // to the end of it
            greeting
        };
        let server = BrokerServer::at(url);
        let (error, greeting) = tokio::join!(connect(&server, "test"), accepted);
        assert!(error.unwrap_err().to_string().contains("did not answer within 5s"));
        assert_eq!(greeting, b"AMQP\x00\x00\x09\x01");
        let again = timeout(Duration::from_secs(1), silent.accept()).await;
        assert!(again.is_err(), "nobody tries again");
    }

    #[test]
    fn urls_are_shown_without_secrets() {
        let url = Url::parse("amqp://user:secret@broker.example:5673/prod?x=secret").unwrap();
        assert_eq!(shown(&url), "amqp://broker.example:5673");
        assert_eq!(shown(&Url::parse("amqps://user:secret@b").unwrap()), "amqps://b:5671");
    }

    #[test]
    fn urls_are_read() {
        let check = |url: &str, expected: (&str, u16, &str)| {
            let uri = uri(&Url::parse(url).unwrap()).unwrap();
            assert_eq!((uri.authority.host.as_str(), uri.authority.port, uri.vhost.as_str()), expected, "{url}");
            assert_eq!(uri.query.heartbeat, Some(if url.contains("heartbeat") { 3 } else { 15 }), "{url}");
        };
        check("amqp://h", ("h", 5672, "/"));
        check("amqp://h/", ("h", 5672, "/"));
        check("amqps://h/%2f?heartbeat=3", ("h", 5671, "/"));
        check("amqp://[::1]:1/a%2fb", ("::1", 1, "a/b"));
        check("amqp://10.0.0.1/prod", ("10.0.0.1", 5672, "prod"));
    }

    #[tokio::test]
    async fn the_password_file_counts_more() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "new\n").unwrap();
        let url = Url::parse("amqp://me:old@h").unwrap();
        let server = BrokerServer { password_file: Some(file.path().to_owned()), ..BrokerServer::at(url.clone()) };
        assert_eq!(login(&server, &url).await.unwrap(), ("me".to_owned(), "new".to_owned()));
        assert_eq!(login(&BrokerServer::at(url.clone()), &url).await.unwrap().1, "old");
        let server = BrokerServer { password_file: Some("no/such".into()), ..server };
        assert!(login(&server, &url).await.unwrap_err().contains("check broker.password_file"));
    }

    /// All nodes are tried, and one that may come back by itself is worth waiting for.
    #[tokio::test]
    async fn every_node_is_tried() {
        let nodes = ["amqp://127.0.0.1:1", "amqp://127.0.0.1:2"].map(|url| Secret::new(Url::parse(url).unwrap()));
        let server = BrokerServer { urls: nodes.to_vec(), ..BrokerServer::at(Url::parse("amqp://h").unwrap()) };
        let error = connect(&server, "test").await.unwrap_err();
        assert!(
            matches!(&error, ConnectError::Away(text) if text.contains(":1 (") && text.contains(":2 (")),
            "{error}"
        );
        let settings = || ConnectError::Settings("a".to_owned());
        assert!(matches!(together(&[settings(), error]), ConnectError::Away(_)));
        assert!(matches!(together(&[settings(), settings()]), ConnectError::Settings(text) if text == "a; a"));
    }
}
