use super::*;
use crate::config::Backend;
use crate::config::tests::{check_file, read};

#[test]
fn brokers() {
    let server = |text: &str, variables: &[(&str, &str)]| {
        let settings = read(&format!("redis: {{ url: 'redis://r' }}\n{text}"), variables, &[]);
        match settings.unwrap_or_else(|problems| panic!("{problems}")).backend {
            Backend::Servers { broker, .. } => *broker,
            backend @ Backend::Embedded { .. } => panic!("{backend:?}"),
        }
    };
    let urls =
        |server: &BrokerServer| server.urls.iter().map(|url| url.expose().to_string()).collect::<Vec<_>>().join(" ");
    let found = server("broker: { url: ['amqp://a', 'amqps://b:1/x'] }", &[]);
    assert_eq!(urls(&found), "amqp://a amqps://b:1/x");
    let found = server("", &[("HOOKFLEET_BROKER_URL", "amqp://u:p,w@a, amqp://b")]);
    assert_eq!(urls(&found), "amqp://u:p,w@a amqp://b"); // a comma in a password
    let found = server(
        "broker: { url: 'amqps://a', tls_ca: ca, tls_cert: c, tls_key: k, tls_name: mq.example, password_file: p,\n\
         management_url: 'https://m:hunter2@x' }",
        &[],
    );
    let paths = [&found.tls.ca, &found.password_file].map(|path| path.as_deref().unwrap().to_str().unwrap().to_owned());
    assert_eq!((paths, found.tls_name.as_deref()), (["ca".to_owned(), "p".to_owned()], Some("mq.example")));
    assert!(found.tls.client.is_some() && found.management.is_some());

    let check = |text: &str, expected: &[&str]| check_file(&format!("redis: {{ url: 'redis://r' }}\n{text}"), expected);
    check("broker: { url: [] }", &["2:16 broker.url: expected at least one URL, found none"]);
    check(
        "broker: { url: ['amqp://a', 'hunter2'] }",
        &["2:29 broker.url[1]: expected a URL such as amqp://host, found something else (relative URL without a base)"],
    );
    check(
        "broker: { url: 'amqps://a', tls_cert: c }",
        &["2:39 broker.tls_cert: expected `broker.tls_key` to be set too, found it unset"],
    );
    check(
        "broker: { url: ['amqps://a', 'amqp://b'], tls_ca: c }",
        &["2:51 broker.tls_ca: expected a broker.url that begins with amqps://, found one without TLS"],
    );
    check(
        "broker: { url: 'amqps://a', tls_name: 'a b' }",
        &["2:39 broker.tls_name: expected a host name or an address, found \"a b\""],
    );
    check(
        "broker: { url: 'amqp://a', management_url: 'amqp://hunter2' }",
        &["2:44 broker.management_url: expected a URL such as http://host, found another scheme"],
    );
}
