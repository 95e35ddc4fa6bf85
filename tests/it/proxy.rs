//! A network that can be broken: a proxy for TCP between a process and its server.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;

pub(crate) mod refusing;

/// What the network does with bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    Through,
    /// Each piece of up to 16 KiB takes so long, in each direction.
    Slow(Duration),
    /// Nothing arrives and nothing is refused: a partition.
    Silent,
}

/// What happens to the connections that are open now.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Incident {
    /// Reset.
    Cut,
    /// The server's side ends; what the client sends still goes on.
    HalfClose,
    /// They stay open and carry nothing any more; new ones are well. As when a firewall has forgotten them.
    Forget,
}

/// A listening proxy; it ends with the test's runtime.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    incidents: broadcast::Sender<Incident>,
}

impl Proxy {
    /// In front of a port of this machine.
    pub(crate) async fn to(server: u16) -> Self {
        Self::on(crate::servers::free_port(), server).await
    }

    /// The same, on this port.
    pub(crate) async fn on(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (mode, incidents) = (watch::Sender::new(Mode::Through), broadcast::Sender::new(16));
        let (modes, sender) = (mode.clone(), incidents.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, modes.subscribe(), sender.clone()));
            }
        });
        Self { port, mode, incidents }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(crate) fn cut(&self) {
        let _ = self.incidents.send(Incident::Cut); // nobody listens if nothing is open
    }

    pub(crate) fn half_close(&self) {
        let _ = self.incidents.send(Incident::HalfClose);
    }

    pub(crate) fn forget(&self) {
        let _ = self.incidents.send(Incident::Forget);
    }
}

async fn carry(
    client: TcpStream,
    server: u16,
    mut mode: watch::Receiver<Mode>,
    incidents: broadcast::Sender<Incident>,
) {
    let mut incident = incidents.subscribe();
    let open = async {
        mode.wait_for(|mode| *mode != Mode::Silent).await.ok()?;
        TcpStream::connect(("127.0.0.1", server)).await.ok()
    };
    let Some(server) = open.await else {
        let _ = client.set_zero_linger();
        return;
    };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_zero_linger(); // so that dropping them both resets them
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pump(from_client, to_server, mode.clone(), incidents.subscribe(), false);
    let down = pump(from_server, to_client, mode, incidents.subscribe(), true);
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        () = async { while !matches!(incident.recv().await, Ok(Incident::Cut) | Err(_)) {} } => {}
    }
}

/// One direction.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    mut incidents: broadcast::Receiver<Incident>,
    is_down: bool,
) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut piece) => read.unwrap_or(0),
            incident = incidents.recv() => match incident {
                Ok(Incident::HalfClose) if is_down => 0,
                Ok(Incident::Forget) => return std::future::pending().await,
                _ => continue,
            },
        };
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        let Ok(now) = mode.wait_for(|mode| *mode != Mode::Silent).await.map(|mode| *mode) else { return };
        if let Mode::Slow(time) = now {
            sleep(time).await;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}
