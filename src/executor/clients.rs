//! The HTTP clients of a process: one for all hooks, and one for each set of certificates that hooks bring with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Identity, redirect};
use tokio::time::Instant;

use super::egress::Guard;
use crate::config;
use crate::domain::tls::{Credentials, Tls};
use crate::error_chain::root;

/// A host that does not even accept is given up before most deadlines, and its next address tried.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// As many as may run at a time: what is closed beyond that is opened again for the next run.
const IDLE_PER_HOST_MAX: usize = 1024;
/// Shorter than what most servers keep a connection open for, so that it is seldom closed under our hands.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection of HTTP/2 whose other side is gone without a word would take every run to its deadline: while runs are on
/// it, it has to answer pings this often, within as long.
const PING_EVERY: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("hookfleet/", env!("CARGO_PKG_VERSION"));
/// A client of certificates that no hook has used for this long belongs to a revision that is gone.
const UNUSED_AFTER: Duration = Duration::from_mins(10);

/// The guarded HTTP clients of a process, which its executors share.
#[derive(Debug)]
pub(super) struct Clients {
    usual: Client,
    own: Mutex<HashMap<[u8; 32], Own>>,
    /// In place of the roots of trust of a system that has none.
    roots: Vec<Certificate>,
    pub(super) guard: Guard,
}

#[derive(Debug)]
struct Own {
    client: Client,
    used: Instant,
}

impl Clients {
    pub(super) fn new(egress: &config::Egress) -> reqwest::Result<Self> {
        Self::guarded(Guard::new(egress))
    }

    pub(super) fn guarded(guard: Guard) -> reqwest::Result<Self> {
        super::install_crypto();
        let mut roots = Vec::new();
        let usual = builder(&guard, &roots).build().or_else(|error| {
            // Slim container images hold no certificates.
            tracing::warn!(error = %root(&error), "no roots of trust on this system, taking Mozilla's");
            roots = mozilla_roots()?;
            builder(&guard, &roots).build()
        })?;
        Ok(Self { usual, own: Mutex::default(), roots, guard })
    }

    /// The client of a hook.
    ///
    /// # Errors
    /// There is none; shows nothing of its certificates.
    pub(super) fn of(&self, tls: &Tls) -> Result<Client, String> {
        match tls {
            Tls::Usual => Ok(self.usual.clone()),
            Tls::Unknown(_) => Err("the certificates of the hook's `tls` are not known to this process".to_owned()),
            Tls::Own(credentials) => {
                self.own(credentials).map_err(|error| format!("the hook's `tls`: {}", root(&error)))
            }
        }
    }

    fn own(&self, credentials: &Arc<Credentials>) -> reqwest::Result<Client> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(found) = own.get_mut(&credentials.id) {
            found.used = now;
            return Ok(found.client.clone());
        }
        let client = with(builder(&self.guard, &self.roots), credentials)?.build()?;
        own.retain(|_, other| now - other.used < UNUSED_AFTER);
        own.insert(credentials.id, Own { client: client.clone(), used: now });
        Ok(client)
    }
}

fn with(builder: ClientBuilder, credentials: &Credentials) -> reqwest::Result<ClientBuilder> {
    let builder = match &credentials.ca {
        Some(ca) => builder.tls_certs_merge(Certificate::from_pem_bundle(ca.expose().as_bytes())?),
        None => builder,
    };
    Ok(match &credentials.identity {
        Some(identity) => builder.identity(Identity::from_pem(identity.expose().as_bytes())?),
        None => builder,
    })
}

fn builder(guard: &Guard, roots: &[Certificate]) -> ClientBuilder {
    Client::builder()
        .tls_certs_merge(roots.iter().cloned())
        .user_agent(USER_AGENT)
        .no_proxy() // a proxy would resolve the target's name where the guard cannot see it
        .redirect(redirect::Policy::none())
        .referer(false)
        .dns_resolver(guard.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_EVERY)
        .tcp_nodelay(true)
}

fn mozilla_roots() -> reqwest::Result<Vec<Certificate>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| Certificate::from_der(root)).collect()
}

#[cfg(test)]
mod tests;
