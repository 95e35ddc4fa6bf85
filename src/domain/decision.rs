//! What gates decide: what one hook says, and what all of them say together.
//!
//! A hook answers with JSON of which every field may be left out. Answers are merged in the order of the hooks, and who is
//! asked last is asked only where nobody has refused before: [`Merge::ends_at`].

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::dialect::Dialect;
use super::json::text_without_mark;
use super::redaction::{Secrets, redact_up_to};
pub use merge::{Merge, Named};

mod merge;

/// The version of what hooks answer.
const CONTRACT_VERSION: u64 = 1;
/// Longest reason.
const REASON_CHARS_MAX: usize = 2_048;
/// Longest context and message, and how many of each list are kept.
const TEXT_CHARS_MAX: usize = 10_000;
const LIST_MAX: usize = 100;
/// What of a decision travels with its event: headers have to fit a frame.
const DECIDED_BYTES_MAX: usize = 24 * 1024;

/// Whether what the event is about may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    #[default]
    Allow,
    /// Somebody else is to be asked.
    Ask,
    Deny,
}

/// Whether a hook is for what the event is about, in the words of dialects that have both this and permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    Approve,
    Block,
}

/// Where a rule on permissions holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    User,
    Project,
    Session,
}

/// A rule that a hook wants to be kept from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PermissionRule {
    pub scope: Scope,
    pub tool_name_pattern: String,
    pub behavior: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl PermissionRule {
    fn cut(self) -> Self {
        let tool_name_pattern = cut(self.tool_name_pattern, TEXT_CHARS_MAX);
        Self { tool_name_pattern, reason: self.reason.map(|reason| cut(reason, REASON_CHARS_MAX)), ..self }
    }
}

/// JSON as it was written, to the last digit. Two are the same if their texts are.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct Json(Box<RawValue>);

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Json {
    /// `None`: the text is no JSON.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        RawValue::from_string(text.to_owned()).ok().map(Self)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

/// What one hook says. Fields that nobody knows are passed over, of those that are known each has its type.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Answer {
    continue_execution: bool,
    stop_reason: Option<String>,
    decision: Option<Approval>,
    permission: Option<Verdict>,
    updated_input: Option<Json>,
    updated_output: Option<Json>,
    updated_permissions: Vec<PermissionRule>,
    additional_contexts: Vec<String>,
    initial_user_message: Option<String>,
    watch_paths: Vec<String>,
    retry: bool,
    /// No gate is asked behind it, although nothing is against what was asked.
    #[serde(skip)]
    ends: bool,
}

impl Default for Answer {
    /// Nothing against it.
    fn default() -> Self {
        Self {
            continue_execution: true,
            stop_reason: None,
            decision: None,
            permission: None,
            updated_input: None,
            updated_output: None,
            updated_permissions: Vec::new(),
            additional_contexts: Vec::new(),
            initial_user_message: None,
            watch_paths: Vec::new(),
            retry: false,
            ends: false,
        }
    }
}

impl Answer {
    /// Nothing against it, and this JSON in place of what the event is about. What is no JSON replaces nothing.
    #[must_use]
    pub fn replacing(json: &str) -> Self {
        Self { updated_input: Json::read(json), ..Self::default() }
    }

    /// The same, behind which no gate is asked.
    #[must_use]
    pub fn ending(self) -> Self {
        Self { ends: true, ..self }
    }

    /// Reads what a hook printed or answered: nothing at all, JSON, or the first JSON object within other text, such as a
    /// code fence.
    ///
    /// # Errors
    /// It is none, of another version, or has a field of another type. May show a part of the text.
    pub fn read(text: &str) -> Result<Self, String> {
        let text = text_without_mark(text.trim()).trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_str::<&RawValue>(text) {
            Ok(whole) => Self::of_object(whole.get()),
            Err(_) => match first_object(text) {
                Some(object) => Self::of_object(object),
                None => Err("expected a JSON object, or nothing, as the answer; found other text".to_owned()),
            },
        }
    }

    /// A refusal for this reason.
    #[must_use]
    pub fn refusal(reason: &str) -> Self {
        Self {
            continue_execution: false,
            stop_reason: Some(reason.to_owned()),
            decision: Some(Approval::Block),
            ..Self::default()
        }
    }

    /// Reads JSON as an answer.
    ///
    /// # Errors
    /// It is no object, of another version, or has a field of another type. May show a part of the text.
    pub fn of_object(object: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default)]
            contract_version: Option<serde_json::Value>,
        }
        let wrong =
            |error: serde_json::Error| format!("expected an answer such as {{\"decision\": \"block\"}}: {error}");
        if !object.starts_with('{') {
            return Err("expected a JSON object as the answer, found other JSON".to_owned());
        }
        // Of another version other fields may have other types.
        let version = serde_json::from_str::<Versioned>(object).map_err(wrong)?.contract_version;
        match version.as_ref().map(serde_json::Value::as_u64) {
            None | Some(Some(0..=CONTRACT_VERSION)) => {}
            Some(Some(version)) => return Err(format!("unsupported hook outcome contract_version {version}")),
            Some(None) => return Err("malformed hook outcome contract_version".to_owned()),
        }
        serde_json::from_str(object).map_err(wrong)
    }

    /// It says why, of itself or of a permission.
    #[must_use]
    pub fn has_reason(&self) -> bool {
        self.stop_reason.is_some() || self.updated_permissions.iter().any(|rule| rule.reason.is_some())
    }

    /// The same, with reasons that show none of these, nor what looks like a secret. What else it says is for who asks, as
    /// the hook means it.
    #[must_use]
    pub fn redacted(mut self, secrets: &Secrets) -> Self {
        let rules = self.updated_permissions.iter_mut().map(|rule| &mut rule.reason);
        for reason in rules.chain([&mut self.stop_reason]).flatten() {
            // As a whole first: a secret of many lines has short ones.
            let lines: Vec<String> =
                secrets.replaced(reason).lines().map(|line| redact_up_to(line, secrets, REASON_CHARS_MAX)).collect();
            *reason = lines.join("\n");
        }
        self
    }

    /// What it alone comes to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let permission = self.permission.unwrap_or_default();
        if !self.continue_execution || self.decision == Some(Approval::Block) { Verdict::Deny } else { permission }
    }
}

