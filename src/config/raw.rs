//! What was said about each setting, and where: defaults, then the file, then the environment, then flags. Nothing is
//! resolved here, but names that do not exist are reported.

use std::collections::BTreeMap;

use super::table::{self, Fallback, SETTINGS, Setting};
use super::{Environment, Overrides};
use crate::domain::escape::quoted;
use crate::yaml::Node;
use crate::yaml::problem::{At, Mismatch};
use crate::yaml::report::Report;
use crate::yaml::value::{Value, all};

/// The last word on every setting that has one.
pub(super) struct Raw<'a> {
    report: &'a Report<'a>,
    said: BTreeMap<&'static str, Said<'a>>,
}

/// What was said about a setting.
enum Said<'a> {
    InFile(Value<'a>),
    Elsewhere { text: String, at: At },
}

impl<'a> Raw<'a> {
    /// Everything that was said. `root` is the file's tree.
    pub(super) fn gather(report: &'a Report<'a>, root: &'a Node, env: &Environment, flags: &Overrides) -> Self {
        let mut raw = Self { report, said: BTreeMap::new() };
        for setting in &SETTINGS {
            if let Fallback::Is(default) = setting.default {
                raw.say(setting, default, At::Default);
            }
        }
        raw.take_file(&Value::root(report, root).secret_unless_map(), None);
        raw.take_environment(env);
        raw.take_flags(flags);
        raw
    }

    fn say(&mut self, setting: &Setting, text: &str, at: At) {
        self.said.insert(setting.path, Said::Elsewhere { text: text.to_owned(), at });
    }

    fn take_file(&mut self, map: &Value<'a>, section: Option<&str>) {
        let keys = table::keys(section);
        for (key, value) in map.entries().unwrap_or_default() {
            let setting = table::find(value.path());
            match setting {
                _ if !keys.contains(&key.name.as_str()) => value.unknown(key, &keys),
                None => self.take_file(&value.secret_unless_map(), Some(&key.name)),
                Some(setting) => {
                    let value = if setting.kind.is_secret() { value.secret() } else { value };
                    self.said.insert(setting.path, Said::InFile(value));
                }
            }
        }
    }

    fn take_environment(&mut self, env: &Environment) {
        for setting in &SETTINGS {
            let mut earlier: Option<String> = None;
            for name in setting.variables() {
                let Some(text) = env.get(&name) else { continue };
                if let Some(earlier) = &earlier {
                    let mismatch = Mismatch::new(format!("either it or `{earlier}`")).found("both");
                    self.report.push(At::Variable(name.clone()), setting.path, mismatch);
                }
                self.say(setting, text, At::Variable(name.clone()));
                earlier = Some(name);
            }
        }
        self.check_names(env);
    }

    /// A misspelt variable would be a setting that silently stays as it is.
    fn check_names(&self, env: &Environment) {
        let known: Vec<String> = SETTINGS.iter().flat_map(Setting::variables).collect();
        for name in env.names().filter(|name| name.starts_with("HOOKFLEET_")) {
            if !known.iter().any(|known| known == name) && !is_of_others(name) {
                let mismatch = Mismatch::new("the name of a setting").found("a variable that nothing reads");
                let mismatch = mismatch.did_you_mean(name, known.iter().map(String::as_str));
                self.report.push(At::Variable(name.to_owned()), "", mismatch);
            }
        }
    }

    fn take_flags(&mut self, flags: &Overrides) {
        for (path, text) in &flags.0 {
            let at = At::Flag(format!("--set {path}"));
            if let Some(setting) = table::find(path) {
                self.say(setting, text, at);
            } else {
                let mismatch = Mismatch::new("the name of a setting").found(format!("`{}`", path.escape_debug()));
                let known = SETTINGS.iter().map(|setting| setting.path);
                self.report.push(at, "", mismatch.did_you_mean(path, known));
            }
        }
    }

