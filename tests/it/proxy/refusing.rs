//! A broker that cannot hand out some of its messages: a proxy that reads what the broker sends, and ends the connection with
//! INTERNAL_ERROR (541) in place of a marked message, as RabbitMQ does where it cannot convert one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Content of a message, by its class and method: basic.deliver and basic.get-ok.
const HANDED_OUT: [[u8; 4]; 2] = [[0, 60, 0, 60], [0, 60, 0, 71]];

/// A listening proxy, until dropped. It has a thread of its own, so that a test may wait for a command.
pub(crate) struct Refusing {
    pub(crate) port: u16,
    ended: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

impl Refusing {
    /// In front of a broker on this machine. Hands out no message whose body holds `mark`.
    pub(crate) fn to(broker: u16, mark: &'static str) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", crate::servers::free_port())).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (port, ended) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let (stop, stopped) = oneshot::channel::<()>();
        let count = Arc::clone(&ended);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, broker, mark, count) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port, ended, _stop: stop }
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    /// Connections that were ended in place of a message.
    pub(crate) fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}

async fn serve(listener: std::net::TcpListener, broker: u16, mark: &'static str, ended: Arc<AtomicUsize>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((client, _)) = listener.accept().await {
        let ended = Arc::clone(&ended);
        tokio::spawn(async move {
            if carry(client, broker, mark).await == Some(End::Refused) {
                ended.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Refused,
    Closed,
}

async fn carry(client: TcpStream, broker: u16, mark: &str) -> Option<End> {
    let server = TcpStream::connect(("127.0.0.1", broker)).await.ok()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true).ok()?;
    }
    server.set_zero_linger().ok()?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await };
    let down = async {
        let mut held = Held::default();
        loop {
            let frame = read_frame(&mut from_server).await?;
            match held.take(frame, mark.as_bytes()) {
                Some(frames) => to_client.write_all(&frames).await.ok()?,
                None => return Some(End::Refused),
            }
        }
    };
    let end = tokio::select! {
        _ = up => Some(End::Closed),
        end = down => end,
    };
    drop((from_server, to_server)); // resets it, so that the broker takes back what was not acked
    if end == Some(End::Refused) {
        to_client.write_all(&internal_error()).await.ok()?;
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(5), from_client.read_to_end(&mut rest)).await; // it answers and closes
    }
    end
}

/// A frame as it came: type, channel, size, payload, end.
async fn read_frame(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut frame = vec![0; 7];
    from.read_exact(&mut frame).await.ok()?;
    let size = u32::from_be_bytes(frame[3..7].try_into().unwrap()) as usize;
    frame.resize(7 + size + 1, 0);
    from.read_exact(&mut frame[7..]).await.ok()?;
    Some(frame)
}

/// Frames of messages that are not complete yet, by channel.
#[derive(Default)]
struct Held(HashMap<u16, Message>);

#[derive(Default)]
struct Message {
    frames: Vec<u8>,
    body: Vec<u8>,
    size: Option<u64>,
}

impl Held {
    /// What is to be sent on now; none: the message is not handed out.
    fn take(&mut self, frame: Vec<u8>, mark: &[u8]) -> Option<Vec<u8>> {
        let (kind, channel) = (frame[0], u16::from_be_bytes([frame[1], frame[2]]));
        let payload = frame[7..frame.len() - 1].to_vec();
        if kind == 1 && HANDED_OUT.iter().any(|method| payload.starts_with(method)) {
            self.0.insert(channel, Message { frames: frame, ..Message::default() });
            return Some(Vec::new());
        }
        let Some(message) = self.0.get_mut(&channel).filter(|_| kind == 2 || kind == 3) else { return Some(frame) };
        message.frames.extend(frame);
        match kind {
            2 => message.size = Some(u64::from_be_bytes(payload[4..12].try_into().unwrap())),
            _ => message.body.extend(payload),
        }
        if message.size != Some(message.body.len() as u64) {
            return Some(Vec::new());
        }
        let message = self.0.remove(&channel).unwrap_or_default();
        let is_marked = message.body.windows(mark.len()).any(|window| window == mark);
        (!is_marked).then_some(message.frames)
    }
}

/// connection.close
fn internal_error() -> Vec<u8> {
    let text = b"INTERNAL_ERROR";
    let mut payload = vec![0, 10, 0, 50];
    payload.extend(541u16.to_be_bytes());
    payload.push(u8::try_from(text.len()).unwrap());
    payload.extend(text);
    payload.extend([0; 4]);
    let mut frame = vec![1, 0, 0];
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(0xce);
    frame
}
