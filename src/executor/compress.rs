//! Bodies made smaller (RFC 1952).

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::task::spawn_blocking;

/// What fits into a packet is sent as it is.
const GZIP_BYTES_MIN: usize = 1024;
/// From here on it takes so long (a millisecond or more) that other runs should not wait for it.
const ASIDE_BYTES_MIN: usize = 64 * 1024;

/// The body compressed; `None` where that makes it no smaller.
pub(super) async fn gzipped(body: &Bytes) -> Option<Bytes> {
    if body.len() < GZIP_BYTES_MIN {
        return None;
    }
    let smaller = if body.len() < ASIDE_BYTES_MIN {
        gzip(body)
    } else {
        let body = body.clone();
        spawn_blocking(move || gzip(&body)).await.ok()?
    };
    smaller.ok().filter(|smaller| smaller.len() < body.len())
}

/// Fast rather than thorough: it is done for every attempt.
fn gzip(body: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[tokio::test]
    async fn only_what_gets_smaller() {
        let noise: Vec<u8> = (0..5_000).map(|_| fastrand::u8(..)).collect();
        for (body, is_smaller) in [
            (Vec::new(), false),
            (vec![b'x'; GZIP_BYTES_MIN - 1], false),
            (vec![b'x'; GZIP_BYTES_MIN], true),
            (noise, false),
            (vec![b'x'; ASIDE_BYTES_MIN], true),
            (vec![b'x'; 3_000_000], true),
        ] {
            let body = Bytes::from(body);
            let smaller = gzipped(&body).await;
            assert_eq!(smaller.is_some(), is_smaller, "{}", body.len());
            let Some(smaller) = smaller else { continue };
            let mut found = Vec::new();
            GzDecoder::new(&*smaller).read_to_end(&mut found).unwrap();
            assert!(smaller.len() < body.len() && found == body, "{}", body.len());
        }
    }
}