    /// Whether anything was said about a setting, and be it by default.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.said.contains_key(path)
    }

    /// A single value.
    pub(super) fn read<T>(&self, path: &str, parse: impl Fn(&str) -> Result<T, Mismatch>) -> Option<T> {
        match self.said.get(path)? {
            Said::InFile(value) => value.read(parse),
            Said::Elsewhere { text, at } => self.parse(path, text, at, parse),
        }
    }

    /// A list of values.
    pub(super) fn read_list<T>(&self, path: &str, parse: impl Fn(&str) -> Result<T, Mismatch>) -> Option<Vec<T>> {
        match self.said.get(path)? {
            Said::InFile(value) => value.list(|item| item.read(&parse)),
            Said::Elsewhere { text, .. } if text.is_empty() => Some(Vec::new()),
            Said::Elsewhere { text, at } => all(text.split(',').map(|item| self.parse(path, item.trim(), at, &parse))),
        }
    }

    /// One value or a list of them.
    pub(super) fn read_one_or_more<T>(
        &self,
        path: &str,
        parse: impl Fn(&str) -> Result<T, Mismatch>,
    ) -> Option<Vec<T>> {
        match self.said.get(path)? {
            Said::InFile(value) if !value.is_list() => value.read(parse).map(|one| vec![one]),
            Said::InFile(_) | Said::Elsewhere { .. } => self.read_list(path, parse),
        }
    }

    /// One value or a list of them, of texts that begin with a scheme: so a comma in the middle of one splits nothing.
    pub(super) fn read_some<T>(&self, path: &str, parse: impl Fn(&str) -> Result<T, Mismatch>) -> Option<Vec<T>> {
        match self.said.get(path)? {
            Said::InFile(value) if value.is_list() => value.list(|item| item.read(&parse)),
            Said::InFile(value) => value.read(parse).map(|one| vec![one]),
            Said::Elsewhere { text, at } => all(split_urls(text).iter().map(|item| self.parse(path, item, at, &parse))),
        }
    }

    fn parse<T>(&self, path: &str, text: &str, at: &At, parse: impl Fn(&str) -> Result<T, Mismatch>) -> Option<T> {
        parse(text).map_err(|mismatch| self.wrong_at(path, text, at, mismatch)).ok()
    }

    /// Reports that a setting is wrong.
    pub(super) fn wrong(&self, path: &str, mismatch: Mismatch) {
        match self.said.get(path) {
            Some(Said::InFile(value)) => value.wrong(mismatch),
            Some(Said::Elsewhere { text, at }) => self.wrong_at(path, text, at, mismatch),
            None => self.report.push(At::Default, path, mismatch),
        }
    }

    fn wrong_at(&self, path: &str, text: &str, at: &At, mismatch: Mismatch) {
        let secret = table::find(path).is_some_and(|setting| setting.kind.is_secret());
        let shown = || if secret { "another value".to_owned() } else { quoted(text) };
        let mismatch = Mismatch { found: Some(mismatch.found.unwrap_or_else(shown)), ..mismatch };
        self.report.push(at.clone(), path, mismatch);
    }

    /// Where a setting was set, in the words of `hookfleet settings`.
    pub(super) fn origin(&self, path: &str) -> String {
        match self.said.get(path) {
            None => "not set".to_owned(),
            Some(Said::InFile(value)) => format!("{}:{}", self.report.file(), value.line()),
            Some(Said::Elsewhere { at: At::Variable(name) | At::Flag(name), .. }) => name.clone(),
            Some(Said::Elsewhere { .. }) => "default".to_owned(),
        }
    }
}

/// The URLs of a list with commas. A password may have commas too: only what has a scheme begins a URL.
fn split_urls(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for part in text.split(',') {
        match urls.last_mut() {
            Some(last) if !part.contains("://") => {
                last.push(',');
                last.push_str(part);
            }
            _ => urls.push(part.trim().to_owned()),
        }
    }
    urls
}

/// Variables that begin like ours and are none: the CLI's, those of tests, and those that Kubernetes sets in every pod
/// beside a service whose name begins with `hookfleet`.
fn is_of_others(name: &str) -> bool {
    let cli_or_test = matches!(name, "HOOKFLEET_CONFIG" | "HOOKFLEET_BY")
        || name.starts_with("HOOKFLEET_TEST_")
        || name.starts_with("HOOKFLEET_CRASH");
    let number_follows = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    let service = name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| number_follows(rest));
    cli_or_test || service
}
