//! The bodies of HTTP replies, read up to a limit.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::domain::contract::Body;

/// A reply is read up to here; a connection with more on it is closed.
pub(super) const REPLY_BYTES_MAX: usize = 128 * 1024;

/// All of a reply's body, up to the limit.
pub(super) async fn whole(mut rest: Incoming) -> hyper::Result<Body> {
    let mut body = Vec::new();
    while let Some(chunk) = chunk(&mut rest).await? {
        if body.len() + chunk.len() > REPLY_BYTES_MAX {
            return Ok(Body::TooLarge { beginning: body, bytes_max: REPLY_BYTES_MAX });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(body))
}

/// The next bytes of a reply's body. Trailers are passed over.
pub(super) async fn chunk(rest: &mut Incoming) -> hyper::Result<Option<Bytes>> {
    while let Some(frame) = rest.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
