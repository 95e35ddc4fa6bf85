//! What README and config/ show, read by what it is written for: examples cannot rot.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use clap::error::ErrorKind;
use hookfleet::catalog::{self, Terms};
use hookfleet::cli::Cli;
use hookfleet::config::{Environment, Overrides, Settings};
use hookfleet::dialect::decode;
use hookfleet::dialect::kheish::HookInvocation;
use hookfleet::dialect::kheish::request::SetHooks;
use hookfleet::domain::dialect::Dialect;
use hookfleet::domain::event::Reading;
use hookfleet::publish::prepare;
use hookfleet::{Event, Failed, Fleet, Publisher};
use serde_json::Value;

use crate::servers::slots;

const README: &str = include_str!("../../README.md");
/// Every variable that an example names is set.
pub(crate) const TERMS: Terms<'_> =
    Terms { hint_max: Duration::from_secs(1), env: &|name| Some(set(name)), egress: &[], callbacks: None };

fn set(name: &str) -> String {
    if name.ends_with("_PEM") {
        static PAIR: LazyLock<rcgen::CertifiedKey<rcgen::KeyPair>> =
            LazyLock::new(|| rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap());
        return if name.ends_with("_KEY_PEM") { PAIR.signing_key.serialize_pem() } else { PAIR.cert.pem() };
    }
    let is_key = name.ends_with("_KEY") || name.ends_with("_KEY_OLD");
    let value = match name {
        _ if is_key => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        _ if name.ends_with("_PASSWORD") => "s3cret",
        _ => "http://set.example.com",
    };
    value.to_owned()
}

