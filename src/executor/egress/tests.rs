use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::config;
use crate::domain::hook::{Action, HttpAction, PublishAction, Server};
use crate::domain::secret::Secret;
use crate::domain::template::Text;
use crate::domain::tls::Tls;
use crate::executor::clients::Clients;
use crate::executor::fixture::{hook, invocation, line};
use crate::executor::{Callbacks, Execute as _, Executors};

fn judge(host: &str, found: &[&str], egress: &Egress) -> String {
    let found = found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
    Guard::new(egress)
        .judge(host, found)
        .map_or_else(|refused| refused.to_string(), |good| format!("{} good", good.len()))
}

#[test]
fn one_bad_address_refuses_the_answer() {
    let none = Egress::default();
    assert_eq!(judge("a.example", &["8.8.8.8", "2606:4700::1"], &none), "2 good");
    let text = "the target a.example is a private address (10.0.0.0/8); `egress.allow` can allow it";
    for mixed in [["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"]] {
        assert_eq!(judge("a.example", &mixed, &none), text);
    }
}

#[test]
fn hosts_and_ports_that_are_allowed() {
    let egress = Egress { hosts: vec!["crm.internal".to_owned()], ports: vec![443, 8443], ..Egress::default() };
    for name in ["crm.internal", "CRM.Internal", "crm.internal."] {
        assert_eq!(judge(name, &["10.0.0.1"], &egress), "1 good", "{name}");
    }
    for name in ["a.crm.internal", "crm.internal.example.com", "xcrm.internal"] {
        assert!(judge(name, &["10.0.0.1"], &egress).contains("private"), "{name}");
    }
    let guard = Guard::new(&egress);
    for (url, refused) in [
        ("https://a.example/", None),
        ("https://a.example:8443/", None),
        ("http://a.example/", Some(Refused::Port(80))),
        ("https://a.example:22/", Some(Refused::Port(22))),
        ("http://a.example:443/", None),
    ] {
        assert_eq!(guard.check(&url.parse().unwrap()).err(), refused, "{url}");
    }
}

/// Every spelling of an address is judged as the address; what is no URL at all is refused when hooks are read.
#[test]
fn spellings() {
    let guard = Guard::new(&Egress::default());
    for (class, spellings) in SPELLINGS {
        for host in spellings.split_whitespace() {
            for url in [format!("http://{host}/"), format!("https://{host}:8443/a?b#c")] {
                let Ok(url) = Url::parse(&url) else {
                    assert_eq!(class, "no URL", "{url}");
                    continue;
                };
                let found = guard.check(&url).map_or_else(|refused| refused.to_string(), |()| "public".to_owned());
                assert!(found.contains(class), "{url}: {found}, expected {class}");
            }
        }
    }
    let count: usize = SPELLINGS.iter().map(|(_, spellings)| spellings.split_whitespace().count()).sum();
    assert!(count >= 150, "{count}");
}

