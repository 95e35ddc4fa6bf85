//! What becomes of connections: deadlines, faults on the way, and connections that are used again.

use super::*;

#[tokio::test]
async fn a_good_head_is_done_although_the_deadline_comes_during_its_body() {
    let server = dripping("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
    assert_eq!(executors().run(&server.hook(240), &invocation("{}")).await, Outcome::Done);
}

#[tokio::test]
async fn the_deadline_covers_all_that_comes_before_the_head_is_there() {
    let silent = Server::start(|mut stream| async move {
        request(&mut stream).await?;
        sleep(Duration::from_mins(1)).await;
        None
    });
    for server in [silent.await, dripping("HTTP/1.1 200 OK\r\nx-endless: ").await] {
        let start = Instant::now();
        let found = line(&executors().run(&server.hook(300), &invocation("{}")).await);
        assert_eq!(found, "later: timed out after 300ms");
        assert!((300..3_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn transport_errors_are_told_apart() {
    let closing = Server::start(|mut stream| async move { request(&mut stream).await.map(|_| ()) }).await;
    assert_eq!(closing.outcome().await, "later: reset: connection closed before message completed");
    let resetting = Server::start(|mut stream| async move {
        stream.set_zero_linger().ok()?;
        request(&mut stream).await.map(|_| ())
    });
    let found = resetting.await.outcome().await;
    assert!(found.starts_with("later: reset: Connection reset by peer"), "{found}");

    let run = async |url: &str| line(&executors().run(&target(url, 5_000), &invocation("{}")).await);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let found = run(&format!("http://127.0.0.1:{free}/secret")).await;
    assert!(found.starts_with("later: connect: Connection refused"), "{found}");
    let plain = Server::start(|mut stream| async move { stream.write_all(b"220 no TLS here\r\n").await.ok() }).await;
    let found = run(&format!("https://127.0.0.1:{}/secret", plain.port)).await;
    assert!(found.starts_with("later: tls: "), "{found}");
    let found = run(&format!("http://{}.invalid/secret", "x".repeat(64))).await; // too long to be asked for
    assert!(found.starts_with("later: dns: ") && !found.contains("secret"), "{found}");
}

#[tokio::test]
async fn connections_are_used_again_unless_too_much_is_on_them() {
    let executors = executors();
    for (bytes, connections) in [(0, 1), (100_000, 1), (3_000_000, 3)] {
        let server = Server::replying(reply("200 OK", "", &"x".repeat(bytes))).await;
        for _ in 0..3 {
            assert_eq!(executors.run(&server.hook(5_000), &invocation("{}")).await, Outcome::Done);
        }
        assert_eq!(server.connections(), connections, "{bytes}");
    }
}

/// Answers the first request of a connection, and does this with the second.
async fn once<F>(then: impl Fn(TcpStream) -> F + Copy + Send + 'static) -> Server
where
    F: Future<Output = Option<()>> + Send + 'static,
{
    Server::start(move |mut stream| async move {
        request(&mut stream).await?;
        stream.write_all(reply("204 No Content", "", "").as_bytes()).await.ok()?;
        request(&mut stream).await?;
        then(stream).await
    })
    .await
}

#[tokio::test]
async fn a_used_connection_that_ends_is_no_failure() {
    let closes = once(|_| async { Some(()) });
    let resets = once(|stream| async move { stream.set_zero_linger().ok() });
    let too_late = once(|mut stream| async move {
        stream.write_all(reply("408 Request Timeout", "connection: close\r\n", "").as_bytes()).await.ok()
    });
    for server in [closes.await, resets.await, too_late.await] {
        let (executors, hook) = (executors(), server.hook(5_000));
        for _ in 0..6 {
            assert_eq!(line(&executors.run(&hook, &invocation("{}")).await), "done");
        }
        assert_eq!(server.connections(), 6, "every second request went out again");
    }
    let breaks_off = once(|mut stream| async move { stream.write_all(b"HTTP/1.1 2").await.ok() });
    let refuses =
        once(|mut stream| async move { stream.write_all(reply("408 Request Timeout", "", "").as_bytes()).await.ok() });
    for (server, expected) in [
        (breaks_off.await, "later: reset: connection closed before message completed"),
        (refuses.await, "later [408]: 408 Request Timeout"),
    ] {
        let (executors, hook) = (executors(), server.hook(5_000));
        assert_eq!(line(&executors.run(&hook, &invocation("{}")).await), "done");
        assert_eq!(line(&executors.run(&hook, &invocation("{}")).await), expected);
    }
}

/// A new connection that ends is a failure, also where the one before it had ended too.
#[tokio::test]
async fn a_request_goes_out_again_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    let server = Server::start(move |mut stream| {
        let asked = Arc::clone(&asked);
        async move {
            request(&mut stream).await?;
            if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                stream.write_all(reply("204 No Content", "", "").as_bytes()).await.ok()?;
                request(&mut stream).await?;
                asked.fetch_add(1, Ordering::SeqCst);
            }
            Some(())
        }
    })
    .await;
    let (executors, hook) = (executors(), server.hook(5_000));
    assert_eq!(line(&executors.run(&hook, &invocation("{}")).await), "done");
    let found = line(&executors.run(&hook, &invocation("{}")).await);
    assert_eq!(found, "later: reset: connection closed before message completed");
    assert_eq!((count.load(Ordering::SeqCst), server.connections()), (3, 2));
}

/// The receiver has not read the body, so that closing resets the connection while it is being sent.
#[tokio::test]
async fn an_answer_to_a_head_counts() {
    let answer = reply("200 OK", "", r#"{"permission": "deny"}"#);
    let server = Server::start(move |mut stream| {
        let answer = answer.clone();
        async move {
            let mut head = [0; 100];
            stream.read_exact(&mut head).await.ok()?;
            stream.write_all(answer.as_bytes()).await.ok()
        }
    })
    .await;
    let (executors, hook) = (executors(), server.hook(5_000));
    for bytes in [10, 200_000, 1_000_000, 20_000_000] {
        let invocation = invocation(&format!("\"{}\"", "x".repeat(bytes)));
        for _ in 0..20 {
            assert_eq!(line(&executors.run(&hook, &invocation).await), "done", "{bytes}");
        }
        let asked = executors.ask(&hook, &invocation, None).await;
        assert!(asked.is_ok_and(|answer| answer.verdict() == Verdict::Deny), "{bytes}");
    }
}

#[tokio::test]
async fn a_dropped_run_closes_its_connection() {
    let (sender, mut closed) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |mut stream| {
        let sender = sender.clone();
        async move {
            request(&mut stream).await?;
            sender.send("asked").ok()?;
            let rest = request(&mut stream).await;
            sender.send(if rest.is_none() { "closed" } else { "asked again" }).ok()
        }
    })
    .await;
    let (executors, hook, invocation) = (executors(), server.hook(60_000), invocation("{}"));
    tokio::select! {
        outcome = executors.run(&hook, &invocation) => panic!("{outcome:?}"),
        said = closed.recv() => assert_eq!(said, Some("asked")),
    }
    assert_eq!(closed.recv().await, Some("closed"));
}

#[tokio::test]
async fn this_machine_is_refused_unless_allowed() {
    let server = Server::replying(reply("200 OK", "", "")).await;
    let port = server.port;
    let strict =
        Executors::new(&config::Egress::default(), &config::Commands::default(), Callbacks::default()).unwrap();
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]"] {
        let hook = target(&format!("http://{host}:{port}/pathsecret"), 5_000);
        let found = line(&strict.run(&hook, &invocation("{}")).await);
        assert!(found.starts_with("never TargetBlocked: the target "), "{host}: {found}");
        assert!(found.contains(" is a loopback address (") && found.contains("`egress.allow`"), "{host}: {found}");
    }
    assert_eq!(server.connections(), 0);
    for host in ["localhost", "2130706433"] {
        let hook = target(&format!("http://{host}:{port}/"), 5_000);
        assert_eq!(executors().run(&hook, &invocation("{}")).await, Outcome::Done, "{host}");
    }
}
