use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use axum::routing::get;
use serde::Deserialize;
use tower::ServiceExt as _;

use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    limit: u32,
}

#[tokio::test]
async fn what_does_not_fit_is_a_problem() {
    let answer = async |Path(name): Path<String>, Query(asked): Query<Asked>| format!("{name} {}", asked.limit);
    let router = Router::new().route("/{name}", get(answer));
    let check = async |path: &str, status: u16, expected: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
        let kind = response.headers()[header::CONTENT_TYPE].clone();
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        if status == 200 {
            return assert_eq!(body, expected);
        }
        assert_eq!(kind, "application/problem+json", "{path}");
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["detail"], expected, "{path}");
    };
    check("/a?limit=3", 200, "a 3").await;
    let of_query = |why: &str| format!("expected the parameters that the documentation has: {why}");
    check("/a", 400, &of_query("missing field `limit`")).await;
    check("/a?x=1", 400, &of_query("x: unknown field `x`, expected `limit`")).await;
    check("/a?limit=many", 400, &of_query("limit: invalid digit found in string")).await;
    let of_path = "expected a path as the documentation has it: Invalid URL: Invalid UTF-8 in `name`";
    check("/%ff?limit=3", 400, of_path).await;
}
