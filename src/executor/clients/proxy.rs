//! The way of http hooks through a proxy, where `egress.proxy` says so. The environment is never asked.
//!
//! Targets are checked before the proxy is asked for them, as for a direct call. But the proxy resolves their names again,
//! so that it may reach another address than the one that was checked: the guard's pin of names to addresses is gone.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use tower::Service;
use url::Url;

use crate::config;
use crate::error_chain::causes;
use crate::executor::egress::Guard;

type BoxError = Box<dyn Error + Send + Sync>;

/// A proxy and what is called without it.
#[derive(Debug)]
pub(in crate::executor) struct Proxy {
    to: Uri,
    /// How hookfleet shows the proxy who it is.
    login: Option<HeaderValue>,
    except_nets: Vec<IpNet>,
    except_hosts: Vec<String>,
}

/// The proxy did not open the way to a target.
#[derive(Debug, thiserror::Error)]
#[error("the proxy (egress.proxy) does not lead to the target")]
pub(in crate::executor) struct NotLed(#[source] BoxError);

impl NotLed {
    /// What went wrong on the way, unless it was TLS with the target itself.
    fn unless_tls(error: BoxError) -> BoxError {
        let is_of_target = causes(error.as_ref()).any(<dyn Error>::is::<rustls::Error>);
        if is_of_target { error } else { Self(error).into() }
    }
}

impl Proxy {
    /// The proxy of these settings, if there is one.
    pub(super) fn of(egress: &config::Egress) -> Option<Arc<Self>> {
        let config::Proxy { url, except_nets, except_hosts } = egress.proxy.as_ref()?;
        let url = url.expose();
        let host = url.host_str()?;
        let to = format!("http://{host}:{}", url.port_or_known_default()?).parse().ok()?;
        let (except_nets, except_hosts) = (except_nets.clone(), except_hosts.clone());
        Some(Arc::new(Self { to, login: login(url), except_nets, except_hosts }))
    }

    /// Whether a target is called through it.
    pub(super) fn is_for(&self, target: &Uri) -> bool {
        let host = target.host().unwrap_or_default().trim_matches(['[', ']']);
        if let Ok(address) = host.parse::<IpAddr>() {
            return !self.except_nets.iter().any(|net| net.contains(&address));
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let is_excepted = |host: &String| name == *host || host.starts_with('.') && name.ends_with(host.as_str());
        !self.except_hosts.iter().any(is_excepted)
    }

    /// What a request to a target has to bring along, if it is one that the proxy reads: over TLS it reads none.
    pub(super) fn header_for(&self, target: &Uri) -> Option<HeaderValue> {
        self.login.clone().filter(|_| target.scheme_str() == Some("http") && self.is_for(target))
    }
}

/// User and password of a URL, as the header `Proxy-Authorization` has them.
fn login(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let pair = [decoded(url.username()), b":".to_vec(), decoded(url.password().unwrap_or_default())].concat();
    let mut header = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()?;
    header.set_sensitive(true);
    Some(header)
}

pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Opens connections through a proxy.
#[derive(Clone)]
pub(super) struct Through {
    pub(super) proxy: Arc<Proxy>,
    guard: Guard,
    /// To the proxy, which is no target: nobody checks its address.
    plain: HttpConnector,
    tunnel: HttpsConnector<Tunnel<HttpConnector>>,
}

impl Through {
    /// `plain` opens connections to the proxy.
    pub(super) fn new(proxy: Arc<Proxy>, guard: Guard, plain: HttpConnector, tls: Arc<rustls::ClientConfig>) -> Self {
        let mut tunnel = Tunnel::new(proxy.to.clone(), plain.clone());
        if let Some(login) = &proxy.login {
            tunnel = tunnel.with_auth(login.clone());
        }
        Self { proxy, guard, plain, tunnel: HttpsConnector::from((tunnel, tls)) }
    }

    /// A connection for requests to this target: to the target itself by CONNECT for https, else to the proxy.
    pub(super) fn connect(&self, target: Uri) -> BoxFuture<'static, Result<Stream, BoxError>> {
        let Self { proxy, guard, mut plain, mut tunnel } = self.clone();
        Box::pin(async move {
            guard.may_be_asked_for(target.host().unwrap_or_default()).await?;
            if target.scheme_str() == Some("https") {
                return tunnel.call(target).await.map_err(NotLed::unless_tls);
            }
            let stream = plain.call(proxy.to.clone()).await.map_err(|error| NotLed(error.into()))?;
            Ok(MaybeHttpsStream::Http(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn proxy(egress: &str) -> Arc<Proxy> {
        Proxy::of(&Settings::from_yaml(&format!("egress: {egress}")).unwrap().egress).unwrap()
    }

    #[test]
    fn exceptions_are_called_directly() {
        let proxy = proxy("{ proxy: 'http://p:3128', no_proxy: [10.0.0.0/8, '::1', crm.example, .internal] }");
        for (target, expected) in [
            ("https://hooks.example/x", true),
            ("https://10.1.2.3/", false),
            ("http://11.1.2.3/", true),
            ("http://[::1]:80/", false),
            ("https://crm.example/", false),
            ("https://CRM.example./", false),
            ("https://not-crm.example/", true),
            ("https://a.b.internal/", false),
            ("https://internal/", true),
        ] {
            assert_eq!(proxy.is_for(&target.parse().unwrap()), expected, "{target}");
        }
    }

    #[test]
    fn the_login_is_for_the_proxy_alone() {
        let proxy = proxy("{ proxy: 'http://me:p%40ss+%3D%26@p:3128' }");
        let header = proxy.header_for(&"http://h.example/".parse().unwrap()).unwrap();
        assert_eq!(header, format!("Basic {}", STANDARD.encode("me:p@ss+=&")).as_str());
        assert!(header.is_sensitive());
        assert_eq!(proxy.header_for(&"https://h.example/".parse().unwrap()), None, "the target would read it");
    }
}
