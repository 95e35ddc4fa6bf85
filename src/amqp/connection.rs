//! Opening a connection, and saying in one sentence why it cannot be opened.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_compat::Compat;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, Error, ErrorKind};
use tokio::time::timeout;
use url::Url;

use crate::domain::hook::Secret;

/// Longest wait for one connection, TCP and handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for one declaration, `qos` and the like.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Reconnects wait between these two, doubled each time, with jitter.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Why there is no connection. `Display` says what to do; it never shows a password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// Trying again with the same settings cannot help.
    #[error("{0}")]
    Settings(String),
    /// It may work later.
    #[error("{0}")]
    Away(String),
}

/// Opens a connection. Recovery by the library stays off: supervisors here start again from nothing.
///
/// # Errors
/// [`ConnectError`], with a sentence that says what to do.
pub async fn connect(url: &Secret<Url>, name: &str) -> Result<Connection, ConnectError> {
    let url = url.expose();
    let shown = shown(url);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let mut with_heartbeat = url.clone();
    if !url.query_pairs().any(|(key, _)| key == "heartbeat") {
        with_heartbeat.query_pairs_mut().append_pair("heartbeat", "15");
    }
    let socket = Socket::default();
    let opened = timeout(CONNECT_TIMEOUT, open(with_heartbeat.as_str(), properties, socket.clone())).await;
    match opened {
        Ok(Ok(connection)) => {
            socket.forget();
            Ok(connection)
        }
        Ok(Err(error)) => Err(sentence(&shown, url, &error)),
        Err(_) => {
            socket.cut();
            Err(ConnectError::Away(format!(
                "the broker at {shown} did not answer within {CONNECT_TIMEOUT:?}: check host and port in broker.url"
            )))
        }
    }
}

async fn open(url: &str, properties: ConnectionProperties, socket: Socket) -> lapin::Result<Connection> {
    let uri: AMQPUri = url.parse().map_err(|error: String| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let dial = async move |uri: AMQPUri, _| {
        let host = uri.authority.host.as_str();
        let connected = timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect((host, uri.authority.port)));
        let stream = connected.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        socket.keep(&stream)?;
        let stream = AsyncTcpStream::Plain(Compat::new(stream));
        match uri.scheme {
            AMQPScheme::AMQP => Ok(stream),
            AMQPScheme::AMQPS => Ok(stream.into_tls(host, lapin::tcp::TLSConfig::default()).await?),
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

fn sentence(shown: &str, url: &Url, error: &Error) -> ConnectError {
    let text = error.to_string();
    let vhost = match url.path() {
        "" | "/" => "/",
        path => path.trim_start_matches('/'),
    };
    if text.contains("ACCESS_REFUSED") || text.contains("ACCESS-REFUSED") || text.contains("auth") {
        return ConnectError::Settings(format!(
            "the broker at {shown} refused user \"{}\": check user and password in broker.url",
            url.username()
        ));
    }
    if text.contains("NOT_ALLOWED") || text.contains("NOT-ALLOWED") {
        return ConnectError::Settings(format!(
            "the broker at {shown} has no vhost \"{vhost}\", or user \"{}\" may not use it: check the path of \
             broker.url, or create the vhost (rabbitmqctl add_vhost)",
            url.username()
        ));
    }
    if let ErrorKind::IOError(error) = error.kind() {
        return ConnectError::Away(format!(
            "cannot connect to the broker at {shown} ({error}): is it running, and are host and port in broker.url right?"
        ));
    }
    ConnectError::Away(format!("cannot connect to the broker at {shown}: {text}"))
}

/// Scheme, host and port of a broker URL.
#[must_use]
pub fn shown(url: &Url) -> String {
    let port = url.port().unwrap_or(5672);
    format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// The wait before reconnect number `tries` (from 0); `roll` in 0..1 spreads a fleet over half of it.
#[must_use]
pub fn backoff(tries: u32, roll: f64) -> Duration {
    let full = BACKOFF_FIRST.saturating_mul(1 << tries.min(10)).min(BACKOFF_MAX);
    full.mul_f64(0.5 + roll / 2.0)
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
        let secret = Secret::new(url);
        let (error, greeting) = tokio::join!(connect(&secret, "test"), accepted);
        assert!(error.unwrap_err().to_string().contains("did not answer within 5s"));
        assert_eq!(greeting, b"AMQP\x00\x00\x09\x01");
        let again = timeout(Duration::from_secs(1), silent.accept()).await;
        assert!(again.is_err(), "nobody tries again");
    }

    #[test]
    fn urls_are_shown_without_secrets() {
        let url = Url::parse("amqp://user:secret@broker.example:5673/prod?x=secret").unwrap();
        assert_eq!(shown(&url), "amqp://broker.example:5673");
    }
}
