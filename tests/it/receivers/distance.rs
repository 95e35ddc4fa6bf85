//! A long way between two machines: bytes and closings arrive later, in each direction.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep, sleep_until};

use crate::servers::slots;

/// What one side does, as the other one sees it later.
enum Sent {
    Bytes(Vec<u8>),
    /// It says no more (FIN).
    End,
    /// It hears no more either (RST).
    Reset,
}

/// A proxy in front of a port of this machine that takes half of the round trip in each direction. Answers its own port.
pub(crate) async fn distance(to: u16, round_trip: Duration) -> u16 {
    slots::take();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, to, round_trip / 2));
        }
    });
    port
}

/// How one direction ended.
enum Ended {
    /// Who sends says no more.
    Sender,
    /// Who sends is gone.
    SenderReset,
    /// Who receives is gone.
    Receiver,
}

async fn carry(client: TcpStream, to: u16, one_way: Duration) {
    let _ = client.set_zero_linger();
    sleep(one_way).await;
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_zero_linger(); // so that dropping them both resets them
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut up = std::pin::pin!(pump(from_client, to_server, one_way));
    let mut down = std::pin::pin!(pump(from_server, to_client, one_way));
    // What one has said before it was gone still arrives; then both connections are reset.
    tokio::select! {
        ended = &mut up => if !matches!(ended, Ended::SenderReset) { down.await; },
        ended = &mut down => if !matches!(ended, Ended::SenderReset) { up.await; },
    }
}

/// One direction, until it ends.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, one_way: Duration) -> Ended {
    let (sender, mut sent) = unbounded_channel();
    let reading = async move {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let next = match from.read(&mut piece).await {
                Ok(0) => Sent::End,
                Ok(read) => Sent::Bytes(piece[..read].to_vec()),
                Err(_) => Sent::Reset,
            };
            let is_last = !matches!(next, Sent::Bytes(_));
            if sender.send((Instant::now() + one_way, next)).is_err() || is_last {
                return;
            }
        }
    };
    let writing = async {
        while let Some((at, next)) = sent.recv().await {
            sleep_until(at).await;
            match next {
                Sent::Bytes(bytes) if to.write_all(&bytes).await.is_err() => break,
                Sent::Bytes(_) => {}
                Sent::End => {
                    let _ = to.shutdown().await;
                    return Ended::Sender;
                }
                Sent::Reset => return Ended::SenderReset,
            }
        }
        Ended::Receiver
    };
    let mut writing = std::pin::pin!(writing);
    tokio::select! {
        () = reading => writing.await,
        ended = &mut writing => ended,
    }
}
