use super::*;
use table::SETTINGS;

fn env(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn flags(flags: &[(&str, &str)]) -> Overrides {
    Overrides(flags.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
}

pub(super) fn read(text: &str, variables: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<Settings, Problems> {
    Settings::parse(text, "hookfleet.yaml", &env(variables), &flags(overrides))
}

/// The problems of a file, of variables and of flags, one in a line.
pub(super) fn check(text: &str, variables: &[(&str, &str)], overrides: &[(&str, &str)], expected: &[&str]) {
    let problems = match read(text, variables, overrides) {
        Ok(settings) => panic!("no problem in {text} {variables:?} {overrides:?}\n{}", settings.shown()),
        Err(problems) => problems,
    };
    let shown: Vec<String> = problems.list().iter().map(|problem| format!("{problem:#}")).collect();
    assert_eq!(shown, expected, "{text} {variables:?} {overrides:?}");
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
}

pub(super) fn check_file(text: &str, expected: &[&str]) {
    check(text, &[], &[], expected);
}

#[test]
fn defaults() {
    let settings = read("", &[], &[]).unwrap();
    assert_eq!(settings.namespace, "hookfleet");
    assert!(matches!(&settings.backend, Backend::Embedded { path } if path == Path::new("data/hookfleet.db")));
    assert_eq!(settings.hooks, Path::new("config/hooks.yaml"));
    assert_eq!(settings.http.bind, "127.0.0.1:8733".parse().unwrap());
    let Worker { cells, prefetch, concurrency, lanes, hold_max, grace } = settings.worker;
    assert!(cells >= 1);
    assert_eq!(lanes, [true; 2]);
    assert_eq!((prefetch, concurrency, hold_max.as_secs(), grace.as_secs()), (256, 512, 5, 25));
    let Claims { lease, window, when_away } = settings.claims;
    assert_eq!((lease.as_secs(), window.as_secs(), when_away), (30, 24 * 3600, WhenAway::Hold));
    assert_eq!(settings.events, Reading::default());
    assert_eq!(settings.hint_max, Duration::from_hours(1));
    assert!(settings.egress.allow.is_empty() && settings.commands.allow.is_empty());
    assert_eq!(settings.commands.env, ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"]);
    assert_eq!(settings.dead_letter_retention, Duration::from_hours(30 * 24));
    assert_eq!(settings.log.filter, "info");
    assert!(!settings.log.json && !settings.log.payloads);
}

#[test]
fn later_words_count_more() {
    let text = "worker: { prefetch: 2, hold: 2s, grace: 2s }\negress: { allow: [10.1.2.3, fc00::1/7, CRM.internal., ::1], ports: [443] }\n";
    let variables = [
        ("HOOKFLEET_WORKER_HOLD", "3s"),
        ("HOOKFLEET_WORKER_GRACE", "3s"),
        ("HOOKFLEET_COMMANDS_ALLOW", "python3, sh"),
        ("HOOKFLEET_NAMESPACE", ""), // empty: not set
        ("HOOKFLEET_LOG", "warn,hookfleet=debug"),
    ];
    let settings = read(text, &variables, &[("worker.grace", "4s"), ("commands.env", "")]).unwrap();
    let Worker { cells: _, prefetch, concurrency, lanes, hold_max, grace } = settings.worker;
    assert_eq!(lanes, [true; 2]);
    assert_eq!((prefetch, concurrency, hold_max.as_secs(), grace.as_secs()), (2, 512, 3, 4));
    assert_eq!(
        settings.egress.allow.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.1.2.3/32", "fc00::/7", "::1/128"]
    );
    assert_eq!(settings.commands.allow, ["python3", "sh"]);
    assert!(settings.commands.env.is_empty());
    assert_eq!(settings.namespace, "hookfleet");
    assert_eq!(settings.log.filter, "warn,hookfleet=debug");
}

#[test]
fn names_that_do_not_exist() {
    check(
        "worker:\n  prefech: 3\nbrokr: { url: hunter2 }\nworker.hold: 2s\n",
        &[("HOOKFLEET_BROKR_URL", "hunter2"), ("HOOKFLEET_X", "1"), ("PATH", "/bin")],
        &[("worker.hld", "1s")],
        &[
            "2:3 worker.prefech: expected one of `cells`, `lanes`, `prefetch`, `concurrency`, `hold`, `grace`, found `prefech`",
            "3:1 brokr: expected one of `namespace`, `hooks`, `catalog`, `broker`, `redis`, `embedded`, `http`, `startup`, `worker`, \
             `gates`, `idempotency`, `events`, `breaker`, `retry`, `egress`, `commands`, `redact`, `dead_letters`, `log`, found `brokr`",
            "4:1 worker.hold: expected one of `namespace`, `hooks`, `catalog`, `broker`, `redis`, `embedded`, `http`, `startup`, `worker`, \
             `gates`, `idempotency`, `events`, `breaker`, `retry`, `egress`, `commands`, `redact`, `dead_letters`, `log`, found `worker.hold`",
            "HOOKFLEET_BROKR_URL: expected the name of a setting, found a variable that nothing reads",
            "HOOKFLEET_X: expected the name of a setting, found a variable that nothing reads",
            "--set worker.hld: expected the name of a setting, found `worker.hld`",
        ],
    );
    let problems = read("", &[("HOOKFLEET_BROKR_URL", "x")], &[]).unwrap_err();
    assert_eq!(problems.list()[0].help.as_deref(), Some("did you mean `HOOKFLEET_BROKER_URL`?"));
}

#[test]
fn variables_of_others() {
    for name in [
        "HOOKFLEET_CONFIG",
        "HOOKFLEET_BY",
        "HOOKFLEET_TEST_AMQP",
        "HOOKFLEET_CRASH_AFTER",
        "HOOKFLEET_SERVICE_HOST", // set by Kubernetes beside a service named hookfleet
        "HOOKFLEET_SERVICE_PORT_HTTP",
        "HOOKFLEET_REDIS_PORT",
        "HOOKFLEET_REDIS_PORT_6379_TCP_ADDR",
    ] {
        assert!(read("", &[(name, "x")], &[]).is_ok(), "{name}");
    }
}

/// A wrong value of any setting is found, wherever it is set, and named by its path.
#[test]
fn every_setting_is_checked_wherever_it_is_set() {
    for setting in &SETTINGS {
        let wrong = if setting.kind.is_list() { "," } else { "\0" };
        let count = if setting.kind.is_list() { 2 } else { 1 };
        let (section, key) = setting.place();
        let in_file = match (section, setting.kind.is_list()) {
            (None, _) => format!("{key}: {{}}"),
            (Some(section), true) => format!("{section}: {{ {key}: [{{}}, {{}}] }}"),
            (Some(section), false) => format!("{section}: {{ {key}: {{}} }}"),
        };
        for variable in setting.variables() {
            let found = read("", &[(&variable, wrong)], &[]).unwrap_err();
            let own = found.list().iter().filter(|problem| problem.path == setting.path);
            let place = yaml::problem::Place::Variable(variable);
            assert!(own.filter(|problem| problem.place == place).count() >= count, "{found}");
        }
        for found in [read("", &[], &[(setting.path, wrong)]).unwrap_err(), read(&in_file, &[], &[]).unwrap_err()] {
            let own = found.list().iter().filter(|problem| problem.path.starts_with(setting.path));
            assert!(own.count() >= count, "{}\n{found}", setting.path);
        }
    }
}

#[test]
fn values() {
    check_file(
        "namespace: Hook Fleet",
        &["1:12 namespace: expected 1 to 40 of a-z, 0-9, - and _, found \"Hook Fleet\""],
    );
    check_file(
        "worker: { prefetch: 2001, concurrency: 0, hold: 61s, grace: -1s }\nidempotency: { lease: 999ms, window: 0 }",
        &[
            "1:21 worker.prefetch: expected a whole number from 1 to 2000, found \"2001\"",
            "1:40 worker.concurrency: expected a whole number from 1 to 100000, found \"0\"",
            "1:49 worker.hold: expected a duration from 1s to 1m, found \"61s\"",
            "1:61 worker.grace: expected a duration such as 500ms, 10s, 5m, 1h or 7d, found \"-1s\"",
            "2:23 idempotency.lease: expected a duration from 1s to 1d, found \"999ms\"",
            "2:38 idempotency.window: expected a duration from 1s to 365d, found \"0\"",
        ],
    );
    check_file(
        "redis: { when_away: wait }\nevents: { missing_id: digets, body_bytes_max: 1MB }\n\
         egress: { allow: [10.0.0.0/33, 127.1, a b], ports: [0] }",
        &[
            "1:21 redis.when_away: expected `hold` or `proceed`, found \"wait\"",
            "2:23 events.missing_id: expected `refuse` or `digest`, found \"digets\"",
            "2:47 events.body_bytes_max: expected a whole number from 1 to 134217728, found \"1MB\"",
            "3:19 egress.allow[0]: expected a network such as 10.0.0.0/8, an address such as 10.1.2.3, or the name of a \
             host, found \"10.0.0.0/33\"",
            "3:32 egress.allow[1]: expected a network such as 10.0.0.0/8, an address such as 10.1.2.3, or the name of a \
             host, found \"127.1\"",
            "3:39 egress.allow[2]: expected a network such as 10.0.0.0/8, an address such as 10.1.2.3, or the name of a \
             host, found \"a b\"",
            "3:53 egress.ports[0]: expected a whole number from 1 to 65535, found \"0\"",
        ],
    );
    let filter = "expected a level such as info, or levels by part such as info,hookfleet=debug, found";
    for level in ["inof", "hookfleet", "info,,warn", "hookfleet=loud", "\"\""] {
        let quoted = level.trim_matches('"');
        check_file(
            &format!("log: {{ level: {level:?} }}").replace("\"\\\"\\\"\"", "\"\""),
            &[&format!("1:15 log.level: {filter} \"{quoted}\"")],
        );
    }
    check(
        "",
        &[("HOOKFLEET_LOG", "info"), ("HOOKFLEET_LOG_LEVEL", "info")],
        &[],
        &["HOOKFLEET_LOG log.level: expected either it or `HOOKFLEET_LOG_LEVEL`, found both"],
    );
    check_file("worker: 3", &["1:9 worker: expected a map, found another value"]);
    check_file("hunter2", &["1:1: expected a map, found another value"]);
}

#[test]
fn servers() {
    let settings =
        read("broker: { url: 'amqp://fleet:hunter2@mq/%2f' }\nredis: { url: 'redis://r/1' }", &[], &[]).unwrap();
    let Backend::Servers { broker, redis } = &settings.backend else { panic!("{settings:?}") };
    assert_eq!(
        (broker.urls[0].expose().as_str(), redis.url.expose().as_str()),
        ("amqp://fleet:hunter2@mq/%2f", "redis://r/1")
    );
    assert!(matches!(redis.topology, Topology::Single) && redis.password_file.is_none());
    assert!(!format!("{settings:?}").contains("hunter2"));

    check_file(
        "broker: { url: 'amqp://hunter2@a' }",
        &["1:16 broker.url: expected `redis.url` to be set too, found it unset"],
    );
    check_file("catalog: { from: redis }", &["1:18 catalog.from: expected `redis.url` to be set too, found it unset"]);
    check_file(
        "catalog: { cache: c.json }",
        &["1:19 catalog.cache: expected `catalog.from: redis` beside it, found `file`"],
    );
    check(
        "",
        &[("HOOKFLEET_REDIS_URL", "redis://:hunter2@a")],
        &[],
        &["HOOKFLEET_REDIS_URL redis.url: expected `broker.url` to be set too, found it unset"],
    );
    let check = |broker: &str, redis: &str, expected: &[&str]| {
        check("", &[], &[("broker.url", broker), ("redis.url", redis)], expected);
    };
    let (amqp, redis) = (
        "--set broker.url broker.url: expected a URL such as amqp://host, found",
        "--set redis.url redis.url: expected a URL such as redis://host, found",
    );
    check(
        "hunter2",
        "http://hunter2",
        &[&format!("{amqp} something else (relative URL without a base)"), &format!("{redis} another scheme")],
    );
    check(
        "amqp:hunter2",
        "redis:///0",
        &[&format!("{amqp} one without a host"), &format!("{redis} one without a host")],
    );
    check(
        "amqp://a",
        "redis://a/hunter2",
        &[
            "--set redis.url redis.url: expected the number of a database behind the host, such as /0, found something else",
        ],
    );
    for url in ["rediss://a/#insecure", "redis://a?password=hunter2"] {
        let found = "--set redis.url redis.url: expected nothing behind host and database, found something that begins \
                     with ? or #";
        check("amqp://a", url, &[found]);
    }
}

/// What is missing because the file is broken is no problem of its own.
#[test]
fn a_broken_file_is_one_problem() {
    let variables = [("HOOKFLEET_BROKER_URL", "amqp://a"), ("HOOKFLEET_NO", "1")];
    check(
        "redis: { url: 'redis://a'",
        &variables,
        &[],
        &[
            "1:8: expected valid YAML, found unclosed bracket '{'",
            "HOOKFLEET_NO: expected the name of a setting, found a variable that nothing reads",
        ],
    );
    let found = Settings::load(Some(Path::new("no/such.yaml")), &env(&variables), &flags(&[])).unwrap_err();
    let shown: Vec<String> = found.list().iter().map(|problem| format!("{problem:#}")).collect();
    assert_eq!(
        shown[0],
        "no/such.yaml: expected a file that can be read, found No such file or directory (os error 2)"
    );
    assert_eq!(shown.len(), 2, "{found}");
}

#[test]
fn settings_are_shown_with_their_origin() {
    let text = "redis:\n  url: redis://:hunter2@r:6379\nlog: { level: 'info,hookfleet=debug' }\n";
    let variables =
        [("HOOKFLEET_BROKER_URL", "amqp://fleet:hunter2@mq:5672/%2f"), ("HOOKFLEET_EGRESS_ALLOW", "::1, 10.0.0.0/8")];
    let shown = read(text, &variables, &[("worker.hold", "4s")]).unwrap().shown();
    for line in [
        "namespace: hookfleet                                 # default",
        "broker:\n  url: amqp://fleet:***@mq:5672/%2f                  # HOOKFLEET_BROKER_URL",
        "redis:\n  url: redis://:***@r:6379                           # hookfleet.yaml:2\n  password_file: \"\" ",
        "  hold: 4s                                           # --set worker.hold",
        "  allow: [\"::1\", 10.0.0.0/8]                         # HOOKFLEET_EGRESS_ALLOW",
        "  env: [PATH, HOME, LANG, LC_ALL, TZ, TMPDIR]        # default",
        "  level: \"info,hookfleet=debug\"                      # hookfleet.yaml:3",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(read("", &[], &[]).unwrap().shown().contains("broker:\n  #url: "));
    // What is shown can be read again.
    let passwords = shown.replace("***", "x");
    assert_eq!(read(&passwords, &[], &[]).unwrap().egress.allow.len(), 2);
}

#[test]
fn a_user_without_password_is_hidden_too() {
    let shown = read("", &[], &[("broker.url", "amqp://hunter2@mq"), ("redis.url", "redis://r")]).unwrap().shown();
    assert!(shown.contains("amqp://***@mq") && shown.contains("redis://r"), "{shown}");
}

#[test]
fn the_shipped_file_follows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DEFAULT_FILE);
    let expected = Settings::commented_file();
    if std::env::var_os("HOOKFLEET_TEST_BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap();
    assert_eq!(shipped, expected, "the table has changed: run the test again with HOOKFLEET_TEST_BLESS=1");

    let settings = Settings::load(Some(&path), &env(&[]), &flags(&[])).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(settings.shown(), read("", &[], &[]).unwrap().shown());
    // Every line that is commented out is right as it stands.
    let switched_on: String = shipped.lines().map(|line| switch_on(line) + "\n").collect();
    let settings = read(&switched_on, &[], &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(matches!(settings.backend, Backend::Servers { .. }));
    assert!(!settings.shown().contains("# default"), "{}", settings.shown());
}

/// A line `  #key: value` without its `#`.
fn switch_on(line: &str) -> String {
    let text = line.trim_start();
    match text.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => {
            format!("{}{setting}", &line[..line.len() - text.len()])
        }
        _ => line.to_owned(),
    }
}
