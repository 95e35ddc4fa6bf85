//! docker-compose.yml and README's commands for it, without an engine: the same commands and variables, on servers of the
//! tests. Case C8.

use std::fs;
use std::time::{Duration, Instant};

use hookfleet::yaml;
use hookfleet::yaml::report::Report;
use serde_json::Value;
use tokio::time::sleep;

use crate::docs::with_defaults;
use crate::fleet::Site;
use crate::servers::redis::Redis;
use crate::servers::{Leashed, Rabbit, free_port, shared};

const COMPOSE: &str = include_str!("../../docker-compose.yml");
const README: &str = include_str!("../../README.md");

/// What stands in the file, with the names of its network as they are here.
struct Composed {
    services: Value,
    here: Vec<(&'static str, String)>,
}

impl Composed {
    fn new(site: &Site, rabbit: &Rabbit, redis: &Redis, receiver: u16) -> Self {
        let report = Report::new("docker-compose.yml", COMPOSE);
        let root = yaml::parse(&report);
        let composed = root.as_ref().and_then(|root| yaml::value::Value::root(&report, root).json());
        let mut composed = composed.expect("it can be read");
        assert!(composed["configs"]["broker-password"]["content"].is_string(), "the file with the password");
        let password = site.folder.path().join("broker-password");
        fs::write(&password, "guest").unwrap();
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config/").to_owned();
        let receiver = format!("127.0.0.1:{receiver}");
        let here = vec![
            ("hookfleet@rabbitmq:5672", format!("guest@127.0.0.1:{}", rabbit.port)),
            ("redis://redis:6379", redis.url()),
            ("receiver:8080", receiver.clone()),
            ("0.0.0.0:8080", receiver),
            ("/etc/hookfleet/", config),
            ("/run/broker-password", password.to_str().unwrap().to_owned()),
        ];
        Self { services: composed["services"].take(), here }
    }

    fn here(&self, text: &str) -> String {
        let text = with_defaults(text);
        if text == "receiver" {
            return "127.0.0.1".to_owned();
        }
        self.here.iter().fold(text, |text, (there, here)| text.replace(there, here))
    }

    /// Where a service's commands run.
    fn site(&self, site: &Site, service: &str) -> Site {
        let variables = self.services[service]["environment"].as_object().expect("variables");
        variables.iter().fold(site.clone(), |site, (name, value)| site.set(name, &self.here(value.as_str().unwrap())))
    }

    fn command(&self, service: &str) -> Vec<String> {
        let words = self.services[service]["command"].as_array().expect("a command");
        words.iter().map(|word| self.here(word.as_str().unwrap())).collect()
    }
}

/// README's commands that run in a service: the service, and the words behind `hookfleet`.
fn of_readme() -> Vec<(&'static str, Vec<&'static str>)> {
    let lines = README.lines().filter_map(|line| line.strip_prefix("docker compose exec "));
    let words = |rest: &'static str| rest.split('#').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    lines
        .map(|line| match words(line).as_slice() {
            [service, "hookfleet", arguments @ ..] => (*service, arguments.to_vec()),
            other => panic!("expected SERVICE hookfleet ARGUMENTS, found {other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn c8_the_stack_shows_the_sample_at_work() {
    let (rabbit, redis) = shared().await;
    let site = Site::servers(rabbit, redis);
    let composed = Composed::new(&site, rabbit, redis, free_port());
    let log = site.folder.path().join("receiver.log");
    let mut receiver = site.command();
    receiver.args(composed.command("receiver")).stdout(fs::File::create(&log).unwrap());
    let _receiver = Leashed::start(&mut receiver);
    let worker = composed.site(&site, "worker");
    assert_eq!(
        (composed.command("worker"), composed.command("server")),
        (vec!["worker".into()], vec!["server".into()])
    );
    let _worker = worker.worker().await;
    let _server = composed.site(&site, "server").server().await;

    let [(service, publish), (looking, list)] = of_readme().try_into().expect("to publish, and to look");
    let arguments: Vec<String> = publish.into_iter().map(|word| composed.here(word)).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    composed.site(&site, service).ok(&words);
    let began = Instant::now();
    let served = loop {
        let served = fs::read_to_string(&log).unwrap();
        let is_mended = served.lines().filter(|line| line.contains("/oncall") && line.ends_with("-> 200")).count() == 2;
        if is_mended && !worker.letters().is_empty() {
            break served;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{served}");
        sleep(Duration::from_millis(100)).await;
    };
    let lines =
        |path: &str, end: &str| served.lines().filter(|line| line.contains(path) && line.ends_with(end)).count();
    assert_eq!((lines("/oncall", "-> 503"), lines("/crm", "-> 404")), (4, 1), "{served}");
    let listed = composed.site(&site, looking).ok(&list);
    assert!(listed.contains("crm-sync") && listed.contains("404"), "{listed}");
}