/// A block of code: its language, its first line in README, its text.
struct Block {
    language: String,
    line: usize,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in README.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block { language: language.to_owned(), line: number + 2, text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block without an end");
    blocks
}

fn of(language: &str) -> Vec<Block> {
    let blocks: Vec<Block> = blocks().into_iter().filter(|block| block.language == language).collect();
    assert!(!blocks.is_empty(), "README shows no {language}: is this test looking at the right words?");
    blocks
}

/// The words of a shell's line, without quotes and without a comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, '>' | '|' | '&') => break, // the shell's, from here on
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Whether these words are a command of ours: what follows `hookfleet` then, or what cargo starts it with.
fn arguments(words: &[String]) -> Option<Vec<String>> {
    let all: Vec<&str> = words.iter().map(String::as_str).collect();
    let (["hookfleet", rest @ ..] | ["cargo", "run", "--release", "--", rest @ ..]) = all.as_slice() else {
        return None;
    };
    Some(std::iter::once("hookfleet").chain(rest.iter().copied()).map(str::to_owned).collect())
}

/// Commands in blocks and in sentences are commands that the program knows.
#[test]
fn commands_are_understood() {
    let in_blocks = blocks().into_iter().filter(|block| matches!(block.language.as_str(), "sh" | "text"));
    let lines = in_blocks.flat_map(|block| {
        let text = block.text.replace("\\\n", " ");
        let of_shell = |line: &str| block.language == "sh" || line.starts_with("$ ");
        let lines = text.lines().filter(|line| of_shell(line)).map(|line| line.trim_start_matches("$ ").to_owned());
        lines.collect::<Vec<_>>()
    });
    let mut count = 0;
    for line in lines {
        let Some(arguments) = arguments(&words(&line)) else { continue };
        count += 1;
        if let Err(error) = Cli::try_parse_from(arguments) {
            panic!("README shows `{line}`, which is refused: {error}");
        }
    }
    for piece in README.split('`').filter(|piece| piece.starts_with("hookfleet ")) {
        let Some(arguments) = arguments(&words(&piece.replace('\n', " "))) else { continue };
        count += 1;
        // A sentence may name a command without the arguments that it needs.
        let needs = [ErrorKind::MissingRequiredArgument, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
        match Cli::try_parse_from(arguments) {
            Err(error) if !needs.contains(&error.kind()) => panic!("README names `{piece}`, which is refused: {error}"),
            Ok(_) | Err(_) => {}
        }
    }
    assert!(count >= 20, "only {count} commands were found");
}

#[test]
fn words_are_split_as_a_shell_does() {
    let check = |line: &str, expected: &[&str]| assert_eq!(words(line), expected, "{line}");
    check("hookfleet publish --data '{\"a\": 1}'  # said", &["hookfleet", "publish", "--data", "{\"a\": 1}"]);
    check("a b#c \"d e\" ''", &["a", "b#c", "d e", ""]);
}

fn check_yaml(name: &str, text: &str, flags: &Overrides) {
    let is_hooks = text.lines().any(|line| line.starts_with("version:"));
    let read = if is_hooks {
        catalog::parse(text, name, &TERMS).map(|catalog| {
            let warnings: Vec<String> = catalog.warnings.iter().map(ToString::to_string).collect();
            assert!(warnings.is_empty(), "{name}: {}", warnings.join("\n"));
        })
    } else {
        Settings::parse(text, name, &Environment::default(), flags).map(drop)
    };
    if let Err(problems) = read {
        panic!("{name} shows what is refused:\n{problems}");
    }
}

#[test]
fn hooks_and_settings_are_read() {
    // README shows parts of a settings file; where there is a broker there is a Redis.
    let redis = Overrides(vec![("redis.url".to_owned(), "redis://127.0.0.1".to_owned())]);
    for block in of("yaml") {
        let flags = if block.text.contains("broker:") { redis.clone() } else { Overrides::default() };
        check_yaml(&format!("README.md line {}", block.line), &block.text, &flags);
    }
}

/// `…` stands for what is left out.
#[test]
fn json_is_json() {
    for block in of("json") {
        let text = block.text.replace("{…}", "{}");
        let read: Result<Value, _> = serde_json::from_str(&text);
        assert!(read.is_ok(), "README.md line {}: {}", block.line, read.unwrap_err());
    }
}

/// What README has curl send is an event, or what the route takes in its place.
#[test]
fn events_for_curl_are_events() {
    let mut count = 0;
    for line in of("sh").iter().flat_map(|block| block.text.replace("\\\n", " ").lines().map(words).collect::<Vec<_>>())
    {
        let sent = line.iter().position(|word| word == "-d").map(|at| line[at + 1].clone());
        if let Some(body) = sent.filter(|body| body.starts_with('{')) {
            count += 1;
            let is_to = |path: &str| line.iter().any(|word| word.contains(path));
            if is_to("/v1/hooks/kheish") {
                HookInvocation::read(body.as_bytes()).unwrap();
            } else if is_to("/v1/hooks/aether") {
                decode(Dialect::Aether, None, body.as_bytes()).unwrap();
            } else if is_to("bernstein") {
                decode(Dialect::Bernstein, None, body.as_bytes()).unwrap();
            } else if is_to("/v1/runtime/hooks") {
                SetHooks::read(body.as_bytes()).unwrap();
            } else {
                prepared(&body);
            }
        }
    }
    assert!(count > 0, "README has curl send no event");
}

fn prepared(body: &str) -> Event {
    prepare(&Bytes::copy_from_slice(body.as_bytes()), None, None, &Reading::default())
        .unwrap_or_else(|rejected| panic!("{body} is no event: {rejected:?}"))
}

#[test]
fn python_is_python() {
    slots::take();
    let python = std::env::var("HOOKFLEET_TEST_PYTHON").expect("set by tests/run: a python with pika");
    for block in of("python") {
        let check = ["-c", "import ast, sys; ast.parse(sys.stdin.read())"];
        let mut child = Command::new(&python).args(check).stdin(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), block.text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "README.md line {}", block.line);
    }
}

/// README's lines of Rust: compiled here.
#[allow(dead_code, reason = "it is there to be compiled")]
async fn publish_from_rust(order: [u8; 1]) -> anyhow::Result<()> {
    let publisher = Publisher::connect("amqp://hookfleet:hookfleet@127.0.0.1:5672", "hookfleet").await?;
    let event = Event::builder("order.paid").source("/shop").id("order-17-paid").data(&order).build()?;
    publisher.publish(&event).await?;
    Ok(())
}

#[derive(serde::Deserialize)]
#[allow(dead_code, reason = "it stands for what users have")]
struct Order {
    number: u32,
}

#[allow(dead_code, clippy::unused_async, reason = "it stands for what users have")]
async fn ledger(_: &str, _: Order) -> std::io::Result<()> {
    Ok(())
}

/// README's lines of Rust: compiled here.
#[allow(dead_code, reason = "it is there to be compiled")]
async fn callbacks(settings: Settings, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let fleet = Fleet::builder(settings).callback("audit", |call| async move {
        let order: Order = call.data().map_err(Failed::never)?;
        ledger(&call.key, order).await?; // an error is tried again
        Ok(())
    });
    fleet.run(shutdown).await?;
    Ok(())
}

#[test]
fn rust_is_compiled() {
    for block in of("rust") {
        for line in block.text.lines() {
            assert!(include_str!("docs.rs").contains(line), "README shows `{line}`, which is not compiled above");
        }
    }
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

#[test]
fn what_is_in_config_is_read() {
    let found = files(&config(), "yaml");
    assert!(found.len() >= 7, "{found:?}");
    for path in found {
        let text = std::fs::read_to_string(&path).unwrap();
        check_yaml(&path.display().to_string(), &text, &Overrides::default());
    }
    for path in files(&config(), "ndjson") {
        std::fs::read_to_string(&path).unwrap().lines().for_each(|line| drop(prepared(line)));
    }
}

/// The hooks files that README shows.
pub(crate) fn hooks_of_readme() -> Vec<String> {
    let texts = of("yaml").into_iter().map(|block| block.text);
    texts.filter(|text| text.starts_with("version:")).collect()
}

/// The value of `${NAME:-default}` where nothing is set.
pub(crate) fn with_defaults(text: &str) -> String {
    let mut parts = text.split("${");
    let mut shown = parts.next().unwrap().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap();
        shown.push_str(name.split_once(":-").unwrap_or_else(|| panic!("{name} has no default")).1);
        shown.push_str(rest);
    }
    shown
}

/// Every service of ours in docker-compose.yml is a command with settings that go together.
#[test]
fn services_of_compose_start() {
    const COMPOSE: &str = include_str!("../../docker-compose.yml");
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ") && line.ends_with(':');
    let mut found = Vec::new();
    for service in COMPOSE.split("\n\n").filter(|part| part.contains("config/Dockerfile")) {
        let name = service.lines().find(is_name).unwrap().trim().trim_end_matches(':');
        let command = service.lines().find_map(|line| line.strip_prefix("    command: ")).unwrap();
        let words: Vec<String> = serde_json::from_str(command).unwrap();
        let words = std::iter::once("hookfleet".to_owned()).chain(words);
        assert!(Cli::try_parse_from(words).is_ok(), "{name}: {command}");
        let settings = service.lines().filter_map(|line| line.strip_prefix("      HOOKFLEET_")?.split_once(": "));
        let settings =
            settings.map(|(name, value)| (format!("HOOKFLEET_{name}"), with_defaults(value.trim_matches('"'))));
        let settings: Environment = settings.collect();
        let read = Settings::parse("", "hookfleet.yaml", &settings, &Overrides::default());
        let read = read.unwrap_or_else(|problems| panic!("{name}: {problems}"));
        let is_published = service.contains("    ports:\n");
        assert_eq!((is_published, read.http.has_tokens()), (name == "server", name == "server"), "{name}");
        found.push(name);
    }
    assert_eq!(found, ["topology", "receiver", "worker", "server"]);
}
