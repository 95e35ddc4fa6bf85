//! Receivers that do with their connections what real ones do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::servers::slots;

/// When a receiver closes a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Habit {
    /// When it was idle for so long.
    Idle(Duration),
    /// When it was idle for so long, of which it says the whole seconds.
    IdleAndSaysSo(Duration),
    /// When it has read the second request, which it does not answer.
    SecondRequest,
    /// When it has answered a request's head; it does not read the body.
    Head,
    /// As `Head`, of every request but the first of a connection, after which it says nothing.
    HeadOfSecond,
}

/// One request that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) path: String,
    pub(crate) key: String,
    pub(crate) attempt: String,
}

/// A receiver on a port of this machine. Its answer refuses, if it is asked as a gate.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    answered: Arc<Mutex<Vec<Answered>>>,
}

const REFUSAL: &str = r#"{"permission": "deny", "stop_reason": "closed today"}"#;

impl Receiver {
    pub(crate) async fn start(habit: Habit) -> Self {
        slots::take();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answered = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&answered);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, habit, Arc::clone(&kept)));
            }
        });
        Self { port, answered }
    }

    /// The requests that it has answered, as they came.
    pub(crate) fn answered(&self) -> Vec<Answered> {
        self.answered.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, habit: Habit, kept: Arc<Mutex<Vec<Answered>>>) -> Option<()> {
    let idle = match habit {
        Habit::Idle(time) | Habit::IdleAndSaysSo(time) => time,
        _ => Duration::from_secs(60),
    };
    let mut read = Vec::new();
    for number in 0.. {
        let patience = if number == 0 { Duration::from_secs(60) } else { idle }; // a new connection is not idle
        let head = timeout(patience, head(&mut stream, &mut read)).await.ok()??;
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value).to_owned()
        };
        if habit == Habit::SecondRequest && number == 1 {
            return None;
        }
        let is_short = habit == Habit::Head || habit == Habit::HeadOfSecond && number > 0;
        if !is_short {
            body(&mut stream, &mut read, header("content-length").parse().unwrap_or(0)).await?;
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        kept.lock().unwrap().push(Answered {
            path,
            key: header("idempotency-key"),
            attempt: header("hookfleet-attempt"),
        });
        let says = if let Habit::IdleAndSaysSo(time) = habit {
            format!("keep-alive: timeout={}\r\n", time.as_secs())
        } else {
            String::new()
        };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{says}\r\n{REFUSAL}", REFUSAL.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
        if is_short {
            return None; // closed with bytes unread, which resets it
        }
    }
    Some(())
}

/// The head of the next request; what came behind it stays in `read`.
async fn head(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return String::from_utf8(std::mem::replace(read, rest)).ok();
        }
        more(stream, read).await?;
    }
}

async fn body(stream: &mut TcpStream, read: &mut Vec<u8>, length: usize) -> Option<()> {
    while read.len() < length {
        more(stream, read).await?;
    }
    read.drain(..length);
    Some(())
}

async fn more(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<()> {
    let mut piece = vec![0; 16 * 1024];
    let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
    read.extend_from_slice(&piece[..count]);
    Some(())
}
