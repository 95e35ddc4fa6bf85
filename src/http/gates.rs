//! Gates over HTTP: the answer is the decision.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::extract::{FromRef, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Door;
use super::extract::Query;
use super::intake::{CloudEvent, Intake};
use super::openapi;
use super::problem::{Details, Problem};
use super::process::{CellView, Process};
use super::repeats::Repeats;
use crate::broker::{Broker, PublishError};
use crate::catalog::consent::Consent;
use crate::domain::access::Role;
use crate::domain::asking::{self, Answered, TIME_MAX};
use crate::domain::decision::{CONFLICT, Decision};
use crate::domain::dialect::Dialect;
use crate::publish::{self, Event};
use crate::worker::gates::Undecided;
use crate::yaml::scalar::duration;

const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(1)..=TIME_MAX;

/// What the handlers work with.
#[derive(Clone)]
pub struct Gates {
    pub intake: Intake,
    /// How long a request may take that does not say so.
    pub deadline: Duration,
    pub decider: Decider,
    /// Requests of other systems that may come again.
    pub repeats: Arc<Repeats>,
}

/// The place where decisions are made.
#[derive(Clone)]
pub enum Decider {
    /// A cell of this process; without one this process asks no gates.
    Here { process: Arc<Process>, cell: Option<CellView> },
    /// Any worker of the fleet, which is asked over the broker.
    Fleet { broker: Arc<dyn Broker>, paused: watch::Receiver<Option<String>> },
}

impl FromRef<Gates> for Intake {
    fn from_ref(gates: &Gates) -> Self {
        gates.intake.clone()
    }
}

/// The route that asks.
pub(super) fn router(door: Option<&Arc<Door>>) -> OpenApiRouter<Gates> {
    openapi::behind(Role::Decide, OpenApiRouter::default().routes(routes!(decide)), door)
}

/// How long it may take.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// By when the decision is needed, from now on, such as `5s`; the setting `gates.deadline` if it is left out
    #[param(pattern = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$")]
    deadline: Option<String>,
}

/// Asks the gates about one event, in structured or binary mode, and waits for what they decide.
///
/// The event is published with the decision, for those who observe it. Ask again with the same source and id, and the same
/// decision is answered.
#[utoipa::path(
    post,
    path = "/v1/gates",
    operation_id = "decide",
    params(Asked),
    request_body(
        description = "CloudEvents 1.0",
        content((CloudEvent = "application/cloudevents+json"), (CloudEvent = "application/json"), (String = "*/*"))
    ),
    responses(
        (status = 200, description = "The decision: `verdict` says whether it may be done", body = Decision),
        (status = 400, description = "The deadline is none", body = Details, content_type = "application/problem+json"),
        (status = 409, description = "Another type or other data was decided under this source and id before, which stays",
         body = Details, content_type = "application/problem+json"),
        (status = 413, description = "The event is too large", body = Details,
         content_type = "application/problem+json"),
        (status = 415, description = "It is no event: another content type", body = Details,
         content_type = "application/problem+json"),
        (status = 422, description = "It is no event, or not what its type declares, or more than one", body = Details,
         content_type = "application/problem+json"),
        (status = 503, description = "Gates cannot be asked now: the process asks none or ends, the fleet is \
         paused, or the broker is away", body = Details,
         content_type = "application/problem+json"),
        (status = 504, description = "There is no decision by the deadline. Ask again about the same event", body = Details,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn decide(
    State(gates): State<Gates>,
    State(intake): State<Intake>,
    Query(asked): Query<Asked>,
    request: Request,
) -> Result<Response, Problem> {
    let deadline = gates.begin(&asked)?;
    let until = Instant::now() + deadline;
    let publish::Request::One(event) = intake.events_of(request).await? else {
        let detail = "expected one event, found a batch: each is decided on its own";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    };
    let decision = gates.decision(&event, until, deadline).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], decision).into_response())
}

impl Gates {
    /// How long a request may take, if it can be taken at all.
    pub(super) fn begin(&self, asked: &Asked) -> Result<Duration, Problem> {
        if let Decider::Here { cell: None, .. } = self.decider {
            return Err(unavailable("this process asks no gates: gates.concurrency is 0".to_owned()));
        }
        match &asked.deadline {
            None => Ok(self.deadline),
            Some(text) => duration(DEADLINES)(text).map_err(|mismatch| {
                let expected = mismatch.expected;
                Problem::new(StatusCode::BAD_REQUEST, format!("deadline: expected {expected}, found {text:?}"))
            }),
        }
    }

