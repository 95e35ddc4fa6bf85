use super::*;
use crate::config::Backend;
use crate::config::tests::read;
use crate::yaml::problem::Problems;
use std::path::Path;

/// The settings of Redis, with both URLs set.
fn read_redis(redis: &[(&str, &str)]) -> Result<Redis, Problems> {
    let both = [("broker.url", "amqp://a"), ("redis.url", "redis://fleet@r")];
    let settings = read("", &[], &[both.as_slice(), redis].concat())?;
    let Backend::Servers { redis, .. } = settings.backend else { panic!("{:?}", settings.backend) };
    Ok(*redis)
}

#[test]
fn kinds_of_redis() {
    let redis = read_redis(&[]).unwrap();
    assert!(matches!(redis.topology, Topology::Single));
    let sentinels = ("redis.sentinels", "redis://s1, rediss://:hunter2@s2:26380");
    let redis = read_redis(&[("redis.url", "rediss://mymaster/1"), sentinels, ("redis.tls_ca", "ca.pem")]).unwrap();
    let Topology::Sentinels(sentinels) = &redis.topology else { panic!("{redis:?}") };
    let sentinels: Vec<&str> = sentinels.iter().map(|url| url.expose().as_str()).collect();
    assert_eq!(sentinels, ["redis://s1", "rediss://:hunter2@s2:26380"]);
    assert!(!format!("{redis:?}").contains("hunter2"));
    assert_eq!((redis.tls.ca.as_deref(), redis.tls.client.is_none()), (Some(Path::new("ca.pem")), true));
    let variables = [("HOOKFLEET_BROKER_URL", "amqp://a"), ("HOOKFLEET_REDIS_URL", "redis://mymaster")];
    let text = "redis: { sentinels: ['redis://u:hunter2@s1:26379', 'redis://s2'] }";
    let shown = read(text, &variables, &[]).unwrap().shown();
    assert!(shown.contains("  sentinels: [redis://u:***@s1:26379, redis://s2] "), "{shown}");
    let nodes = [("redis.cluster", "true"), ("redis.nodes", "r2, 10.0.0.3:7000, [::1]:7001")];
    let redis = read_redis(&nodes).unwrap();
    let Topology::Cluster { nodes } = &redis.topology else { panic!("{redis:?}") };
    let nodes: Vec<(&str, u16)> = nodes.iter().map(|node| (node.host.as_str(), node.port)).collect();
    assert_eq!(nodes, [("r2", 6379), ("10.0.0.3", 7000), ("::1", 7001)]);
    let file = ("redis.password_file", "/run/secrets/redis");
    let client = [("redis.tls_cert", "c.pem"), ("redis.tls_key", "k.pem"), ("redis.url", "valkeys://fleet@r"), file];
    let redis = read_redis(&client).unwrap();
    assert!(redis.tls.client.is_some() && redis.password_file.is_some());
}

#[test]
fn settings_of_redis_that_do_not_go_together() {
    let check = |settings: &[(&str, &str)], expected: &str| {
        let problems = read_redis(settings).unwrap_err();
        let shown: Vec<String> = problems.list().iter().map(|problem| format!("{problem:#}")).collect();
        assert_eq!(shown, [format!("--set {expected}")], "{settings:?}");
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
    };
    let sentinels = ("redis.sentinels", "redis://:hunter2@s1");
    check(
        &[("redis.nodes", "r2")],
        "redis.nodes redis.nodes: expected `redis.cluster: true` beside it, found no cluster",
    );
    check(
        &[("redis.cluster", "true"), sentinels],
        "redis.cluster redis.cluster: expected either it or redis.sentinels, found both",
    );
    check(
        &[sentinels, ("redis.url", "redis://r:6379")],
        "redis.url redis.url: expected the name of the primary in place of host and port, found a port",
    );
    check(
        &[("redis.sentinels", "redis://s1/hunter2")],
        "redis.sentinels redis.sentinels: expected the number of a database behind the host, such as /0, found something \
         else",
    );
    check(
        &[("redis.sentinels", "redis://s1/0")],
        "redis.sentinels redis.sentinels: expected a sentinel's address such as redis://host:26379, found one with a path",
    );
    for node in ["hunter2@r2", "r2:port"] {
        let found = node.replace("hunter2", "u");
        check(
            &[("redis.cluster", "true"), ("redis.nodes", &found)],
            &format!("redis.nodes redis.nodes: expected the address of a node such as redis-2:6379, found \"{found}\""),
        );
    }
    check(
        &[("redis.password_file", "p"), ("redis.url", "redis://:hunter2@r")],
        "redis.password_file redis.password_file: expected no file, as redis.url has a password, found both",
    );
    check(
        &[("redis.tls_ca", "ca.pem")],
        "redis.tls_ca redis.tls_ca: expected a redis.url that begins with rediss://, found one without TLS",
    );
    check(
        &[("redis.tls_cert", "c.pem"), ("redis.url", "rediss://r")],
        "redis.tls_cert redis.tls_cert: expected `redis.tls_key` to be set too, found it unset",
    );
    check(
        &[("redis.tls_key", "k.pem"), ("redis.url", "rediss://r")],
        "redis.tls_key redis.tls_key: expected `redis.tls_cert` to be set too, found it unset",
    );
    let alone = read("redis: { sentinels: ['redis://s1'] }", &[], &[]).unwrap_err().to_string();
    assert!(alone.contains("redis.sentinels") && alone.contains("`redis.url` to be set too"), "{alone}");
}
