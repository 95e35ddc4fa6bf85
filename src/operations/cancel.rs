//! An operator ends a pending invocation: it runs no more, and no letter is written.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::claim::{Answer, Before, Request};
use crate::domain::id::InvocationKey;
use crate::domain::time::millis;
use crate::idempotency::{Idempotency, StoreError};

/// What was found of an invocation that was to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It has finished: nothing was cancelled.
    Done,
    /// Nothing was known of it; should it come, it does not run.
    Nothing,
    /// A run, which its worker stops when it next renews its claim.
    Running,
    Pending,
    /// It was given up before, with a letter.
    GivenUp,
    Cancelled,
}

/// What cancelling came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cancelled {
    pub invocation: String,
    pub found: Found,
}

/// Ends an invocation, of whichever generation is known of it: its message is dropped when it comes within `keep`. Doing it
/// twice does it once. Its claim says so; a run that goes on until then can settle nothing.
///
/// What nothing is known of is left alone, unless `even_if_unknown` says so: then it does not run should it come.
///
/// # Errors
/// Nothing is known of it; or the store of claims does not answer: repeating the call is safe.
pub async fn cancel(
    claims: &dyn Idempotency,
    key: &InvocationKey,
    keep: Duration,
    even_if_unknown: bool,
) -> Result<Cancelled, CancelError> {
    let away = |error: StoreError| CancelError::Away(format!("{error}; cancelling again is safe"));
    if !even_if_unknown && claims.look(key).await.map_err(away)?.is_none() {
        return Err(CancelError::Unknown(key.clone()));
    }
    let request = Request::Cancel { generation: 0, keep_ms: millis(keep) };
    let found = match claims.ask(key, &request).await.map_err(away)? {
        Answer::Done { .. } => Found::Done,
        Answer::Cancelled { before } => match before {
            Before::Nothing => Found::Nothing,
            Before::Held => Found::Running,
            Before::Pending => Found::Pending,
            Before::Buried => Found::GivenUp,
            Before::Cancelled => Found::Cancelled,
        },
        answer => return Err(CancelError::Away(format!("the store of claims answered {answer:?}"))),
    };
    tracing::info!(invocation = %key, ?found, "cancelled by an operator");
    Ok(Cancelled { invocation: key.to_string(), found })
}

/// Why nothing was cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    #[error(
        "nothing is known of {0}: no worker has begun with it, or it was forgotten. Are event, source and hook right? What \
         still waits for its first run can be cancelled all the same: by --even-if-unknown, or even_if_unknown=true over HTTP"
    )]
    Unknown(InvocationKey),
    #[error("{0}")]
    Away(String),
}
