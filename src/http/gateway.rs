//! The event gateway: 202 once the broker has confirmed, 503 with `Retry-After` when it has not.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRef, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Door;
use super::intake::{CloudEvent, Intake, Taken};
use super::openapi;
use super::problem::{Details, Problem};
use crate::broker::Broker;
use crate::config::BernsteinSecrets;
use crate::domain::access::Role;
use crate::domain::event::Reading;
use crate::publish::{self, Event, Publisher, PublisherOptions, Unpublished};

/// How long a caller waits for a confirm before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the handlers work with.
#[derive(Clone)]
pub struct Gateway {
    pub intake: Intake,
    /// See [`publisher`].
    pub publisher: Arc<Publisher>,
    /// What Bernstein signs its requests with.
    pub bernstein: Arc<BernsteinSecrets>,
}

impl FromRef<Gateway> for Intake {
    fn from_ref(gateway: &Gateway) -> Self {
        gateway.intake.clone()
    }
}

impl FromRef<Gateway> for Arc<Publisher> {
    fn from_ref(gateway: &Gateway) -> Self {
        Arc::clone(&gateway.publisher)
    }
}

/// What the gateway publishes through.
#[must_use]
pub fn publisher(broker: Arc<dyn Broker>, reading: &Reading) -> Arc<Publisher> {
    let options =
        PublisherOptions { patience: PATIENCE, body_bytes_max: reading.body_bytes_max, ..PublisherOptions::default() };
    Arc::new(Publisher::new(broker, options))
}

/// The routes that publish.
pub(super) fn router(door: Option<&Arc<Door>>) -> OpenApiRouter<Gateway> {
    openapi::behind(Role::Publish, OpenApiRouter::default().routes(routes!(publish)), door)
}

/// The events of a batch, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Batch {
    events: Vec<Taken>,
}

/// What was taken: one event, or a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Published {
    One(Taken),
    Batch(Batch),
}

/// One event in structured or binary mode, or a batch, answered once the broker has confirmed.
///
/// An event without an id is given one, which every answer tells: a caller that wants to repeat a call safely sends its
/// own. In binary mode the attributes are headers that begin with `ce-`, and the body is the data.
#[utoipa::path(
    post,
    path = "/v1/events",
    operation_id = "publish",
    request_body(
        description = "CloudEvents 1.0",
        content(
            (CloudEvent = "application/cloudevents+json"),
            (Vec<CloudEvent> = "application/cloudevents-batch+json"),
            (CloudEvent = "application/json"),
            (String = "*/*")
        )
    ),
    responses(
        (status = 202, description = "Every event is confirmed by the broker", body = Published),
        (status = 413, description = "The event or the batch is too large", body = Details,
         content_type = "application/problem+json"),
        (status = 415, description = "It is no event: another content type", body = Details,
         content_type = "application/problem+json"),
        (status = 422, description = "It is no event, or not what its type declares (`misfits`). Nothing was published",
         body = Details, content_type = "application/problem+json"),
        (status = 503, description = "Not confirmed within 10 s; of a batch, `events` says which are. Send it again \
         with the same ids", body = Details, content_type = "application/problem+json"),
    )
)]
// A page in a browser can send some types to loopback unasked. None of those is taken here, unless there are `ce-`
// headers beside it, for which a browser asks first and gets no answer.
pub(super) async fn publish(
    State(intake): State<Intake>,
    State(publisher): State<Arc<Publisher>>,
    request: Request,
) -> Result<Response, Problem> {
    let request = intake.events_of(request).await?;
    let events = match &request {
        publish::Request::One(event) => std::slice::from_ref(event),
        publish::Request::Batch(events) => events,
    };
    intake.refuse_misfits(events)?;
    match request {
        publish::Request::One(event) => one(&publisher, &event).await,
        publish::Request::Batch(events) => batch(&publisher, &events).await,
    }
}

