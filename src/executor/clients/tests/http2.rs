//! Targets that speak HTTP/2 (RFC 9113), and misuse it.

use std::sync::atomic::AtomicBool;

use axum::http::{Request, Response};
use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use tokio::time::sleep;

use super::super::sending::PING_EVERY;
use super::*;
use crate::domain::invocation::Invocation;
use crate::executor::Executors;

type Http2 = Connection<TlsStream<TcpStream>, Bytes>;
type Exchange = (Request<RecvStream>, SendResponse<Bytes>);

/// A server that offers HTTP/2 and nothing else.
struct Target {
    server: Server,
    hook: Hook,
    executors: Executors,
    invocation: Invocation,
}

impl Target {
    async fn serving<F>(serve: impl Fn(Http2) -> F + Copy + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let authority = authority();
        let mut config = config(&issued(&authority, "127.0.0.1", 2100), None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let server =
            Server::serving(
                config,
                move |stream| async move { serve(h2::server::handshake(stream).await.ok()?).await },
            )
            .await;
        let hook = server.hook(own(Some(&authority), None));
        Self { server, hook, executors: executors(), invocation: invocation("{}") }
    }

    async fn run(&self, timeout_ms: u64) -> String {
        let hook = Hook { timeout: Duration::from_millis(timeout_ms), ..self.hook.clone() };
        line(&self.executors.run(&hook, &self.invocation).await)
    }

    fn connections(&self) -> usize {
        self.server.connections.load(Ordering::SeqCst)
    }
}

fn answer((_, mut respond): Exchange) -> Option<()> {
    respond.send_response(Response::builder().status(204).body(()).unwrap(), true).ok().map(|_| ())
}

#[tokio::test]
async fn runs_share_a_connection() {
    let target = Target::serving(|mut http2| async move {
        answer(http2.accept().await?.ok()?)?;
        let mut held = Vec::new();
        while let Some(Ok(exchange)) = http2.accept().await {
            held.push(exchange);
            if held.len() == 20 {
                held.drain(..).try_for_each(answer)?; // all of them are on their way at the same time
            }
        }
        Some(())
    })
    .await;
    assert_eq!(target.run(10_000).await, "done"); // now it is known that one connection takes many
    let runs = futures_util::future::join_all((0..20).map(|_| target.run(10_000))).await;
    assert!(runs.iter().all(|run| run == "done"), "{runs:?}");
    assert_eq!(target.connections(), 1);
}

#[tokio::test]
async fn who_says_goodbye_is_called_again() {
    let target = Target::serving(|mut http2| async move {
        answer(http2.accept().await?.ok()?)?;
        http2.graceful_shutdown();
        while http2.accept().await.is_some() {}
        Some(())
    })
    .await;
    for _ in 0..5 {
        assert_eq!(target.run(10_000).await, "done");
    }
    assert_eq!(target.connections(), 5);
}

#[tokio::test]
async fn what_ends_in_the_middle_is_tried_again() {
    let goaway = Target::serving(|mut http2| async move {
        let _asked = http2.accept().await?.ok()?;
        http2.abrupt_shutdown(Reason::INTERNAL_ERROR);
        while http2.accept().await.is_some() {}
        Some(())
    });
    let reset = Target::serving(|mut http2| async move {
        while let Some(Ok((_, mut respond))) = http2.accept().await {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
        Some(())
    });
    let closed = Target::serving(|mut http2| async move { http2.accept().await.map(|_| ()) });
    for target in [goaway.await, reset.await, closed.await] {
        for _ in 0..3 {
            let found = target.run(5_000).await;
            assert!(found.starts_with("later: reset: "), "{found}");
        }
    }
}

/// What ends a connection that has carried an answer says nothing of the request that was on its way then.
#[tokio::test]
async fn a_used_connection_that_ends_is_no_failure() {
    let closed = Target::serving(|mut http2| async move {
        answer(http2.accept().await?.ok()?)?;
        http2.accept().await.map(|_| ()) // the second request, and the end
    });
    let goaway = Target::serving(|mut http2| async move {
        answer(http2.accept().await?.ok()?)?;
        let _asked = http2.accept().await?.ok()?;
        http2.abrupt_shutdown(Reason::INTERNAL_ERROR);
        while http2.accept().await.is_some() {}
        Some(())
    });
    let refused = Target::serving(|mut http2| async move {
        answer(http2.accept().await?.ok()?)?;
        while let Some(Ok((_, mut respond))) = http2.accept().await {
            respond.send_reset(Reason::REFUSED_STREAM);
        }
        Some(())
    });
    for (name, target) in [("closed", closed.await), ("goaway", goaway.await), ("refused", refused.await)] {
        for number in 0..6 {
            assert_eq!(target.run(5_000).await, "done", "{name} {number}");
        }
    }
    let never = Target::serving(|mut http2| async move {
        while let Some(Ok((_, mut respond))) = http2.accept().await {
            respond.send_reset(Reason::REFUSED_STREAM);
        }
        Some(())
    })
    .await;
    let found = never.run(5_000).await;
    assert!(found.starts_with("later: reset: "), "{found}");
    assert_eq!(never.connections(), 3, "it was sent again twice");
}

#[tokio::test]
async fn an_answer_to_a_head_counts() {
    let mut target = Target::serving(|mut http2| async move {
        let (asked, mut respond) = http2.accept().await?.ok()?;
        drop(respond.send_response(Response::builder().status(204).body(()).unwrap(), true).ok()?);
        drop((asked, respond)); // which says by RST_STREAM that the rest is not wanted (RFC 9113, 8.1)
        http2.graceful_shutdown();
        while http2.accept().await.is_some() {}
        Some(())
    })
    .await;
    target.invocation = invocation(&format!("\"{}\"", "x".repeat(1_000_000)));
    for number in 0..5 {
        assert_eq!(target.run(5_000).await, "done", "{number}");
    }
}

#[tokio::test]
async fn what_never_ends_costs_its_deadline() {
    let silent = Target::serving(|mut http2| async move {
        let mut held = Vec::new();
        while let Some(Ok(exchange)) = http2.accept().await {
            held.push(exchange);
        }
        Some(())
    });
    let start = Instant::now();
    assert_eq!(silent.await.run(300).await, "later: timed out after 300ms");
    assert!(start.elapsed() < Duration::from_secs(3));
    let endless = Target::serving(|mut http2| async move {
        while let Some(Ok((_, mut respond))) = http2.accept().await {
            let mut body = respond.send_response(Response::new(()), false).ok()?;
            tokio::spawn(async move {
                while body.send_data(Bytes::from_static(&[b'x'; 8_192]), false).is_ok() {
                    sleep(Duration::from_millis(1)).await;
                }
            });
        }
        Some(())
    });
    let (endless, start) = (endless.await, Instant::now());
    for _ in 0..3 {
        assert_eq!(endless.run(5_000).await, "done");
    }
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(endless.connections(), 1, "a stream that is too long costs the others nothing");
}

#[tokio::test]
async fn a_connection_that_has_gone_dead_is_left() {
    static IS_DEAD: AtomicBool = AtomicBool::new(false);
    let target = Target::serving(|mut http2| async move {
        while let Some(Ok(exchange)) = http2.accept().await {
            if IS_DEAD.load(Ordering::SeqCst) {
                std::future::pending::<()>().await; // open, and nobody reads from it
            }
            answer(exchange)?;
        }
        Some(())
    })
    .await;
    assert_eq!(target.run(5_000).await, "done");
    IS_DEAD.store(true, Ordering::SeqCst);
    let start = Instant::now();
    while target.connections() < 2 {
        let found = target.run(300).await;
        assert!(found.starts_with("later: time"), "{found}"); // by its deadline, or with the connection
        assert!(start.elapsed() < Duration::from_secs(30), "still on the first connection");
    }
    assert!(start.elapsed() > PING_EVERY);
}
