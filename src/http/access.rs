//! Routes for operators and publishers are served to whoever shows a token, or while there are none, on loopback.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;

use super::problem::Problem;
use crate::config::Http;
use crate::domain::access::{Role, Token, Verdict, judge};

/// How long a changed file of tokens may go unseen.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Who is let in.
#[derive(Debug)]
pub(super) struct Door {
    settings: Http,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Whoever reaches it: this machine.
    Open,
    /// Nobody: there are no tokens, and others can reach it.
    Closed,
    /// Who shows a token.
    Locked(Mutex<Keys>),
}

/// The tokens, as they were read last.
#[derive(Debug)]
struct Keys {
    tokens: Arc<[Token]>,
    read_at: Instant,
    /// Why they could not be read again, to be told once.
    trouble: Option<String>,
}

impl Door {
    /// The door of a listener at this address.
    ///
    /// # Errors
    /// The file of tokens cannot be read.
    pub(super) fn new(settings: &Http, address: SocketAddr) -> std::io::Result<Self> {
        let kind = if settings.has_tokens() {
            let tokens = settings.read_tokens()?.into();
            Kind::Locked(Mutex::new(Keys { tokens, read_at: Instant::now(), trouble: None }))
        } else if address.ip().is_loopback() {
            Kind::Open
        } else {
            tracing::warn!(
                %address,
                "others can reach this address and there are no tokens: metrics and health are served, and nothing \
                 else; set http.tokens or http.tokens_file"
            );
            Kind::Closed
        };
        Ok(Self { settings: settings.clone(), kind })
    }

    /// Whether who asks has to show a token.
    pub(super) const fn takes_tokens(&self) -> bool {
        matches!(self.kind, Kind::Locked(_))
    }

    async fn check(&self, authorization: Option<&[u8]>, needed: Role) -> Result<(), Problem> {
        match &self.kind {
            Kind::Open => Ok(()),
            Kind::Closed => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "without tokens this is served on loopback only, and others can reach this address: set http.tokens or \
                 http.tokens_file, or http.bind to an address of this machine",
            )),
            Kind::Locked(keys) => refusal(judge(&self.current(keys).await, authorization, needed), needed),
        }
    }

    /// The tokens as they are now. A file that cannot be read leaves those that were known.
    async fn current(&self, keys: &Mutex<Keys>) -> Arc<[Token]> {
        let lock = || keys.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut keys = lock();
            if self.settings.tokens_file.is_none() || keys.read_at.elapsed() < READ_AGAIN {
                return Arc::clone(&keys.tokens);
            }
            keys.read_at = Instant::now(); // others need not read it meanwhile
        }
        let settings = self.settings.clone();
        let read = tokio::task::spawn_blocking(move || settings.read_tokens()).await;
        let read = read.map_err(std::io::Error::other).and_then(|read| read);
        let mut keys = lock();
        match read {
            Ok(tokens) => {
                keys.tokens = tokens.into();
                keys.trouble = None;
            }
            Err(error) => {
                let trouble = Some(error.to_string());
                if keys.trouble != trouble {
                    tracing::warn!(%error, "the tokens that were known go on");
                    keys.trouble = trouble;
                }
            }
        }
        Arc::clone(&keys.tokens)
    }
}

