use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures_util::future::join_all;
use tokio::net::TcpListener;

use super::*;
use crate::domain::hook::{Action, Hook, HttpAction};
use crate::domain::template::{Form, Piece};
use crate::executor::fixture::{executors, hook, invocation, line};
use crate::executor::{Commons, Execute as _, Executors};

/// What the server of tokens answers, again and again: status, `Retry-After`, body. `#` in the body is the number of the request.
type Answer = (u16, Option<&'static str>, &'static str);

const GRANTED: Answer = (200, None, r#"{"access_token":"granted-token-#","token_type":"bearer","expires_in":600}"#);
const DOWN: Answer = (503, Some("7"), "hunter2 is not in");

#[derive(Clone)]
struct Servers {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    answer: Answer,
    /// Before it answers.
    wait: Duration,
    fetches: usize,
    /// The tokens that targets got.
    shown: Vec<String>,
    refused: Vec<&'static str>,
}

impl Servers {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wait = Duration::from_millis(50);
        let seen = Seen { answer, wait, fetches: 0, shown: Vec::new(), refused: Vec::new() };
        let servers = Self { port: listener.local_addr().unwrap().port(), seen: Arc::new(Mutex::new(seen)) };
        let routes = Router::new().route("/token", post(grant)).route("/target", post(target));
        let routes = routes.with_state(servers.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        servers
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn credentials(&self) -> ClientCredentials {
        let url = format!("http://127.0.0.1:{}/token", self.port);
        let text = |text: &str| Text::new(vec![Piece::Literal(text.to_owned())], Form::Plain).unwrap();
        ClientCredentials {
            url: Secret::new(url.parse().unwrap()),
            text: text(&url),
            client_id: text("me"),
            client_secret: text("hunter2"),
            scopes: Vec::new(),
            audience: None,
            resource: None,
            auth_style: crate::domain::oauth::AuthStyle::Header,
        }
    }

    fn hook(&self, timeout_ms: u64) -> Hook {
        let url = format!("http://127.0.0.1:{}/target", self.port).parse().unwrap();
        let oauth = Some(Arc::new(self.credentials()));
        hook(Action::Http(HttpAction { oauth, ..HttpAction::plain(url, &[]) }), timeout_ms)
    }

    /// Executors that hold a token already, which was granted 95 seconds ago.
    fn holding(&self, expires_in: u64) -> Executors {
        let tokens = Tokens { since: Instant::now() - Duration::from_secs(95), ..Tokens::default() };
        let token = Token { secret: Secret::new("old-token".to_owned()), expires_in: Some(expires_in) };
        tokens.entry(&self.credentials(), &Tls::Usual).end(Ok((token, 0, 0))).unwrap();
        executors().sharing(Commons { tokens: Arc::new(tokens), ..Commons::default() })
    }

    async fn check(&self, executors: &Executors, expected: &str, shown: &[&str], fetches: usize) {
        let outcome = executors.run(&self.hook(5_000), &invocation("{}")).await;
        assert_eq!(line(&outcome).replace(&self.port.to_string(), "PORT"), expected);
        let mut seen = self.seen();
        assert_eq!((seen.shown.split_off(0), seen.fetches), (shown.iter().map(ToString::to_string).collect(), fetches));
    }
}

async fn grant(State(servers): State<Servers>, headers: HeaderMap, body: String) -> (StatusCode, HeaderMap, String) {
    assert_eq!(headers["authorization"].to_str().unwrap(), "Basic bWU6aHVudGVyMg==");
    assert_eq!(body, "grant_type=client_credentials");
    let ((status, after, body), number, wait) = {
        let mut seen = servers.seen();
        seen.fetches += 1;
        (seen.answer, seen.fetches, seen.wait)
    };
    tokio::time::sleep(wait).await;
    let mut headers = HeaderMap::from_iter([("content-type".parse().unwrap(), "application/json".parse().unwrap())]);
    headers.extend(after.map(|after| (RETRY_AFTER, after.parse().unwrap())));
    (StatusCode::from_u16(status).unwrap(), headers, body.replace('#', &number.to_string()))
}

async fn target(State(servers): State<Servers>, headers: HeaderMap) -> (StatusCode, String) {
    let shown = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
    let mut seen = servers.seen();
    let is_refused = seen.refused.contains(&shown.as_str());
    seen.shown.push(shown.clone());
    if is_refused {
        (StatusCode::UNAUTHORIZED, format!("not {shown}"))
    } else {
        (StatusCode::NO_CONTENT, String::new())
    }
}

#[tokio::test]
async fn all_that_wait_share_one_fetch() {
    let servers = Servers::start(GRANTED).await;
    let (executors, hook, invocation) = (executors(), servers.hook(5_000), invocation("{}"));
    let outcomes = join_all((0..50).map(|_| executors.run(&hook, &invocation))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
    servers.check(&executors, "done", &["granted-token-1"; 51], 1).await;
}

#[tokio::test]
async fn all_that_wait_share_one_failure() {
    let servers = Servers::start(DOWN).await;
    let (executors, hook, invocation) = (executors(), servers.hook(5_000), invocation("{}"));
    let outcomes = join_all((0..50).map(|_| executors.run(&hook, &invocation))).await;
    for outcome in &outcomes {
        let Outcome::Failed(Failure { again, status, error, of_target, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!((again, status, of_target), (&Again::Later(Some(Duration::from_secs(7))), &None, &false));
        let server = format!("token endpoint http://127.0.0.1:{}: ", servers.port);
        let said = "503 Service Unavailable: [REDACTED] is not in: it is asked again with the next attempt";
        assert_eq!(error.strip_prefix(&server), Some(said));
    }
    assert_eq!(servers.seen().fetches, 1);
    servers.seen().answer = GRANTED;
    servers.check(&executors, "done", &["granted-token-2"], 2).await;
}

/// The one that fetches is cancelled: the next one that waits has its turn.
#[tokio::test]
async fn a_turn_is_handed_on() {
    let servers = Servers::start(GRANTED).await;
    servers.seen().wait = Duration::from_mins(1);
    let (executors, hook, invocation) = (executors(), servers.hook(5_000), invocation("{}"));
    let is_asked = async {
        while servers.seen().fetches == 0 {
            tokio::task::yield_now().await;
        }
    };
    let (mut first, mut second) = (executors.run(&hook, &invocation), executors.run(&hook, &invocation));
    tokio::select! {
        biased;
        outcome = &mut first => panic!("{outcome:?}"),
        outcome = &mut second => panic!("{outcome:?}"),
        () = is_asked => servers.seen().wait = Duration::ZERO,
    }
    drop(first);
    assert_eq!(second.await, Outcome::Done);
    servers.check(&executors, "done", &["granted-token-2"; 2], 2).await;
}

#[tokio::test]
async fn a_token_is_used_renewed_and_over() {
    let servers = Servers::start(GRANTED).await;
    let renews = servers.holding(100);
    servers.check(&servers.holding(600), "done", &["old-token"], 0).await;
    servers.check(&renews, "done", &["granted-token-1"], 1).await;
    servers.check(&renews, "done", &["granted-token-1"], 1).await;
    servers.check(&servers.holding(95), "done", &["granted-token-2"], 2).await;
    servers.seen().answer = DOWN;
    let renews = servers.holding(100);
    servers.check(&renews, "done", &["old-token"], 3).await; // it lasts for another five seconds
    servers.check(&renews, "done", &["old-token"], 3).await; // and is not asked for at once again
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let servers = Servers::start(GRANTED).await;
    servers.seen().refused = vec!["old-token"];
    let executors = servers.holding(600);
    servers.check(&executors, "done", &["old-token", "granted-token-1"], 1).await;
    servers.check(&executors, "done", &["granted-token-1"], 1).await;
    servers.seen().refused = vec!["old-token", "granted-token-1", "granted-token-2"];
    let executors = servers.holding(600);
    let refused = "never Rejected [401]: 401 Unauthorized: not [REDACTED]";
    servers.check(&executors, refused, &["old-token", "granted-token-2"], 2).await;
    servers.seen().answer = DOWN;
    let executors = servers.holding(600);
    let down = "later 7s: token endpoint http://127.0.0.1:PORT: 503 Service Unavailable: [REDACTED] is not in: it is asked \
                again with the next attempt";
    servers.check(&executors, down, &["old-token"], 3).await;
}

#[tokio::test]
async fn what_goes_wrong() {
    let check = async |answer: Answer, expected: &str| {
        let servers = Servers::start(answer).await;
        servers.check(&executors(), &expected.replace('@', "token endpoint http://127.0.0.1:PORT"), &[], 1).await;
    };
    check(
        (401, None, r#"{"error":"invalid_client","error_description":"no hunter2"}"#),
        "later: @: 401 Unauthorized: invalid_client: no [REDACTED]: check `client_id` and `client_secret`, and whether the \
         server wants them by `auth_style: body`",
    )
    .await;
    check(
        (200, None, r#"{"access_token":"hunter3"}"#),
        "later: @: its answer has no `token_type`, which is no token as RFC 6749, 5.1 has it: check `token_url`",
    )
    .await;
    check((307, None, ""), "later: @: 307 Temporary Redirect (redirects are not followed): check `token_url`").await;
    let long: &str = Box::leak("x".repeat(REPLY_BYTES_MAX + 1).into_boxed_str());
    check((200, None, long), "later: @: its answer has more than 131072 bytes: check `token_url`").await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached() {
    let servers = Servers::start(GRANTED).await;
    servers.seen().wait = Duration::from_mins(1);
    let outcome = executors().run(&servers.hook(300), &invocation("{}")).await;
    let server = format!("token endpoint http://127.0.0.1:{}", servers.port);
    assert_eq!(line(&outcome), format!("later: {server}: timed out after 300ms"));
    let Outcome::Failed(Failure { of_target: false, .. }) = outcome else { panic!("{outcome:?}") };

    let mut hook = servers.hook(5_000);
    let Action::Http(action) = &mut hook.action else { panic!("{hook:?}") };
    let credentials =
        ClientCredentials { url: Secret::new("http://10.1.2.3/token".parse().unwrap()), ..servers.credentials() };
    action.oauth = Some(Arc::new(credentials));
    let outcome = line(&executors().run(&hook, &invocation("{}")).await);
    assert!(outcome.starts_with("never TargetBlocked: token endpoint "), "{outcome}");
}
