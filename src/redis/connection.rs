//! The way to Redis: one connection that all calls share, opened on first use.
//!
//! A call never waits in a queue of reconnects: whoever opens a connection does so beside the calls, one at a time, and
//! while none can be opened, calls fail at once with the last reason. A connection that broke is left at once. One that
//! is only in doubt (a call got no answer) is used until a new one stands: the server may just be slow, and a cluster
//! has other nodes that answer.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::{Arg, Cmd, FromRedisValue, RedisError, RedisResult, cmd};
use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::connect::{self, Connection, Dial};
use super::error::{Failure, Fate, Hello, Trouble, judge};
use super::script::Script;
use super::slots;
use crate::config::{Node, Redis};
use crate::telemetry::Told;

/// Longest time that a call takes, with everything it has to wait for. What timed out may still run.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// Between an attempt to connect that failed and the next, at least; up to twice as much, so that a fleet spreads.
const GAP: Duration = Duration::from_millis(100);
/// A new connection is not doubted again before this, so that a cluster without one of its primaries is not flooded.
const TRUST: Duration = Duration::from_millis(500);
/// What a ping leaves behind goes by itself.
const PING_TTL_MS: u64 = 60_000;

/// The shared connection. Clones share it too.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    dial: Dial,
    state: Mutex<State>,
    /// Something has become of an attempt to connect.
    settled: watch::Sender<()>,
    /// Keys whose values cannot be used, and that were told.
    unreadable: Told,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// Somebody is opening a new one.
    opening: bool,
    /// Connections opened so far.
    count: u64,
    /// Why there is none.
    last: Option<Failure>,
    /// No attempt before, if the last one failed.
    not_before: Option<Instant>,
    /// Doubts before do not count.
    trusted_until: Option<Instant>,
}

#[derive(Clone)]
struct Open {
    number: u64,
    connection: Connection,
}

/// What there is at the moment.
enum Look {
    Open(Open),
    Opening(watch::Receiver<()>),
    Closed(Failure),
}

/// One call of one or more commands: its deadline, and the connection it is on. A command that was lost with its
/// connection is sent once more on a new one; it may have run.
pub struct Call<'l> {
    link: &'l Link,
    until: Instant,
    /// The number of the connection that was used last.
    on: Option<u64>,
    /// Nothing was sent twice yet.
    may_repeat: bool,
}

impl Link {
    /// Prepares a connection, which is opened on first use and opened again whenever it is lost. For TLS, the
    /// cryptography of the process must be chosen by then.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        let dial = Dial::new(redis, CALL_TIMEOUT);
        let (state, settled) = (Mutex::default(), watch::Sender::default());
        Self(Arc::new(Inner { dial, state, settled, unreadable: Told::default() }))
    }

    /// Begins a call: all its commands together take a second at most.
    #[must_use]
    pub fn call(&self) -> Call<'_> {
        Call { link: self, until: Instant::now() + CALL_TIMEOUT, on: None, may_repeat: true }
    }

    /// Writes a key of this name wherever keys are kept, because a server that only reads (full, loading, a replica) can
    /// keep nothing.
    ///
    /// # Errors
    /// What is in the way of writes.
    pub async fn ping(&self, name: &str) -> Result<(), Failure> {
        let mut call = self.call();
        loop {
            let mut connection = call.connection().await?;
            if let Some(hello) = call.send(name, write(&mut connection, name)).await?
                && call.check(&hello)?
            {
                return Ok(());
            }
        }
    }

    fn look(&self) -> Look {
        let mut state = self.0.state();
        if let Some(open) = &state.open {
            return Look::Open(open.clone());
        }
        if !state.opening && is_future(state.not_before) {
            let unknown = || Failure::Away(format!("the connection to {} is lost", self.0.dial.place().shown));
            return Look::Closed(state.last.clone().unwrap_or_else(unknown));
        }
        self.0.open(&mut state);
        Look::Opening(self.0.settled.subscribe())
    }

    /// A call on a connection failed. Later calls may be on another one already.
    fn blame(&self, number: u64, trouble: &Trouble) {
        let mut state = self.0.state();
        let Some(open) = state.open.as_ref().filter(|open| open.number == number) else { return };
        match (trouble.connection, &open.connection) {
            (Fate::Kept, _) => {}
            (Fate::Broken, Connection::One(_)) => {
                state.open = None;
                state.last = Some(trouble.error.clone());
            }
            (Fate::Broken, Connection::Cluster(_)) | (Fate::Doubted, _) => {
                if !is_future(state.not_before) && !is_future(state.trusted_until) {
                    self.0.open(&mut state);
                }
            }
        }
    }
}

/// Answers what a single server says of itself.
async fn write(connection: &mut Connection, name: &str) -> RedisResult<Hello> {
    let set = |key: String| {
        let mut set = cmd("SET");
        set.arg(key).arg("1").arg("PX").arg(PING_TTL_MS);
        set
    };
    match connection {
        Connection::One(one) => {
            set(name.to_owned()).query_async::<()>(one).await?;
            connect::hello(one).await
        }
        Connection::Cluster(cluster) => {
            let writes = slots::TAGS.iter().map(|tag| {
                let (set, mut cluster) = (set(format!("{name}:{{{tag}}}")), cluster.clone());
                async move { set.query_async::<()>(&mut cluster).await }
            });
            try_join_all(writes).await.map(|_| Hello::default())
        }
    }
}

