//! Answers to requests that no route takes: problems that say which process serves what.

use axum::Router;
use axum::http::{Method, StatusCode, Uri};

use super::problem::Problem;
use super::{Group, Kind, openapi};

/// A route of any kind of process.
struct Known {
    /// With parameters in braces.
    path: String,
    methods: Vec<String>,
    group: Group,
}

impl Known {
    fn all() -> Vec<Self> {
        let of_group = |group: Group| {
            let document = group.documented().into_openapi();
            let paths = document.paths.paths.into_iter();
            paths.map(move |(path, item)| Self { methods: openapi::methods(&item), path, group })
        };
        Group::ALL.into_iter().flat_map(of_group).collect()
    }

    fn is_at(&self, path: &str) -> bool {
        let is_same = |(known, asked): (&str, &str)| known == asked || (known.starts_with('{') && !asked.is_empty());
        let segments = |path: &str| path.split('/').count();
        segments(&self.path) == segments(path) && self.path.split('/').zip(path.split('/')).all(is_same)
    }
}

/// The same routes, and a problem for every other request to a process of this kind.
pub(super) fn answered(router: Router, kind: Kind) -> Router {
    let known: std::sync::Arc<[Known]> = Known::all().into();
    let wrong_method = {
        let known = std::sync::Arc::clone(&known);
        move |method: Method, uri: Uri| async move { method_not_allowed(&known, &method, uri.path()) }
    };
    let not_found = move |method: Method, uri: Uri| async move { not_found(&known, kind, &method, uri.path()) };
    router.method_not_allowed_fallback(wrong_method).fallback(not_found)
}

/// The header `Allow` is set by the router.
fn method_not_allowed(known: &[Known], method: &Method, path: &str) -> Problem {
    let methods: Vec<&str> =
        known.iter().filter(|known| known.is_at(path)).flat_map(|known| &known.methods).map(String::as_str).collect();
    let detail = format!("expected {} for {path}, found {method}", methods.join(" or "));
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

fn not_found(known: &[Known], kind: Kind, method: &Method, path: &str) -> Problem {
    let this = kind.command();
    let Some(found) = known.iter().find(|known| known.is_at(path)) else {
        let detail = format!(
            "no process serves {path}: `hookfleet openapi` and GET /v1/openapi.json list every route; this process is a \
             `{this}`, which serves {}",
            served(kind)
        );
        return Problem::new(StatusCode::NOT_FOUND, detail);
    };
    let serve = |kind: &Kind| kind.groups().contains(&found.group);
    if found.group == Group::Kheish && serve(&kind) {
        let detail = format!("{path} is a path of Kheish, which is served with `http.kheish_api: true`");
        return Problem::new(StatusCode::NOT_FOUND, detail);
    }
    if found.group == Group::Bernstein && serve(&kind) {
        let detail = format!(
            "{path} is a path of Bernstein, which is served with `http.bernstein_hook_secret` or `http.bernstein_webhook_secret`"
        );
        return Problem::new(StatusCode::NOT_FOUND, detail);
    }
    let commands: Vec<_> =
        Kind::ALL.iter().filter(|kind| serve(kind)).map(|kind| format!("`{}`", kind.command())).collect();
    let detail = format!(
        "{method} {path} is served by {}; this process is a `{this}`, which serves {}",
        commands.join(" and "),
        served(kind)
    );
    Problem::new(StatusCode::NOT_FOUND, detail)
}

/// What a process of this kind serves, for people.
fn served(kind: Kind) -> String {
    kind.groups().iter().map(|group| group.what()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, header};
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    /// Status, `Allow` and detail of the answer of a process that serves `GET /healthz` and nothing else.
    async fn answer(method: &str, path: &str) -> (u16, String, String) {
        let router = answered(Router::new().route("/healthz", get(async || "ok")), Kind::Worker);
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let header = |name| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (status, allow, kind) = (response.status().as_u16(), header(header::ALLOW), header(header::CONTENT_TYPE));
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        if status < 400 {
            return (status, allow, String::from_utf8(body.to_vec()).unwrap());
        }
        assert_eq!(kind, "application/problem+json");
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (status, allow, problem["detail"].as_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn requests_that_no_route_takes() {
        let check = async |method: &str, path: &str, status: u16, allow: &str, detail: &str| {
            let (found, allowed, said) = answer(method, path).await;
            assert_eq!((found, allowed.as_str()), (status, allow), "{method} {path}: {said}");
            assert_eq!(said, detail, "{method} {path}");
        };
        check("GET", "/healthz", 200, "", "ok").await;
        check("POST", "/healthz", 405, "GET,HEAD", "expected GET for /healthz, found POST").await;
        let elsewhere = "POST /v1/events is served by `hookfleet server` and `hookfleet up`; this process is a `hookfleet worker`, which serves metrics, health, readiness and status";
        check("POST", "/v1/events", 404, "", elsewhere).await;
        let elsewhere = "GET /v1/dead-letters/17 is served by `hookfleet server` and `hookfleet up`; this process is a \
                         `hookfleet worker`, which serves metrics, health, readiness and status";
        let path = "/v1/dead-letters/17";
        check("GET", path, 404, "", elsewhere).await;
        for path in ["/", "/v1", "/v1/event", "/v1/events/", "/v1/dead-letters//edit"] {
            let nowhere = format!(
                "no process serves {path}: `hookfleet openapi` and GET /v1/openapi.json list every route; this process is \
                     a `hookfleet worker`, which serves metrics, health, readiness and status"
            );
            check("GET", path, 404, "", &nowhere).await;
        }
    }
}
