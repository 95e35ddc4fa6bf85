use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

/// A site of so many connections: where it is, what ends it, and its end.
async fn site(bound: usize) -> (std::net::SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let routes = Router::new()
        .route("/", get(async || "hello"))
        .route("/slow", get(async || sleep(Duration::from_millis(300)).await))
        .route("/large", get(async || vec![0; 64 * 1024 * 1024]))
        .route("/take", post(async |body: String| format!("{} bytes", body.len())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel();
    let site = Site { listener, certificate: None, routes, bound };
    let served = tokio::spawn(site.serve(async { drop(ended.await) }));
    (address, end, served)
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// What came until `end` is in it, or until the other side ended.
async fn answer(stream: &mut TcpStream, end: &str) -> String {
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&all).contains(end) {
        match stream.read(&mut some).await {
            Ok(0) | Err(_) => break,
            Ok(read) => all.extend_from_slice(&some[..read]),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[test]
fn d3_a_part_of_the_files_is_for_connections() {
    let check = |kind, files, expected| assert_eq!(bound_of(kind, files), expected, "{kind:?} {files}");
    check(Kind::Worker, 256, 64);
    check(Kind::Up, 1024, 256);
    check(Kind::Server, 1024, 512);
    check(Kind::Worker, 16, 8);
    check(Kind::Server, usize::MAX, 1024);
}

/// Those who say nothing, say half a head, or are idle after an answer, make room for who asks.
#[tokio::test]
async fn d3_silent_clients_keep_nobody_out() {
    let (address, _end, _served) = site(4).await;
    let mut silent = Vec::new();
    for number in 0..12 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        match number % 3 {
            0 => {}
            1 => send(&mut stream, "GET / HTTP/1.1\r\nho").await,
            _ => {
                send(&mut stream, GET).await;
                assert!(answer(&mut stream, "hello").await.starts_with("HTTP/1.1 200"));
            }
        }
        silent.push(stream);
    }
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send(&mut stream, GET).await;
        assert!(answer(&mut stream, "hello").await.contains("hello"));
    }
    assert_eq!(answer(&mut silent[0], "never").await, "", "the first of them is left");
}

/// Who is being answered keeps its connection; another one waits until there is room.
#[tokio::test]
async fn d3_who_is_answered_is_not_cut_off() {
    let (address, _end, _served) = site(2).await;
    let mut answered = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send(&mut stream, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        answered.push(stream);
    }
    sleep(Duration::from_millis(50)).await;
    let mut later = TcpStream::connect(address).await.unwrap();
    send(&mut later, GET).await;
    assert!(answer(&mut later, "hello").await.contains("hello"));
    for stream in &mut answered {
        assert!(answer(stream, "content-length: 0").await.starts_with("HTTP/1.1 200"));
    }
}

/// The clocks of the connections: of a head, of idleness, of a body, of an answer that nobody takes.
#[tokio::test(start_paused = true)]
async fn d3_who_says_nothing_is_left() {
    let (address, _end, _served) = site(8).await;
    let check = async |sent: &str, end: &str, expected: Duration| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send(&mut stream, sent).await;
        answer(&mut stream, end).await;
        let since = Instant::now();
        answer(&mut stream, "never").await;
        let waited = since.elapsed();
        assert!(waited.abs_diff(expected) < Duration::from_secs(1), "{sent:?}: {waited:?}");
    };
    check("GET / HTTP/1.1\r\n", "", HEAD_TIMEOUT).await;
    check(GET, "hello", IDLE_TIMEOUT).await;
    check(&format!("{GET}GET / HT"), "hello", IDLE_TIMEOUT).await;
    check("POST /take HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf", "", BODY_TIMEOUT).await;
}

#[tokio::test]
async fn d3_the_end_lets_answers_finish() {
    let (address, end, served) = site(4).await;
    let (mut asking, mut idle) =
        (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
    send(&mut idle, GET).await;
    assert!(answer(&mut idle, "hello").await.contains("hello"));
    send(&mut asking, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    sleep(Duration::from_millis(50)).await;
    end.send(()).unwrap();
    assert!(answer(&mut asking, "content-length: 0").await.starts_with("HTTP/1.1 200"));
    assert_eq!(answer(&mut idle, "never").await, "");
    served.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
