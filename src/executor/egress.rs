//! The guard of everything that hooks call, which addresses that may be: HTTP, and brokers other than the fleet's.
//!
//! Names are judged by the addresses that they resolve to, at every connect, and exactly these addresses are connected
//! to, so that a second answer cannot differ from the checked one. Addresses in a URL never reach a resolver and are
//! judged beforehand; the `url` crate has brought all their spellings into one by then.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec::IntoIter;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tower::Service;
use url::{Host, Url};

use crate::config::Egress;
use crate::domain::address::{literal, refusal};
use crate::domain::failure::Class;
use crate::domain::outcome::Outcome;

/// Why a target may not be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the target's scheme is neither http nor https")]
    Scheme,
    #[error("the target's URL holds a user name or a password")]
    UserInfo,
    #[error("the target's URL has no host")]
    NoHost,
    #[error("the target's port {0} is none of `egress.ports`")]
    Port(u16),
    #[error("the target {host} is {class}; `egress.allow` can allow it")]
    Address { host: String, class: &'static str },
}

impl From<&Refused> for Outcome {
    fn from(refused: &Refused) -> Self {
        Self::never(Class::TargetBlocked, refused.to_string())
    }
}

/// The addresses of a name, now.
type Lookup = fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// Resolves names, and answers with addresses that may be called or not at all.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    egress: Arc<Egress>,
    lookup: Lookup,
}

impl Guard {
    pub(super) fn new(egress: &Egress) -> Self {
        Self::looking_up(egress, |name| async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }.boxed())
    }

    fn looking_up(egress: &Egress, lookup: Lookup) -> Self {
        Self { egress: Arc::new(egress.clone()), lookup }
    }

    /// What can be refused without resolving anything.
    pub(super) fn check(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::UserInfo);
        }
        if url.host().is_none() {
            return Err(Refused::NoHost);
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.may_use(port) {
            return Err(Refused::Port(port));
        }
        let Some(ip) = literal(url) else { return Ok(()) };
        match refusal(ip, &self.egress.allow) {
            None => Ok(()),
            Some(class) => Err(Refused::Address { host: ip.to_string(), class }),
        }
    }

    /// The addresses of a server of any kind, all of which may be called.
    ///
    /// # Errors
    /// Its name has none, or [`Refused`].
    pub(super) async fn addresses(&self, host: &str, port: u16) -> io::Result<Result<Vec<SocketAddr>, Refused>> {
        if !self.may_use(port) {
            return Ok(Err(Refused::Port(port)));
        }
        let mut found = (self.lookup)(host.to_owned()).await?;
        for address in &mut found {
            address.set_port(port);
        }
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(self.judge(host, found))
    }

    /// Whether a proxy may be asked for a host: it has to be resolved here, since its addresses cannot be checked otherwise.
    /// That is not needed of names that are allowed whatever their addresses are, nor of addresses, which are checked before.
    ///
    /// # Errors
    /// [`Unresolved`] or [`Refused`].
    pub(super) async fn may_be_asked_for(&self, host: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        if host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() || self.is_named(host) {
            return Ok(());
        }
        let found = (self.lookup)(host.to_owned()).await.unwrap_or_default();
        if found.is_empty() {
            let hint = format!(
                "{host} cannot be resolved here, so that its addresses cannot be checked before the proxy is asked: \
                 `egress.allow: [{host}]` allows the name unchecked"
            );
            return Err(Unresolved(io::Error::new(io::ErrorKind::NotFound, hint)).into());
        }
        self.judge(host, found)?;
        Ok(())
    }

    /// Whether a name is allowed whatever its addresses are.
    fn is_named(&self, host: &str) -> bool {
        let name = host.trim_end_matches('.');
        self.egress.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }

    fn may_use(&self, port: u16) -> bool {
        self.egress.ports.is_empty() || self.egress.ports.contains(&port)
    }

    /// What the guard says of a URL now, its name resolved as for a call.
    async fn look(&self, url: &Url) -> Result<Option<String>, String> {
        if let Err(refused) = self.check(url) {
            return Ok(Some(refused.to_string()));
        }
        let Some(Host::Domain(name)) = url.host() else { return Ok(None) };
        let found = (self.lookup)(name.to_owned()).await;
        let found = found.map_err(|error| format!("the name {name} has no address here ({error})"))?;
        Ok(self.judge(name, found).err().map(|refused| refused.to_string()))
    }

    /// One bad address refuses the whole answer: which of them is called is chance.
    fn judge(&self, host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        if self.is_named(host) {
            return Ok(found);
        }
        match found.iter().find_map(|address| refusal(address.ip(), &self.egress.allow)) {
            None => Ok(found),
            Some(class) => Err(Refused::Address { host: host.to_owned(), class }),
        }
    }
}

/// A name has no address.
#[derive(Debug, thiserror::Error)]
#[error("the name has no address")]
pub(super) struct Unresolved(#[source] io::Error);

impl Service<Name> for Guard {
    type Response = IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move {
            let found = (guard.lookup)(name.as_str().to_owned()).await.map_err(Unresolved)?;
            let checked = guard.judge(name.as_str(), found)?;
            if checked.is_empty() {
                let error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(Unresolved(error).into());
            }
            Ok(checked.into_iter())
        })
    }
}

/// What the guard says of a URL now, its name resolved as for a call.
pub(super) async fn refused(egress: &Egress, url: &Url) -> Result<Option<String>, String> {
    Guard::new(egress).look(url).await
}

#[cfg(test)]
mod tests;