    /// What is decided about an event, as JSON.
    pub(super) async fn decision(&self, event: &Event, until: Instant, deadline: Duration) -> Result<String, Problem> {
        self.intake.refuse_misfits(std::slice::from_ref(event))?;
        let decided = match &self.decider {
            Decider::Here { process, cell: Some(cell) } => here(process, cell.clone(), event, until).await?,
            Decider::Here { cell: None, .. } => None,
            Decider::Fleet { broker, paused } => by_workers(broker.as_ref(), paused, event, until).await?,
        };
        decided.ok_or_else(|| {
            Problem::new(StatusCode::GATEWAY_TIMEOUT, format!("not decided within {deadline:?}: ask again"))
        })
    }
}

#[async_trait]
impl Consent for Gates {
    async fn decide(&self, invocation: Bytes) -> Result<Decision, String> {
        let event = publish::foreign(Dialect::Kheish, &[], &invocation, None, &self.intake.reading);
        let event = event.map_err(|rejected| rejected.sentence().to_owned())?;
        let decided = async {
            let deadline = self.begin(&Asked { deadline: None })?;
            self.decision(&event, Instant::now() + deadline, deadline).await
        };
        let decided: Result<String, Problem> = decided.await;
        let decided = decided.map_err(|problem| problem.into_parts().1)?;
        serde_json::from_str(&decided).map_err(|error| format!("the decision cannot be read: {error}"))
    }
}

/// What a cell of this process decides, as JSON; `None`: nobody has decided in time.
async fn here(process: &Process, cell: CellView, event: &Event, until: Instant) -> Result<Option<String>, Problem> {
    let CellView { worker, runtime, .. } = cell;
    if worker.tasks.is_closed() {
        return Err(unavailable("this process ends".to_owned()));
    }
    if let Some(reason) = process.undecided() {
        return Err(unavailable(format!("this process takes no work now: {reason}")));
    }
    let event = Arc::new(event.decoded().clone());
    // A task of its own: what is begun is brought to its end, whether or not somebody still waits.
    let tasks = worker.tasks.clone();
    let deciding = async move {
        let decided = worker.decide(&event, until).await;
        match &decided {
            Ok(ruling) => worker.conclude(&event, ruling).await,
            Err(Undecided::Late { is_ours }) => worker.undecided(&event, *is_ours).await,
            Err(Undecided::Interrupted | Undecided::Conflict) => {}
        }
        decided
    };
    match timeout_at(until, tasks.spawn_on(deciding, &runtime)).await {
        Ok(Ok(Ok(ruling))) => Ok(Some(ruling.decision)),
        Err(_) | Ok(Ok(Err(Undecided::Late { .. }))) => Ok(None),
        Ok(Ok(Err(Undecided::Conflict))) => Err(conflict()),
        Ok(Ok(Err(Undecided::Interrupted)) | Err(_)) => Err(unavailable("this process ends".to_owned())),
    }
}

/// What a worker of the fleet decides, as JSON; `None`: nobody has decided in time.
async fn by_workers(
    broker: &dyn Broker,
    paused: &watch::Receiver<Option<String>>,
    event: &Event,
    until: Instant,
) -> Result<Option<String>, Problem> {
    if let Some(reason) = paused.borrow().clone() {
        return Err(unavailable(format!("the fleet takes no work now: {reason}")));
    }
    let left = until.saturating_duration_since(Instant::now());
    match broker.ask(&event.outgoing().message, left).await {
        Ok(answer) => match answer.as_ref().map(asking::read) {
            Some(Answered::Decision(decision)) if is_conflict(&decision) => Err(conflict()),
            Some(Answered::Decision(decision)) => Ok(Some(decision)),
            Some(Answered::Refused(detail)) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)),
            None => Ok(None),
        },
        Err(error @ PublishError::TooLarge(_)) => Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

/// Whether a worker refused it for what was decided under its identity before.
fn is_conflict(decision: &str) -> bool {
    serde_json::from_str::<Decision>(decision).is_ok_and(|decision| decision.conflict)
}

fn conflict() -> Problem {
    Problem::new(StatusCode::CONFLICT, CONFLICT)
}

fn unavailable(reason: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason)
}
