//! A name server that is slow, and one that is dead. With `tests/run --all` only: it listens on port 53 and gives workers
//! an `/etc/resolv.conf` of their own, which takes root and Linux.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Expect, Trial};
use crate::servers::shared;

/// Where the server listens: the loopback network is wide.
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 53, 0, 1);
/// The name of the sink.
const NAME: &str = "sink.hookfleet.test";

/// Answers every name with 127.0.0.1, each after the time set; none: never.
async fn serve(pace: watch::Receiver<Option<Duration>>) {
    let socket = Arc::new(UdpSocket::bind((IpAddr::V4(SERVER), 53)).await.unwrap());
    let mut packet = [0; 512];
    loop {
        let (length, client) = socket.recv_from(&mut packet).await.unwrap();
        let (question, pace, socket) = (packet[..length].to_vec(), *pace.borrow(), Arc::clone(&socket));
        tokio::spawn(async move {
            if let Some(pace) = pace {
                sleep(pace).await;
                let _ = socket.send_to(&answer(&question), client).await;
            }
        });
    }
}

/// RFC 1035, 4.1: the question again, with an address if it asks for one of four bytes.
fn answer(question: &[u8]) -> Vec<u8> {
    let name_end = 12 + question[12..].iter().position(|&byte| byte == 0).unwrap() + 1;
    let wants_a = question[name_end..name_end + 2] == [0, 1];
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(wants_a), 0, 0, 0, 0]);
    answer.extend(&question[12..name_end + 4]);
    if wants_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn the_name_server_is_slow_and_dead() {
    let (rabbit, redis) = shared().await;
    let pace = watch::Sender::new(Some(Duration::ZERO));
    tokio::spawn(serve(pace.subscribe()));
    let trial = Trial::begin_with("the name server slow (2 s), then dead for 5 s", rabbit, redis, |site| {
        let by_name = std::fs::read_to_string(site.hooks_file()).unwrap().replace("127.0.0.1", NAME);
        std::fs::write(site.hooks_file(), by_name).unwrap();
        let file = site.folder.path().join("resolv.conf");
        std::fs::write(&file, format!("nameserver {SERVER}\noptions timeout:1 attempts:2\n")).unwrap();
        let script = "mount --bind \"$0\" /etc/resolv.conf; exec \"$@\"";
        let file = file.to_str().unwrap();
        site.through(&["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, file])
    })
    .await;
    trial.load.sink.hang_up(); // so that every call has to find it
    pace.send_replace(Some(Duration::from_secs(2)));
    sleep(Duration::from_secs(4)).await;
    pace.send_replace(None);
    sleep(Duration::from_secs(5)).await;
    pace.send_replace(Some(Duration::ZERO));
    trial.end(rabbit, redis, Expect::Once).await;
}
