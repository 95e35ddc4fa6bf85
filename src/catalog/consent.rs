//! Gates that are asked before a fleet's catalog changes: those that want Kheish's event `config_change`.
//!
//! The current catalog says which they are, so that a change cannot take out the gate that would refuse it. The first catalog
//! of a fleet is applied unasked. Nobody decides for a gate that cannot be asked: the change is refused, and says how to make it
//! without asking.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Document;
use super::diff::Changes;
use super::foreign;
use super::revisions::About;
use crate::domain::decision::{Decision, Verdict};

/// The type of the event that is asked about.
pub const CONFIG_CHANGE: &str = "kheish.config_change";
/// What may be changed: the one setting that Kheish and this project share.
const SETTING: &str = "hooks";

/// A place where gates are asked.
#[async_trait]
pub trait Consent: Send + Sync {
    /// Asks about an invocation of a hook of Kheish, in JSON, and waits for the decision.
    ///
    /// # Errors
    /// One sentence: nobody can decide, or nobody has in time.
    async fn decide(&self, invocation: Bytes) -> Result<Decision, String>;
}

/// The way by which a change comes: `source` in the event, and its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Kheish's own path.
    RuntimeApi,
    /// `POST /v1/catalog`.
    CatalogApi,
    /// `hookfleet hooks apply` and `rollback`.
    CommandLine,
}

impl Way {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RuntimeApi => "runtime_api",
            Self::CatalogApi => "catalog_api",
            Self::CommandLine => "catalog_cli",
        }
    }
}

/// A revision as gates see it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// `None`: it is not applied yet.
    pub about: Option<&'a About>,
    pub documents: &'a [Document],
}

/// The invocation that gates get: Kheish's `config_change`, whose two views hold the raw settings of Kheish's hooks, as there.
/// Hooks files of this project may hold more than a gate should see: of them it gets the ids that change.
#[must_use]
pub fn invocation(way: Way, previous: Seen<'_>, current: Seen<'_>, changes: &Changes) -> Bytes {
    let view = |seen: Seen<'_>| {
        let hooks = foreign::kheish(seen.documents).map(|settings| settings.to_value()).unwrap_or_default();
        let mut view = Map::from_iter([
            ("revision".to_owned(), seen.about.map_or(0, |about| about.number).into()),
            ("updated_at_ms".to_owned(), seen.about.map_or(0, |about| about.at_ms).into()),
            ("source".to_owned(), seen.about.map_or(way.name(), |about| &about.by).into()),
            ("setting".to_owned(), SETTING.into()),
        ]);
        view.insert(SETTING.to_owned(), hooks.get(SETTING).cloned().unwrap_or_else(|| json!({})));
        Value::Object(view)
    };
    let payload = json!({
        "setting": SETTING,
        "source": way.name(),
        "previous": view(previous),
        "current": view(current),
        "changes": changes,
    });
    json!({ "event": "config_change", "subject": way.name(), "payload": payload }).to_string().into()
}

/// Why a decision refuses a change; `None`: it does not. A gate that wants somebody else to be asked refuses too: that person can
/// make the change without asking the gates.
#[must_use]
pub fn refusal(decision: &Decision) -> Option<String> {
    let reason = |otherwise: &str| decision.reason.clone().unwrap_or_else(|| otherwise.to_owned());
    match decision.verdict {
        Verdict::Deny => Some(reason("hook requested stop")),
        Verdict::Ask => Some(reason("hook wants somebody else to be asked")),
        Verdict::Allow => decision.stop.then(|| reason("hook requested stop")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dialect::Dialect;

    #[test]
    fn what_gates_get() {
        let about =
            About { number: 3, digest: "d".into(), at_ms: 17, by: "ada".into(), message: None, format: 1, hooks: 1 };
        let hook = json!({ "name": "a", "executor": { "type": "callback", "name": "c" } });
        let text = json!({ "hooks": { "stop": [hook] } }).to_string();
        let previous = [
            Document { name: "hooks.json".into(), text, dialect: Dialect::Kheish },
            Document::native("h.yaml", "version: 1 # with a secret"),
        ];
        let changes = Changes { removed: vec!["kheish.stop.a".into()], ..Changes::default() };
        let asked = invocation(
            Way::CommandLine,
            Seen { about: Some(&about), documents: &previous },
            Seen { about: None, documents: &previous[1..] },
            &changes,
        );
        let asked: Value = serde_json::from_slice(&asked).unwrap();
        assert_eq!((&asked["event"], &asked["subject"]), (&json!("config_change"), &json!("catalog_cli")));
        let payload = &asked["payload"];
        assert_eq!(payload["setting"], "hooks");
        let previous = &payload["previous"];
        assert_eq!((&previous["revision"], &previous["updated_at_ms"]), (&json!(3), &json!(17)));
        assert_eq!((&previous["source"], &previous["hooks"]["stop"][0]["name"]), (&json!("ada"), &json!("a")));
        let current =
            json!({ "revision": 0, "updated_at_ms": 0, "source": "catalog_cli", "setting": "hooks", "hooks": {} });
        assert_eq!(payload["current"], current);
        assert_eq!(payload["changes"]["removed"], json!(["kheish.stop.a"]));
        assert!(!asked.to_string().contains("secret"), "{asked}");
    }

    #[test]
    fn which_decisions_refuse() {
        let check = |verdict: Verdict, stop: bool, reason: Option<&str>, expected: Option<&str>| {
            let decision = Decision { verdict, stop, reason: reason.map(str::to_owned), ..Decision::default() };
            assert_eq!(refusal(&decision).as_deref(), expected, "{verdict:?} {stop} {reason:?}");
        };
        check(Verdict::Allow, false, Some("fine"), None);
        check(Verdict::Allow, true, None, Some("hook requested stop"));
        check(Verdict::Deny, false, Some("frozen"), Some("frozen"));
        check(Verdict::Deny, true, None, Some("hook requested stop"));
        check(Verdict::Ask, false, None, Some("hook wants somebody else to be asked"));
    }
}
