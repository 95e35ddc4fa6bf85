//! Targets behind a proxy, with TLS from end to end.

use super::*;
use crate::config;
use crate::domain::secret::Secret;
use crate::executor::Executors;
use crate::executor::callback::Callbacks;

/// A proxy that leads every tunnel to one port of this machine, whatever is asked for; what was asked for is kept.
async fn proxy(to: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.ok()?);
                }
                let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                kept.lock().unwrap().push(line);
                let mut target = TcpStream::connect(("127.0.0.1", to)).await.ok()?;
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
                tokio::io::copy_bidirectional(&mut client, &mut target).await.ok()
            });
        }
    });
    (port, asked)
}

fn through(proxy: u16, hosts: &[&str]) -> Executors {
    let url = Secret::new(format!("http://127.0.0.1:{proxy}").parse().unwrap());
    let egress = config::Egress {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        proxy: Some(config::Proxy { url, except_nets: Vec::new(), except_hosts: Vec::new() }),
        ..config::Egress::default()
    };
    Executors::new(&egress, &config::Commands::default(), Callbacks::default()).unwrap()
}

#[tokio::test]
async fn https_goes_through_a_tunnel_that_is_used_again() {
    let authority = authority();
    let server = Server::start(&issued(&authority, "127.0.0.1", 2100), None).await;
    let (port, asked) = proxy(server.port).await;
    let executors = through(port, &[]);
    for _ in 0..2 {
        let found = executors.run(&server.hook(own(Some(&authority), None)), &invocation("{}")).await;
        assert_eq!(line(&found), "done");
    }
    assert_eq!(*asked.lock().unwrap(), [format!("CONNECT 127.0.0.1:{} HTTP/1.1", server.port)]);
}

/// A name that cannot be resolved here cannot be checked here: it goes to the proxy if it is allowed by name only.
#[tokio::test]
async fn names_that_are_not_known_here_are_allowed_by_name() {
    let (authority, name) = (authority(), "crm.invalid");
    let server = Server::start(&issued(&authority, name, 2100), None).await;
    let (port, asked) = proxy(server.port).await;
    let hook = || {
        let url = format!("https://{name}/").parse().unwrap();
        let tls = own(Some(&authority), None);
        hook(Action::Http(HttpAction { tls, ..HttpAction::plain(url, &[]) }), 5_000)
    };
    let found = line(&through(port, &[]).run(&hook(), &invocation("{}")).await);
    assert!(found.starts_with("later: dns: ") && found.contains("`egress.allow: [crm.invalid]`"), "{found}");
    assert!(asked.lock().unwrap().is_empty(), "the proxy was not asked");
    assert_eq!(line(&through(port, &[name]).run(&hook(), &invocation("{}")).await), "done");
    assert_eq!(*asked.lock().unwrap(), ["CONNECT crm.invalid:443 HTTP/1.1"]);
}

#[tokio::test]
async fn a_proxy_that_is_away_is_named() {
    let authority = authority();
    let server = Server::start(&issued(&authority, "127.0.0.1", 2100), None).await;
    let found = line(&through(1, &[]).run(&server.hook(own(Some(&authority), None)), &invocation("{}")).await);
    assert!(found.starts_with("later: ") && found.contains("the proxy (egress.proxy)"), "{found}");
}
