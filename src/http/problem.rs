//! Errors as RFC 9457 problem details.

use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::{IntoResponses, ToSchema};

use crate::domain::coding::{ACCEPTED, CodingError, codings, inflated};
use crate::domain::json;
use crate::operations::OperationError;
use crate::operations::cancel::CancelError;
use crate::operations::events::LookError;

/// An error that a caller may see.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    /// What a program may want to know of it, beside the standard members.
    more: Map<String, Value>,
    /// How to show who asks, in the header that is for it.
    challenge: Option<&'static str>,
    /// The body has a content coding that is not understood: the answer says which are (RFC 9110, 12.5.3).
    names_codings: bool,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), more: Map::new(), challenge: None, names_codings: false }
    }

    /// A body with a content coding that is not understood.
    pub(super) fn unsupported_coding(detail: impl Into<String>) -> Self {
        Self { names_codings: true, ..Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail) }
    }

    /// Its status and its sentence, for an API that words problems in its own way.
    pub(super) fn into_parts(self) -> (StatusCode, String) {
        (self.status, self.detail)
    }

    /// Adds a member; chainable.
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    /// Says how to show who asks; chainable.
    pub(super) fn challenge(self, challenge: &'static str) -> Self {
        Self { challenge: Some(challenge), ..self }
    }
}

/// The body of a request without its content codings, of at most so many bytes.
pub(super) struct Whole<const BYTES_MAX: usize>(pub(super) Bytes);

impl<S: Send + Sync, const BYTES_MAX: usize> FromRequest<S> for Whole<BYTES_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let encodings = request.headers().get_all(header::CONTENT_ENCODING).iter();
        let encodings = encodings.map(|value| String::from_utf8_lossy(value.as_bytes())).collect::<Vec<_>>().join(",");
        let named = codings(&encodings).map_err(coding)?;
        let body = whole(request, BYTES_MAX, "").await?;
        inflated(&body, &named, BYTES_MAX).map(Self).map_err(coding)
    }
}

fn coding(error: CodingError) -> Problem {
    match error {
        CodingError::Unknown(detail) => Problem::unsupported_coding(detail),
        CodingError::Broken(detail) => Problem::new(StatusCode::BAD_REQUEST, detail),
        CodingError::TooLarge(_) => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.sentence()),
    }
}

/// The body of a request as it came, of at most `max` bytes; `note` says where that is set.
pub(super) async fn whole(mut request: Request, max: usize, note: &str) -> Result<Bytes, Problem> {
    DefaultBodyLimit::max(max).apply(&mut request);
    Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the request is larger than {max} bytes{note}"))
        }
        status => Problem::new(status, rejection.body_text()),
    })
}

/// A body in JSON.
pub(super) fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(json::without_mark(body)).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("expected a body in JSON as the documentation has it: {error}"))
    })
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        let status = match &error {
            OperationError::Unknown(_) => StatusCode::NOT_FOUND,
            OperationError::Invalid(_) => StatusCode::BAD_REQUEST,
            OperationError::Refused(_) => StatusCode::CONFLICT,
            OperationError::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<CancelError> for Problem {
    fn from(error: CancelError) -> Self {
        let status = match &error {
            CancelError::Unknown(_) => StatusCode::NOT_FOUND,
            CancelError::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<LookError> for Problem {
    fn from(error: LookError) -> Self {
        let status = match &error {
            LookError::Unknown(_) => StatusCode::NOT_FOUND,
            LookError::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

/// What went wrong: RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Details {
    /// about:blank: the title says what kind it is.
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    /// As the answer's own.
    status: u16,
    /// One sentence: what was expected and found, and what to do.
    detail: String,
    /// What a program may want to know beside it.
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// Problems as routes name them in the document; a [`Problem`] is what is answered.
macro_rules! described {
    ($($(#[$doc:meta])* $name:ident: $status:literal;)*) => {$(
        $(#[$doc])*
        #[derive(IntoResponses)]
        #[response(status = $status, content_type = "application/problem+json")]
        #[expect(dead_code, reason = "only its description is used")]
        pub(super) struct $name(Details);
    )*};
}

described! {
    /// What is asked for cannot be understood.
    Unclear: 400;
    /// No letter has such an id.
    NoLetter: 404;
    /// No job has this id.
    NoJob: 404;
    /// The request is too large.
    TooLarge: 413;
    /// It is resolved, or a replay of it is out, or it is of a kind with which this cannot be done.
    Refused: 409;
    /// The log cannot be read, or the broker is away: asking again is safe.
    Away: 503;
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Details {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: self.detail,
            more: self.more,
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.names_codings {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[tokio::test]
    async fn what_is_too_large_is_a_problem() {
        for (bytes, status) in [(10, StatusCode::OK), (11, StatusCode::PAYLOAD_TOO_LARGE)] {
            let request = Request::new(Body::from(vec![b'x'; bytes]));
            let found = Whole::<10>::from_request(request, &()).await;
            let answer = found.map_or_else(Problem::into_response, |whole| whole.0.into_response());
            assert_eq!(answer.status(), status);
            let is_problem = answer.headers()[header::CONTENT_TYPE] == "application/problem+json";
            assert_eq!(is_problem, status != StatusCode::OK);
        }
    }
}
