//! What handlers take from a request's address. Where it is not what they expect, the answer is a problem as any other.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path as AxumPath, Query as AxumQuery};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The parameters behind `?`.
pub(super) struct Query<T>(pub(super) T);

/// The parameters in a path.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let AxumQuery(query) =
            AxumQuery::from_request_parts(parts, state).await.map_err(|rejection| of_query(&rejection))?;
        Ok(Self(query))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let AxumPath(path) =
            AxumPath::from_request_parts(parts, state).await.map_err(|rejection| of_path(&rejection))?;
        Ok(Self(path))
    }
}

fn of_query(rejection: &QueryRejection) -> Problem {
    let why = rejection.body_text();
    let why = why.strip_prefix("Failed to deserialize query string: ").unwrap_or(&why);
    Problem::new(StatusCode::BAD_REQUEST, format!("expected the parameters that the documentation has: {why}"))
}

fn of_path(rejection: &PathRejection) -> Problem {
    let why = rejection.body_text();
    Problem::new(rejection.status(), format!("expected a path as the documentation has it: {why}"))
}

#[cfg(test)]
mod tests;