/// The first whole object that begins somewhere in a text.
fn first_object(text: &str) -> Option<&str> {
    let begins = text.match_indices('{').map(|(at, _)| at);
    // A text of many braces is not read again and again to its end.
    let mut objects = begins.take(LIST_MAX).filter_map(|at| {
        serde_json::Deserializer::from_str(&text[at..]).into_iter::<&RawValue>().next()?.ok().map(RawValue::get)
    });
    objects.next()
}

/// What became of one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Asked {
    pub hook: String,
    /// What it said; none: it failed.
    pub verdict: Option<Verdict>,
    pub attempts: u32,
    pub took_ms: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What all hooks together say: the reply.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Decision {
    pub verdict: Verdict,
    /// Why not, or why somebody else is to be asked: of the first hook that gave a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What asks is to end, not only what it asked about.
    pub stop: bool,
    /// In place of what the event is about: of the last hook that changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_input: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_output: Option<Json>,
    #[serde(default)]
    pub updated_permissions: Vec<PermissionRule>,
    #[serde(default)]
    pub additional_contexts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_user_message: Option<String>,
    /// Sorted, none twice.
    #[serde(default)]
    pub watch_paths: BTreeSet<String>,
    pub retry: bool,
    /// Those that answered, in order.
    #[serde(default)]
    pub matched_hooks: Vec<String>,
    /// All that were asked, in order.
    #[serde(default)]
    pub hooks: Vec<Asked>,
    /// What `verdict` says in the words of the event's dialect, where that is not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoken: Option<Spoken>,
    /// No gate was asked: another request under the same source and id was decided before, and that decision stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conflict: bool,
    /// SHA-256 of what was decided on: type, subject, data and extension attributes of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

/// A verdict in the words of another dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Spoken {
    #[schema(value_type = String, example = "kheish")]
    pub dialect: Dialect,
    /// Block, if any hook said so; else approve, if any did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Approval>,
    /// Deny before ask before allow, if any hook said one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<Verdict>,
}

/// Why a request is refused under whose source and id something else was decided.
pub const CONFLICT: &str = "conflict: another type or other data was decided under this source and id before; ask about \
    each event under an id of its own";

impl Decision {
    /// The answer to a request under whose source and id something else was decided.
    #[must_use]
    pub fn conflict() -> Self {
        Self { verdict: Verdict::Deny, reason: Some(CONFLICT.to_owned()), conflict: true, ..Self::default() }
    }

    /// Whether a decision that is kept is about something else than what has this digest. `None`: it does not say.
    #[must_use]
    pub fn is_about_else(kept: &str, about: &str) -> Option<bool> {
        #[derive(Deserialize)]
        struct About {
            about: String,
        }
        serde_json::from_str::<About>(kept).ok().map(|kept| kept.about != about)
    }

    /// As the reply has it.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // texts, flags and numbers always serialize
    }
}

/// What gates have said of an event, for those who observe it: a decision as JSON, or `null` where nobody has decided in
/// time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided(Arc<str>);

impl Decided {
    /// Nobody has.
    #[must_use]
    pub fn nobody() -> Self {
        Self("null".into())
    }

    /// As it was kept; what is no JSON says nothing.
    #[must_use]
    pub fn from_json(text: &str) -> Self {
        if serde_json::from_str::<&RawValue>(text).is_ok() { Self(text.into()) } else { Self::nobody() }
    }

    /// A decision as it is kept, without its largest parts where it would not fit the headers of a message.
    #[must_use]
    pub fn of_kept(text: &str) -> Self {
        if text.len() <= DECIDED_BYTES_MAX {
            return Self::from_json(text);
        }
        let Ok(whole) = serde_json::from_str::<Decision>(text) else { return Self::nobody() };
        let Decision { verdict, reason, stop, retry, about, .. } = whole;
        let short = Decision { verdict, reason, stop, retry, about, ..Decision::default() };
        let middle = Decision { matched_hooks: whole.matched_hooks, hooks: whole.hooks, ..short.clone() };
        let fits = |decision: &Decision| Some(decision.to_json()).filter(|text| text.len() <= DECIDED_BYTES_MAX);
        fits(&middle).or_else(|| fits(&short)).map_or_else(Self::nobody, |text| Self(text.into()))
    }

    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

fn cut(mut text: String, chars_max: usize) -> String {
    let end = text.char_indices().nth(chars_max).map_or(text.len(), |(end, _)| end);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests;