const SPELLINGS: [(&str, &str); 19] = [
    (
        "loopback",
        "127.0.0.1 127.0.0.1. 127.1 127.0.1 127.255.255.255 2130706433 0x7f000001 0x7F.1 0x7f.0.0.1 0x7f.0x0.0x0.0x1 \
         017700000001 0177.0.0.1 0177.0x0.1 00177.1 127.0.0.0x1 127.000.000.001 %31%32%37.0.0.1 127%2e0%2E0%2e1 \
         127。0。0。1 127．0．0．1 127｡0｡0｡1 ①②⑦.0.0.1 １２７.0.0.1 [::1] [0:0:0:0:0:0:0:1] [0000::0001] [::127.0.0.1] \
         [::ffff:127.0.0.1] [::FFFF:7f00:1] [0:0:0:0:0:ffff:127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] \
         [2002:7f00:1::] [2002:7f00:0001::1] [::ffff:0:127.0.0.1] [2001:0:0:0:0:0:80ff:fffe] [2606:4700::5efe:127.0.0.1]",
    ),
    (
        "metadata",
        "169.254.169.254 2852039166 0xa9fea9fe 0xA9.0xFE.0xA9.0xFE 0251.0376.0251.0376 169.254.43518 169.16689662 \
         169.254.169.254. 169.254.170.2 0xa9feaa02 100.100.100.200 168.63.129.16 192.0.0.192 [::ffff:169.254.169.254] \
         [::ffff:a9fe:a9fe] [64:ff9b::a9fe:a9fe] [2002:a9fe:a9fe::] [fd00:ec2::254] [FD00:0EC2::0254] [fd20:ce::254] \
         ①⑥⑨.②⑤④.①⑥⑨.②⑤④ [::169.254.169.254]",
    ),
    (
        "private",
        "10.0.0.1 10.1 0xa000001 012.0.0.1 167772161 10.255.255.255 172.16.0.1 172.31.255.255 0xac100001 192.168.0.1 \
         192.168.1 3232235521 0300.0250.1 192.168.255.255 [::ffff:10.0.0.1] [::ffff:c0a8:1] [64:ff9b::10.0.0.1] \
         [2002:a00:1::] [2002:c0a8:101::1] [fc00::1] [fd12:3456:789a::1] [fdff:ffff::1] [2606:4700::200:5efe:a00:1]",
    ),
    (
        "link-local",
        "169.254.0.1 169.254.1 169.254.255.255 0xa9fe0001 [fe80::1] [FE80::1] [febf:ffff::1] [::ffff:169.254.1.1]",
    ),
    ("this host", "0 0.0.0.0 0x0 00 0.0 0.1.2.3 0x00000001 [::] [0::0] [::0.0.0.0] [::ffff:0.0.0.0]"),
    ("shared", "100.64.0.1 100.127.255.255 100.64.1 0x64400001 [::ffff:100.64.0.1]"),
    ("protocol", "192.0.0.1 192.0.0.170 192.1 [2001:1::1] [2001:20::1] [2001:1ff:ffff::1]"),
    (
        "documentation",
        "192.0.2.1 198.51.100.255 203.0.113.1 0xcb007101 [2001:db8::1] [2001:0DB8::1] [3fff::1] [3fff:fff::1]",
    ),
    ("relay", "192.88.99.1 0xc0586301"),
    ("benchmarking", "198.18.0.1 198.19.255.255 [::ffff:198.18.0.1]"),
    ("multicast", "224.0.0.1 239.255.255.255 0xe0000001 [ff02::1] [ff0e::101] [::ffff:224.0.0.1]"),
    ("reserved", "240.0.0.1 254.255.255.255 0xf0000001 [4000::1] [8000::1] [e000::1] [64:ff9b:2::1]"),
    ("broadcast", "255.255.255.255 4294967295 0xffffffff 255.255.65535 [::ffff:255.255.255.255]"),
    ("compatible", "[::8.8.8.8] [::808:808]"),
    ("translated", "[64:ff9b::8.8.8.8] [64:ff9b:1::8.8.8.8] [64:ff9b:0:1::1] [::ffff:0:8.8.8.8]"),
    ("tunnel", "[2001::f7f7:f7f7] [2002:808:808::1] [2606:4700::5efe:8.8.8.8]"),
    ("site-local", "[fec0::1] [feff:ffff::1]"),
    (
        "public",
        "8.8.8.8 134744072 0x08080808 010.8.8.8 1.1.1.1 1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 \
         126.255.255.255 128.0.0.1 169.253.255.255 169.255.0.1 172.15.255.255 172.32.0.1 192.0.1.1 192.167.255.255 \
         192.169.0.1 198.17.255.255 198.20.0.1 223.255.255.255 [2606:4700::1111] [2a00:1450:4001::200e] [2001:200::1] \
         [2003::1] [::ffff:8.8.8.8] a.example",
    ),
    (
        "no URL",
        "256.0.0.1 127.0.0.256 0x100000000 4294967296 1.2.3.4.5 09.0.0.1 0x7g.1 [fe80::1%25eth0] [::1 [:::1] [127.0.0.1] \
         [::ffff:127.0.0.256] [1:2:3:4:5:6:7:8:9]",
    ),
];

static ASKED: AtomicUsize = AtomicUsize::new(0);

/// A name server that is the attacker's: the address that may be called at first, this machine's the next time.
fn rebinding(_name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
    let ip = if ASKED.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) { ALLOWED } else { WATCHED };
    async move { Ok(vec![SocketAddr::new(ip.parse().unwrap(), 0)]) }.boxed()
}

fn mixed(_name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
    async { Ok([ALLOWED, WATCHED].map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).to_vec()) }.boxed()
}

/// In place of a public address, which a test may not call; nobody listens there.
const ALLOWED: &str = "127.0.0.2";
const WATCHED: &str = "127.0.0.1";

#[tokio::test]
async fn no_answer_of_a_name_server_leads_to_this_machine() {
    let watching = TcpListener::bind((WATCHED, 0)).await.unwrap();
    let port = watching.local_addr().unwrap().port();
    let reached = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&reached);
    tokio::spawn(async move {
        while watching.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let egress = Egress { allow: vec![format!("{ALLOWED}/32").parse().unwrap()], ..Egress::default() };
    let url = |scheme: &str| -> Url { format!("{scheme}://rebind.example:{port}/").parse().unwrap() };
    let run = async |action: Action, lookup: Lookup| {
        let guard = Guard::looking_up(&egress, lookup);
        let hook = hook(action, 1_000);
        let mut outcomes = Vec::new();
        for _ in 0..50 {
            // New ones: a broker that could not be reached is not tried again at once.
            let clients = std::sync::Arc::new(Clients::guarded(guard.clone(), None).unwrap());
            let executors = Executors::with(clients, &config::Commands::default(), Callbacks::default());
            outcomes.push(line(&executors.run(&hook, &invocation("{}")).await));
        }
        outcomes
    };
    let blocked = |outcomes: &[String]| outcomes.iter().filter(|one| one.starts_with("never TargetBlocked: ")).count();
    let publish = PublishAction {
        server: Some(Box::new(Server { url: Secret::new(url("amqp")), text: Text::plain(""), tls: Tls::Usual })),
        exchange: Some("x".to_owned()),
        routing_key: None,
        kind: None,
        headers: Vec::new(),
        body: None,
        content_type: "application/json".to_owned(),
        mandatory: true,
    };
    for action in [Action::Http(HttpAction::plain(url("http"), &[])), Action::Publish(publish)] {
        let (changing, both) = (run(action.clone(), rebinding).await, run(action, mixed).await);
        assert_eq!((blocked(&changing), blocked(&both)), (25, 50), "{changing:?}");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}
