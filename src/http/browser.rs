//! Requests that a page in a browser makes behind its reader's back are refused.
//!
//! A page may send simple requests to any address, and by DNS rebinding it may make its own name stand for ours. What
//! gives it away is the `Origin` that browsers add, and the name in `Host`.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::Problem;

/// How the listener is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Local {
    /// From this machine only.
    pub(super) is_loopback: bool,
    /// By https, and not by http.
    pub(super) is_tls: bool,
}

/// Lets a request through, or answers 403 with the reason.
pub(super) async fn guard(State(local): State<Local>, request: Request, next: Next) -> Response {
    let text = |headers: &HeaderMap, name: HeaderName| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let (host, origin) = (text(request.headers(), header::HOST), text(request.headers(), header::ORIGIN));
    let changes = !request.method().is_safe();
    match check(host.as_deref(), origin.as_deref(), local, changes) {
        Ok(()) => next.run(request).await,
        Err(detail) => Problem::new(StatusCode::FORBIDDEN, detail).into_response(),
    }
}

/// Off loopback any name may be ours, and a page's too: there no page changes anything.
fn check(host: Option<&str>, origin: Option<&str>, local: Local, changes: bool) -> Result<(), String> {
    if let Some(host) = host
        && local.is_loopback
        && !is_local(host)
    {
        return Err(format!("expected a Host of this machine (127.0.0.1, [::1] or localhost), found \"{host}\""));
    }
    let scheme = if local.is_tls { "https" } else { "http" };
    match origin.map(|origin| (origin, origin.split_once("://").filter(|(of_page, _)| *of_page == scheme))) {
        None => Ok(()),
        Some((origin, _)) if changes && !local.is_loopback => Err(format!(
            "pages may change nothing here: expected a request without Origin, found Origin \"{origin}\"; send it from a \
             program, or use an address of this machine"
        )),
        Some((_, Some((_, authority)))) if host == Some(authority) => Ok(()),
        Some((origin, _)) => Err(format!("pages of other origins may not ask this server; found Origin \"{origin}\"")),
    }
}

/// Of `host` or `host:port`, whether the host is this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask() {
        let may =
            |host, origin, loopback| check(host, origin, Local { is_loopback: loopback, is_tls: false }, false).is_ok();
        assert!(may(Some("127.0.0.1:8733"), None, true));
        assert!(may(Some("localhost"), None, true));
        assert!(may(Some("[::1]:8733"), None, true));
        assert!(may(None, None, true));
        assert!(may(Some("127.0.0.1:8733"), Some("http://127.0.0.1:8733"), true));
        assert!(!may(Some("127.0.0.1:8733"), Some("http://127.0.0.1:3000"), true));
        assert!(!may(Some("127.0.0.1:8733"), Some("https://evil.example"), true));
        assert!(!may(Some("127.0.0.1:8733"), Some("null"), true));
        assert!(!may(Some("evil.example:8733"), None, true)); // DNS rebinding
        assert!(!may(Some("127.0.0.1.evil.example"), None, true));
        assert!(may(Some("hooks.internal"), None, false));
        assert!(!may(Some("hooks.internal"), Some("https://evil.example"), false));
    }

    #[test]
    fn who_may_change() {
        let may = |host, origin, loopback| {
            check(Some(host), origin, Local { is_loopback: loopback, is_tls: false }, true).is_ok()
        };
        assert!(may("127.0.0.1:8733", Some("http://127.0.0.1:8733"), true));
        assert!(!may("127.0.0.1:8733", Some("http://127.0.0.1:3000"), true));
        assert!(may("hooks.internal", None, false));
        assert!(!may("hooks.internal", Some("http://hooks.internal"), false));
        assert!(!may("evil.example:8733", Some("http://evil.example:8733"), false)); // DNS rebinding
    }

    /// Case D9: another scheme is another origin.
    #[test]
    fn d9_a_page_of_another_scheme_may_not_ask() {
        let check = |scheme: &str, is_tls, expected| {
            let origin = format!("{scheme}://127.0.0.1:8733");
            for changes in [true, false] {
                let local = Local { is_loopback: true, is_tls };
                let may = check(Some("127.0.0.1:8733"), Some(&origin), local, changes);
                assert_eq!(may.is_ok(), expected, "{origin} {is_tls}");
            }
        };
        check("http", false, true);
        check("https", false, false);
        check("https", true, true);
        check("http", true, false);
    }
}