fn refusal(verdict: Verdict, needed: Role) -> Result<(), Problem> {
    let role = needed.name();
    let (status, detail, challenge) = match verdict {
        Verdict::Allowed => return Ok(()),
        Verdict::Unknown { sent: false } => {
            let detail =
                format!("expected `Authorization: Bearer TOKEN` with a token of role {role} or operate, found none");
            (StatusCode::UNAUTHORIZED, detail, r#"Bearer realm="hookfleet""#)
        }
        Verdict::Unknown { sent: true } => (
            StatusCode::UNAUTHORIZED,
            "the token is none of http.tokens and http.tokens_file".to_owned(),
            r#"Bearer realm="hookfleet", error="invalid_token""#,
        ),
        Verdict::TooLittle => (
            StatusCode::FORBIDDEN,
            format!("the token's role is not enough: this takes {role} or operate"),
            r#"Bearer realm="hookfleet", error="insufficient_scope""#,
        ),
    };
    let detail = detail.replace("operate or operate", "operate");
    Err(Problem::new(status, detail).challenge(challenge))
}

/// Lets a request through that the role is enough for.
pub(super) async fn guard(State((door, needed)): State<(Arc<Door>, Role)>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes().to_vec());
    match door.check(authorization.as_deref(), needed).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// The same, where a request may be signed in place of showing a token. The signature is in `header`; `None`: there is no secret
/// to sign with. A request that has the header is let through, and the handler checks the signature. Where there are no tokens,
/// a request without the header is refused.
pub(super) async fn guard_or_signature(
    State((door, needed, header)): State<(Arc<Door>, Role, Option<&'static str>)>,
    request: Request,
    next: Next,
) -> Response {
    match header {
        Some(header) if request.headers().contains_key(header) => return next.run(request).await,
        Some(header) if matches!(door.kind, Kind::Open) => {
            return Problem::new(StatusCode::UNAUTHORIZED, format!("expected the header {header}, found none"))
                .into_response();
        }
        _ => {}
    }
    guard(State((door, needed)), request, next).await
}

/// The same, where the last part of the path is the token.
pub(super) async fn guard_by_path(
    State((door, needed)): State<(Arc<Door>, Role)>,
    request: Request,
    next: Next,
) -> Response {
    let token = request.uri().path().rsplit('/').next().unwrap_or_default();
    let authorization = format!("Bearer {token}");
    match door.check(Some(authorization.as_bytes()), needed).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BernsteinSecrets;

    const TOKEN: &str = "read:0123456789abcdef";

    fn http(tokens: &[&str]) -> Http {
        let tokens = tokens.iter().map(|token| Token::parse(token).unwrap()).collect();
        let (bind, bernstein) = ("127.0.0.1:0".parse().unwrap(), BernsteinSecrets::default());
        Http { bind, tokens, tokens_file: None, kheish_api: false, bernstein, certificate: None }
    }

    async fn answer(door: &Door, authorization: Option<&str>, needed: Role) -> (u16, Option<String>) {
        match door.check(authorization.map(str::as_bytes), needed).await {
            Ok(()) => (200, None),
            Err(problem) => {
                let response = problem.into_response();
                let challenge = response.headers().get(header::WWW_AUTHENTICATE);
                (response.status().as_u16(), challenge.map(|value| value.to_str().unwrap().to_owned()))
            }
        }
    }

    #[tokio::test]
    async fn who_is_let_in() {
        let (here, everywhere) = ("127.0.0.1:1".parse().unwrap(), "0.0.0.0:1".parse().unwrap());
        assert_eq!(answer(&Door::new(&http(&[]), here).unwrap(), None, Role::Operate).await, (200, None));
        assert_eq!(answer(&Door::new(&http(&[]), everywhere).unwrap(), None, Role::Read).await, (403, None));
        for address in [here, everywhere] {
            let door = Door::new(&http(&[TOKEN]), address).unwrap();
            let bearer = Some("Bearer 0123456789abcdef");
            let challenge = |more: &str| Some(format!("Bearer realm=\"hookfleet\"{more}"));
            assert_eq!(answer(&door, bearer, Role::Read).await, (200, None));
            assert_eq!(answer(&door, None, Role::Read).await, (401, challenge("")));
            let wrong = answer(&door, Some("Bearer 0123456789abcdeg"), Role::Read).await;
            assert_eq!(wrong, (401, challenge(", error=\"invalid_token\"")));
            let little = answer(&door, bearer, Role::Publish).await;
            assert_eq!(little, (403, challenge(", error=\"insufficient_scope\"")));
        }
    }

    #[tokio::test]
    async fn a_file_of_tokens_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let settings = Http { tokens_file: Some(path.clone()), ..http(&["operate:operate-operate-1"]) };
        let here = "127.0.0.1:1".parse().unwrap();
        let why = Door::new(&settings, here).unwrap_err().to_string();
        assert!(why.starts_with("http.tokens_file (") && why.contains("No such file"), "{why}");
        for (text, expected) in [("# none\n", "found none"), ("a\nread:short\n", "line 1: expected a role")] {
            std::fs::write(&path, text).unwrap();
            let why = Door::new(&settings, here).unwrap_err().to_string();
            assert!(why.contains(expected), "{why}");
        }

        std::fs::write(&path, "# rotated\n\n  read:first-first-first \nread:second-second-22\n").unwrap();
        let door = Door::new(&settings, here).unwrap();
        let status = async |token: &str| answer(&door, Some(&format!("Bearer {token}")), Role::Read).await.0;
        for token in ["first-first-first", "second-second-22", "operate-operate-1"] {
            assert_eq!(status(token).await, 200, "{token}");
        }
        std::fs::write(&path, "read:third-third-third\n").unwrap();
        tokio::time::pause();
        tokio::time::advance(READ_AGAIN).await;
        assert_eq!((status("third-third-third").await, status("first-first-first").await), (200, 401));
        // Half written, or gone: what was known goes on.
        std::fs::write(&path, "read:thi").unwrap();
        tokio::time::advance(READ_AGAIN).await;
        assert_eq!(status("third-third-third").await, 200);
    }
}