pub(super) async fn one(publisher: &Publisher, event: &Event) -> Result<Response, Problem> {
    match publisher.publish(event).await {
        Ok(()) => Ok((StatusCode::ACCEPTED, Json(Published::One(Taken::of(event)))).into_response()),
        Err(unpublished) => {
            let detail = format!("{unpublished} (id {})", event.id());
            Err(Problem::new(status(&unpublished), detail).with("event", json!(Taken::of(event))))
        }
    }
}

/// Valid as a whole before anything is sent, and 202 only if every event is confirmed. Whatever the answer, it names all
/// events in their order, ids that were assigned included, so that the batch can be sent again as it is.
async fn batch(publisher: &Publisher, events: &[Event]) -> Result<Response, Problem> {
    let sent = join_all(events.iter().map(|event| publisher.publish(event))).await;
    let failed: Vec<&Unpublished> = sent.iter().filter_map(|result| result.as_ref().err()).collect();
    let told = |(event, result): (&Event, &Result<(), Unpublished>)| Taken {
        confirmed: Some(result.is_ok()),
        ..Taken::of(event)
    };
    let told: Vec<Taken> = events.iter().zip(&sent).map(told).collect();
    let Some(worst) = failed.iter().max_by_key(|unpublished| unpublished.is_final()) else {
        return Ok((StatusCode::ACCEPTED, Json(Published::Batch(Batch { events: told }))).into_response());
    };
    let confirmed = events.len() - failed.len();
    let detail = format!(
        "{confirmed} of {} events are confirmed: {}. Send the batch again, each event with the id that it has here: what \
         is confirmed is not handled twice",
        events.len(),
        worst.error
    );
    Err(Problem::new(status(worst), detail).with("confirmed", Value::from(confirmed)).with("events", json!(told)))
}

fn status(unpublished: &Unpublished) -> StatusCode {
    if unpublished.is_final() { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use axum::body::to_bytes;
    use axum::http::header;

    use super::*;
    use crate::broker::PublishError;
    use crate::domain::asking::Answered;
    use crate::publish::Route;

    /// Confirms what is no `bad`, and is too small for a `large`.
    struct Picky;

    #[async_trait]
    impl Route for Picky {
        async fn send(&self, event: &Event) -> Result<(), PublishError> {
            match event.kind() {
                "bad" => Err(PublishError::Refused("nack".to_owned())),
                "large" => Err(PublishError::TooLarge("no".to_owned())),
                _ => Ok(()),
            }
        }

        async fn ask(&self, _: &Event, _: Duration) -> Result<Option<Answered>, PublishError> {
            Ok(None)
        }

        async fn close(&self) {}
    }

    async fn answer(kinds: &[&str]) -> (u16, Option<String>, Value) {
        let publisher =
            Publisher::over(Box::new(Picky), PublisherOptions { patience: PATIENCE, ..PublisherOptions::default() });
        let event = |kind: &&str| Event::builder(kind).id(kind).source("/s").build().unwrap();
        let response = batch(&publisher, &kinds.iter().map(event).collect::<Vec<_>>()).await;
        let response = response.unwrap_or_else(IntoResponse::into_response);
        let retry = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        (status, retry, serde_json::from_slice(&to_bytes(response.into_body(), 10_000).await.unwrap()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_tells_what_is_confirmed() {
        let told = |id: &str, confirmed: bool| json!({ "id": id, "source": "/s", "confirmed": confirmed });
        let (status, _, body) = answer(&["a", "b"]).await;
        assert_eq!((status, &body["events"]), (202, &json!([told("a", true), told("b", true)])));

        let (status, retry, body) = answer(&["a", "bad", "b"]).await;
        assert_eq!((status, retry.as_deref(), &body["confirmed"]), (503, Some("1"), &json!(2)));
        assert_eq!(body["events"], json!([told("a", true), told("bad", false), told("b", true)]));
        let detail = body["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("2 of 3 events are confirmed: the broker refused the message: nack. Send"),
            "{detail}"
        );

        let (status, retry, body) = answer(&["bad", "large"]).await;
        assert_eq!((status, retry, &body["confirmed"]), (413, None, &json!(0)));
        assert_eq!(answer(&[]).await.0, 202);
    }
}