fn is_future(time: Option<Instant>) -> bool {
    time.is_some_and(|time| time > Instant::now())
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a new connection opened, unless somebody is at it.
    fn open(self: &Arc<Self>, state: &mut State) {
        if !state.opening {
            state.opening = true;
            let opening = Opening(Arc::clone(self));
            tokio::spawn(async move {
                let opened = opening.0.dial.open().await;
                opening.end(opened);
            });
        }
    }
}

/// An attempt to connect. Also one that is dropped halfway has ended.
struct Opening(Arc<Inner>);

impl Opening {
    fn end(self, opened: Result<(Connection, String), Trouble>) {
        let mut state = self.0.state();
        match opened {
            Ok((connection, server)) => {
                tracing::info!(server, "connected to Redis");
                state.count += 1;
                state.open = Some(Open { number: state.count, connection });
                (state.last, state.not_before) = (None, None);
                state.trusted_until = Some(Instant::now() + TRUST);
            }
            Err(Trouble { error, .. }) => {
                state.last = Some(error);
                state.not_before = Some(Instant::now() + GAP.mul_f64(1.0 + fastrand::f64()));
            }
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.state().opening = false;
        self.0.settled.send_replace(());
    }
}

/// The key that a command works on: ours have one each.
fn key_of(command: &Cmd) -> Cow<'_, str> {
    match command.args_iter().nth(1) {
        Some(Arg::Simple(key)) => String::from_utf8_lossy(key),
        _ => Cow::Borrowed(""),
    }
}

impl Call<'_> {
    /// One command.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Failure> {
        loop {
            let mut connection = self.connection().await?;
            if let Some(answer) = self.send(&key_of(command), connection.query(command)).await? {
                return Ok(answer);
            }
        }
    }

    /// One command, at one node of a cluster.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn query_at<T: FromRedisValue>(&mut self, node: &Node, command: &Cmd) -> Result<T, Failure> {
        loop {
            let mut connection = self.connection().await?;
            if let Some(answer) = self.send(&key_of(command), connection.query_at(node, command)).await? {
                return Ok(answer);
            }
        }
    }

    /// One run of a script on keys of one slot. The first is the one that its errors are about.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn run<T: FromRedisValue>(
        &mut self,
        script: &Script,
        keys: &[&str],
        arguments: &[impl AsRef<str>],
    ) -> Result<T, Failure> {
        let first = keys.first().copied().unwrap_or_default();
        loop {
            let mut connection = self.connection().await?;
            if let Some(answer) = self.send(first, script.run(&mut connection, keys, arguments)).await? {
                return Ok(answer);
            }
        }
    }

    /// The connection to use, once there is one.
    async fn connection(&mut self) -> Result<Connection, Failure> {
        loop {
            match self.link.look() {
                Look::Open(Open { number, connection }) => {
                    self.on = Some(number);
                    return Ok(connection);
                }
                Look::Closed(error) => return Err(error),
                Look::Opening(mut settled) => {
                    if timeout_at(self.until, settled.changed()).await.is_err() {
                        return Err(self.unconnected());
                    }
                }
            }
        }
    }

    fn unconnected(&self) -> Failure {
        let known = self.link.0.state().last.clone();
        let place = &self.link.0.dial.place().shown;
        known.unwrap_or_else(|| Failure::Away(format!("no connection to {place} within {CALL_TIMEOUT:?}")))
    }

    /// Waits for the answer to what was sent on [`Call::connection`]. `None`: the connection was lost, and it should be
    /// sent again on a new one.
    async fn send<T>(
        &mut self,
        key: &str,
        request: impl Future<Output = RedisResult<T>>,
    ) -> Result<Option<T>, Failure> {
        let late = |_| Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)));
        let error = match timeout_at(self.until, request).await.unwrap_or_else(late) {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error,
        };
        let place = self.link.0.dial.place();
        match Failure::of_key(&error, key, place) {
            Some(failure) => {
                if self.link.0.unreadable.is_first(key) {
                    tracing::error!(key, %failure, "a key of Redis cannot be used; everything else goes on");
                }
                Err(failure)
            }
            None => self.fail(&judge(&error, place)),
        }
    }

    /// Whether what the server says of itself is right. If not, it should be asked again on a new connection.
    fn check(&mut self, hello: &Hello) -> Result<bool, Failure> {
        match hello.check(self.link.0.dial.place()) {
            Ok(()) => Ok(true),
            Err(trouble) => self.fail::<()>(&trouble).map(|_| false),
        }
    }

    fn fail<T>(&mut self, trouble: &Trouble) -> Result<Option<T>, Failure> {
        if let Some(number) = self.on {
            self.link.blame(number, trouble);
        }
        if trouble.connection == Fate::Broken && std::mem::take(&mut self.may_repeat) {
            return Ok(None);
        }
        Err(trouble.error.clone())
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;
    use crate::config::{Tls, Topology};
    use crate::domain::secret::Secret;

    /// A way to where nobody listens.
    pub(crate) fn nowhere() -> Link {
        let url = Secret::new("redis://127.0.0.1:1".parse().unwrap());
        Link::new(Redis { url, password_file: None, tls: Tls::default(), topology: Topology::Single })
    }
}
