//! HTTP requests that got no reply: why, whose trouble it is, and what is said of it.

use std::error::Error;
use std::io;
use std::net::Ipv6Addr;

use hyper_util::client::legacy;
use url::{Host, Url};

use super::clients::{CONNECT_TIMEOUT, NoConnection, NotLed};
use super::egress::{Refused, Unresolved};
use super::shortage;
use crate::domain::excerpt::excerpt;
use crate::domain::outcome::Outcome;
use crate::error_chain::{causes, root};

/// What it comes to; none of `secrets` is shown.
pub(super) fn outcome(error: &(dyn Error + 'static), secrets: Vec<String>) -> Outcome {
    if let Some(refused) = refused(error) {
        return Outcome::from(refused);
    }
    if causes(error).any(<dyn Error>::is::<NoConnection>) {
        return Outcome::later(format!("timeout: no connection within {CONNECT_TIMEOUT:?}"));
    }
    let (why, cause) = (why(error), excerpt(root(error).to_string().as_bytes(), secrets));
    match causes(error).find(|cause| cause.is::<NotLed>()) {
        Some(not_led) => Outcome::later(format!("{why}: {not_led}: {cause}")),
        None => Outcome::later(format!("{why}: {cause}")),
    }
}

/// The guard has let no request out.
pub(super) fn refused<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Refused> {
    causes(error).find_map(|cause| cause.downcast_ref::<Refused>())
}

/// Whether a shortage of this machine is in the way, and not the target. A machine without IPv6 answers a connection to an
/// IPv6 address with the error of a machine that has no port left. That is no shortage.
pub(super) fn is_ours(error: &(dyn Error + 'static), url: &Url) -> bool {
    let has_family = || match url.host() {
        Some(Host::Ipv6(_)) => std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
        _ => true,
    };
    let is_unresolved = || causes(error).any(<dyn Error>::is::<Unresolved>);
    shortage::is_shortage(error) && has_family() || is_unresolved() && shortage::has_no_handle()
}

/// Why there is no reply, in one word.
pub(super) fn why(error: &(dyn Error + 'static)) -> &'static str {
    let is = |test: fn(&(dyn Error + 'static)) -> bool| causes(error).any(test);
    if is(<dyn Error>::is::<Unresolved>) {
        "dns"
    } else if is(<dyn Error>::is::<rustls::Error>) {
        "tls"
    } else if is(is_timeout) {
        "timeout"
    } else if is(|cause| cause.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect)) {
        "connect"
    } else if is(is_reset) {
        "reset"
    } else {
        "transport"
    }
}

fn is_timeout(cause: &(dyn Error + 'static)) -> bool {
    cause.is::<NoConnection>()
        || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
        || cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

fn is_reset(cause: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof))
        || cause
            .downcast_ref::<h2::Error>()
            .is_some_and(|error| error.is_remote() && (error.is_go_away() || error.is_reset()))
        || cause.to_string().starts_with("connection closed before message completed") // hyper's words for it
}
