//! Events in requests: read as the settings say, and held against what their types declare.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::problem::{Problem, whole};
use crate::domain::event::Reading;
use crate::domain::matching::HookSet;
use crate::publish::{self, Event, Rejected, read, request_bytes_max};
use crate::telemetry::Metric;

/// Events of a batch whose mistakes are listed.
const MISFITS_TOLD: usize = 20;

/// How requests with events are read.
#[derive(Clone)]
pub struct Intake {
    pub reading: Reading,
    /// The catalog in force, which declares event types.
    pub hooks: watch::Receiver<Arc<HookSet>>,
}

/// An event, as it was taken.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct Taken {
    /// Its own, or the one that it was given.
    pub(super) id: String,
    pub(super) source: String,
    /// Whether the broker has it; of batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confirmed: Option<bool>,
}

/// An event of CloudEvents 1.0 in structured mode. Other attributes are taken too, and go along.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct CloudEvent {
    /// 1.0 if nothing is said.
    #[schema(pattern = r"^1\.0$")]
    specversion: Option<String>,
    /// With the source it is the event's identity; assigned if nothing is said.
    #[schema(min_length = 1, max_length = 1024)]
    id: Option<String>,
    /// Of what it is an event; the gateway itself if nothing is said.
    #[schema(min_length = 1, max_length = 1024)]
    source: Option<String>,
    /// What happened.
    #[schema(rename = "type", min_length = 1, max_length = 1024)]
    kind: String,
    subject: Option<String>,
    data: Option<Value>,
}

impl Taken {
    pub(super) fn of(event: &Event) -> Self {
        Self { id: event.id().to_owned(), source: event.source().to_owned(), confirmed: None }
    }
}

impl Intake {
    /// The events that a request holds.
    pub(super) async fn events_of(&self, mut request: Request) -> Result<publish::Request, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let max = request_bytes_max(content_type, &self.reading);
        let headers = std::mem::take(request.headers_mut());
        let body = whole(request, max, ", the limit (events.body_bytes_max)").await?;
        Ok(read(&pairs(&headers), &body, &self.reading)?)
    }

    /// Refuses all of them if one is not what its type declares, where the type is strict. The worker that gets an event
    /// reports those that are only to be warned of.
    pub(super) fn refuse_misfits(&self, events: &[Event]) -> Result<(), Problem> {
        let hooks = self.hooks.borrow().clone();
        let types = hooks.types();
        let misfits = events.iter().enumerate().filter_map(|(place, event)| Some((place, event, event.misfit(types)?)));
        let misfits: Vec<_> = misfits.filter(|(_, _, misfit)| misfit.strict).collect();
        let Some((place, _, first)) = misfits.first() else { return Ok(()) };
        let detail = match events {
            [_] => first.sentence(),
            all => format!(
                "nothing was published, since {} of {} events do not fit their types; event {place} (counted from 0): {}",
                misfits.len(),
                all.len(),
                first.sentence()
            ),
        };
        for (_, _, misfit) in &misfits {
            Metric::EventsMisfit.count(&[("type", misfit.on.clone()), ("action", "refused".to_owned())]);
        }
        let told = misfits.iter().take(MISFITS_TOLD).map(|(place, event, misfit)| {
            let Taken { id, source, .. } = Taken::of(event);
            json!({ "id": id, "source": source, "event": place, "type": misfit.on.as_str(), "errors": misfit.mistakes })
        });
        let told = Value::from(told.collect::<Vec<_>>());
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with("misfits", told))
    }
}

pub(super) fn pairs(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::ContentType(detail) => Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail),
            Rejected::Coding(detail) => Self::unsupported_coding(detail),
            Rejected::Event(detail) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail),
            Rejected::TooLarge(detail) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
        }
    }
}
