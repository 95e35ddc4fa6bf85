//! What is served over HTTP, as OpenAPI 3.1: made of the routes themselves and of the types that they take and answer.
//!
//! A route is added with its document and behind its role, or not at all.

use std::sync::Arc;

use axum::Extension;
use axum::middleware::from_fn_with_state;
use axum::response::Json;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, Info, License, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Group;
use super::access::{self, Door};
use crate::domain::access::Role;

/// The name of the scheme by which callers show who they are.
const TOKEN: &str = "token";
const ABOUT: &str =
    "Events in, hooks and dead letters to look at and to act on. Errors are problem details (RFC 9457).";
const WITH_TOKENS: &str = " Where the settings name tokens, the roles beside a route say which of them open it: the role \
                           itself, or operate. Without tokens all of this is served on loopback only.";
const WITHOUT_TOKENS: &str = " This process has no tokens and serves all of this on loopback only.";
/// What any route behind a role may answer besides.
const REFUSALS: [(&str, &str, &str); 2] = [
    ("401", "Unauthorized", "There is no token, or none that is known."),
    ("403", "Forbidden", "The token's role is not enough; or there are no tokens, and the address is not loopback."),
];

/// The whole document.
#[must_use]
pub fn document() -> OpenApi {
    Group::ALL.into_iter().map(Group::documented).fold(base(), OpenApiRouter::merge).into_openapi()
}

/// The document of a process that takes no tokens.
fn without_tokens() -> OpenApi {
    let mut document = document();
    document.info.description = Some(format!("{ABOUT}{WITHOUT_TOKENS}"));
    if let Some(components) = &mut document.components {
        components.security_schemes.clear();
        components.responses.clear();
    }
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        operation.security = None;
        operation.responses.responses.retain(|status, _| REFUSALS.iter().all(|(refusal, ..)| refusal != status));
    }
    document
}

/// Whether the process takes tokens.
#[derive(Debug, Clone, Copy)]
struct Tokens(bool);

/// This document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    operation_id = "openapi",
    responses((status = 200, description = "The document", body = Object))
)]
async fn openapi(Extension(Tokens(taken)): Extension<Tokens>) -> Json<OpenApi> {
    Json(if taken { document() } else { without_tokens() })
}

/// What is not in the routes.
pub(super) fn base() -> OpenApiRouter {
    let license = License::builder().name(env!("CARGO_PKG_LICENSE")).identifier(Some(env!("CARGO_PKG_LICENSE")));
    let mut info = Info::new("hookfleet", env!("CARGO_PKG_VERSION"));
    info.description = Some(format!("{ABOUT}{WITH_TOKENS}"));
    info.license = Some(license.build());
    let mut components = Components::new();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme(TOKEN, SecurityScheme::Http(scheme));
    for (_, name, description) in REFUSALS {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let answer = ResponseBuilder::new().description(description).content("application/problem+json", content);
        components.responses.insert(name.to_owned(), RefOr::T(answer.build()));
    }
    let document = OpenApi::builder().info(info).components(Some(components)).build();
    OpenApiRouter::with_openapi(document)
}

/// The route of the document itself: what is served behind this door.
pub(super) fn own<S: Clone + Send + Sync + 'static>(door: Option<&Arc<Door>>) -> OpenApiRouter<S> {
    let tokens = Tokens(door.is_none_or(|door| door.takes_tokens()));
    OpenApiRouter::default().routes(routes!(openapi)).layer(Extension(tokens))
}

/// Routes that take a role, and say so. Without a door, only the document is of use.
pub(super) fn behind<S>(role: Role, routes: OpenApiRouter<S>, door: Option<&Arc<Door>>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let mut routes = match door {
        Some(door) => routes.route_layer(from_fn_with_state((Arc::clone(door), role), access::guard)),
        None => routes,
    };
    for item in routes.get_openapi_mut().paths.paths.values_mut() {
        for operation in operations(item) {
            operation.security = Some(vec![SecurityRequirement::new(TOKEN, [role.name()])]);
            for (status, name, _) in REFUSALS {
                let refusal = RefOr::Ref(Ref::from_response_name(name));
                operation.responses.responses.insert(status.to_owned(), refusal);
            }
        }
    }
    routes
}

/// The names of the methods that a path has.
pub(super) fn methods(item: &PathItem) -> Vec<String> {
    let named = [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("DELETE", &item.delete)];
    let named = named.into_iter().chain([("PATCH", &item.patch)]);
    named.filter(|(_, operation)| operation.is_some()).map(|(name, _)| name.to_owned()).collect()
}

/// Of the methods that are served here.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.delete, &mut item.patch].into_iter().flatten()
}

#[cfg(test)]
mod tests;
