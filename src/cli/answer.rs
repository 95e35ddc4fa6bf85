//! What an HTTP route answers, whether it was called over loopback or within this process.

use anyhow::{Context as _, bail};
use axum::body::{Body, to_bytes};
use axum::http::{Response, StatusCode};
use futures_util::StreamExt as _;
use serde_json::Value;

/// The route has answered that it will not do it.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    detail: String,
}

/// Whether a route has answered that it knows of no such thing.
pub(super) fn is_unknown(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
}

/// An answer whose body is still to be read.
pub(super) struct Answer(Response<Body>);

impl Answer {
    pub(super) const fn new(response: Response<Body>) -> Self {
        Self(response)
    }

    /// The whole body as JSON.
    pub(super) async fn json(self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.text().await?).context("the answer is no JSON")
    }

    /// The whole body as it is.
    pub(super) async fn text(self) -> anyhow::Result<String> {
        whole(self.successful().await?.into_body()).await
    }

    /// The lines of the body as they come, whole ones at a time.
    pub(super) async fn lines(self, sink: &mut (dyn FnMut(&str) + Send)) -> anyhow::Result<()> {
        let mut chunks = self.successful().await?.into_body().into_data_stream();
        let mut rest = Vec::new();
        while let Some(chunk) = chunks.next().await {
            rest.extend_from_slice(&chunk?);
            if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
                let lines: Vec<u8> = rest.drain(..=end).collect();
                String::from_utf8_lossy(&lines).lines().for_each(&mut *sink);
            }
        }
        Ok(())
    }

    /// An answer that is no success becomes its problem's sentence.
    async fn successful(self) -> anyhow::Result<Response<Body>> {
        let status = self.0.status();
        if status.is_success() {
            return Ok(self.0);
        }
        let answer = whole(self.0.into_body()).await?;
        let answer: Value = serde_json::from_str(&answer).context("the answer is no JSON")?;
        match answer.get("detail").and_then(Value::as_str) {
            Some(detail) => bail!(Refused { status, detail: detail.to_owned() }),
            None => bail!("the answer is {status}, without a reason"),
        }
    }
}

async fn whole(body: Body) -> anyhow::Result<String> {
    let bytes = to_bytes(body, usize::MAX).await.context("the answer broke off")?;
    String::from_utf8(bytes.into()).context("the answer is no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer::new(Response::builder().status(status).body(Body::from(body)).unwrap())
    }

    #[tokio::test]
    async fn what_is_no_success_is_its_sentence() {
        assert_eq!(answer(202, r#"{"a":1}"#).json().await.unwrap()["a"], 1);
        let refused = answer(404, r#"{"detail":"no letter"}"#).json().await.unwrap_err();
        assert_eq!(refused.to_string(), "no letter");
        assert_eq!(refused.downcast_ref::<Refused>().unwrap().status, StatusCode::NOT_FOUND);
        assert_eq!(answer(500, "").text().await.unwrap_err().to_string(), "the answer is no JSON");
        assert!(answer(500, "{}").text().await.unwrap_err().to_string().contains("500"));
    }

    #[tokio::test]
    async fn lines_come_whole() {
        let parts = ["one\ntw", "o\n", "thr", "ee\nrest"].map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(futures_util::stream::iter(parts));
        let mut lines = Vec::new();
        Answer::new(Response::new(body)).lines(&mut |line| lines.push(line.to_owned())).await.unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
    }
}
