//! Where commands send events, and requests to gates.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, StatusCode};

use super::answer::Refused;
use super::connect;
use super::remote::Remote;
use crate::broker::PublishError;
use crate::config::{Backend, Settings};
use crate::domain::asking::Answered;
use crate::domain::decision::Decision;
use crate::embedded;
use crate::publish::{Event, Publisher, PublisherOptions, Route};

/// Where events go, and requests.
pub(super) struct Sink {
    pub(super) publisher: Publisher,
    file: Option<embedded::Store>,
}

impl Sink {
    pub(super) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let options =
            PublisherOptions { body_bytes_max: settings.events.body_bytes_max, ..PublisherOptions::default() };
        if let Backend::Embedded { path } = &settings.backend
            && let Some(owner) = embedded::owner(path)
        {
            let publisher = Publisher::over(Box::new(Remote::new(owner, &settings.http)?), options);
            return Ok(Self { publisher, file: None });
        }
        let backends = connect::open(settings).await?;
        Ok(Self { publisher: Publisher::new(backends.broker, options), file: backends.file })
    }

    pub(super) async fn close(self) {
        self.publisher.close().await;
        if let Some(file) = self.file {
            file.close().await;
        }
    }
}

/// Through the gateway of the file's owner.
#[async_trait]
impl Route for Remote {
    async fn send(&self, event: &Event) -> Result<(), PublishError> {
        let sent =
            async { Remote::send(self, Method::POST, "/v1/events", Some(event.json().to_vec())).await?.text().await };
        sent.await.map(drop).map_err(|error| match error.downcast_ref::<Refused>() {
            Some(refused) if refused.status == StatusCode::UNPROCESSABLE_ENTITY => {
                PublishError::Invalid(refused.to_string())
            }
            _ => PublishError::Away(format!("{error:#}")),
        })
    }

    async fn ask(&self, event: &Event, within: Duration) -> Result<Option<Answered>, PublishError> {
        let path = format!("/v1/gates?deadline={}ms", within.as_millis().max(1));
        let asked = async {
            let answer = self.patient(within)?.send(Method::POST, &path, Some(event.json().to_vec())).await?;
            answer.text().await
        };
        match asked.await {
            Ok(decision) => Ok(Some(Answered::Decision(decision))),
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(Refused { status: StatusCode::GATEWAY_TIMEOUT, .. }) => Ok(None),
                Some(Refused { status: StatusCode::CONFLICT, .. }) => {
                    Ok(Some(Answered::Decision(Decision::conflict().to_json()))) // as workers say it over AMQP
                }
                Some(refused) if refused.status.is_client_error() => Ok(Some(Answered::Refused(refused.to_string()))),
                _ => Err(PublishError::Away(format!("{error:#}"))),
            },
        }
    }

    async fn close(&self) {}
}
