//! What operators ask and are told, as it travels: between HTTP and its callers, the command line among them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::OperationError;
use super::progress::{Progress, Unsent};
use super::replay::Sorted;
use crate::domain::browse::Group;
use crate::domain::edit::Edit;
use crate::domain::escape::quoted;
use crate::domain::fold::Entry;
use crate::domain::id::LetterId;
use crate::domain::selection::{Plan, Selection};

mod filter;

pub use filter::Asked;

/// Letters of a page, unless another number is asked for, and the highest.
pub const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// A page of letters that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PageAsked {
    #[serde(flatten)]
    pub which: Asked,
    /// The `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// 1 to 1,000; 100 if nothing is said. As text, since that is what a query has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}

/// The names of a query that are not in [`Asked`], and those that are: an unknown one is refused.
///
/// # Errors
/// One sentence: there is no such condition.
pub fn split<const N: usize>(
    mut query: BTreeMap<String, String>,
    own: [&str; N],
) -> Result<(Asked, [Option<String>; N]), OperationError> {
    let own = own.map(|name| query.remove(name));
    let asked = serde_json::from_value(serde_json::json!(query));
    Ok((asked.map_err(|error| OperationError::Invalid(error.to_string()))?, own))
}

impl PageAsked {
    /// As it stands in a query.
    ///
    /// # Errors
    /// One sentence: there is no such condition.
    pub fn of(query: BTreeMap<String, String>) -> Result<Self, OperationError> {
        let (which, [after, limit]) = split(query, ["after", "limit"])?;
        Ok(Self { which, after, limit })
    }

    /// How many letters it has at most.
    ///
    /// # Errors
    /// It is no such number.
    pub fn limit(&self) -> Result<usize, OperationError> {
        let Some(text) = &self.limit else { return Ok(PAGE) };
        let limit = text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
        limit.ok_or_else(|| OperationError::Invalid(format!("limit: expected 1 to {PAGE_MAX}, found {}", quoted(text))))
    }
}

/// A page of letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listed {
    /// Newest first.
    pub items: Vec<Entry>,
    /// What `after` is to be for the next page; none: these were the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Letters by cause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Grouped {
    pub items: Vec<Group>,
}

/// Letters that something is done with: named ones, those of a filter, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Chosen {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<LetterId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Asked>,
    /// Every one that is open.
    pub all: bool,
}

impl Chosen {
    /// As it is worked with.
    ///
    /// # Errors
    /// Nothing is chosen, or two things at once, or the filter cannot be read.
    pub fn selection(&self, now_ms: u64) -> Result<Selection, OperationError> {
        let filter = self.filter.as_ref().filter(|filter| **filter != Asked::default());
        match (self.ids.as_slice(), filter, self.all) {
            ([], Some(filter), false) => Ok(Selection::Filter(Box::new(filter.filter(now_ms)?))),
            ([], None, true) => Ok(Selection::Filter(Box::default())),
            (ids, None, false) if !ids.is_empty() => Ok(Selection::Ids(ids.to_vec())),
            ([], None, false) => Err(OperationError::Invalid(
                "expected ids of letters, a filter, or all, found nothing: `hookfleet dead-letters groups` shows what there is"
                    .to_owned(),
            )),
            _ => Err(OperationError::Invalid("expected ids of letters, a filter, or all: one of them, found several".to_owned())),
        }
    }
}

/// A replay that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a member of its own")]
pub struct ReplayAsked {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<LetterId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Asked>,
    pub all: bool,
    /// Run them although they have finished, under keys of their own.
    pub force: bool,
    /// Run by this hook instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    pub to_hook: Option<String>,
    /// At most so many a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.001, maximum = 1_000_000)]
    pub rate: Option<f64>,
    /// At most so many: the oldest that can be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub limit: Option<usize>,
    /// Say what would be sent, and send nothing.
    pub dry_run: bool,
    /// Go on until all that was sent has ended, and say what has become of each.
    pub wait: bool,
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl ReplayAsked {
    /// How many at most.
    ///
    /// # Errors
    /// None at all.
    pub fn limit(&self) -> Result<Option<usize>, OperationError> {
        match self.limit {
            Some(0) => Err(OperationError::Invalid("limit: expected at least 1, found 0".to_owned())),
            limit => Ok(limit),
        }
    }

    /// The letters that are meant.
    #[must_use]
    pub fn chosen(&self) -> Chosen {
        Chosen { ids: self.ids.clone(), filter: self.filter.clone(), all: self.all }
    }
}

/// A replay of one letter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OneAsked {
    /// Run it although it has finished, under a key of its own.
    pub force: bool,
    /// Run by this hook instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    pub to_hook: Option<String>,
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The closing of one letter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CloseAsked {
    /// Why; "operator resolved" if nothing is said.
    pub reason: String,
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What a replay would send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Preview {
    pub letters: usize,
    /// Them by cause.
    pub groups: Vec<Group>,
    /// Letters that are meant, those beyond the limit and those that cannot be sent too.
    pub matching: usize,
    /// Letters that cannot be sent as they are, as far as they were come to; the first thousand by name.
    pub refused: usize,
    pub refusals: Vec<Unsent>,
    /// What a filter means but for their state: replays of them are out already.
    pub out: usize,
    /// Asked for, and finished or closed.
    pub resolved: Vec<LetterId>,
    /// Asked for with force, and about whole messages, which cannot be forced.
    pub unforced: Vec<LetterId>,
    /// Asked for, and not there.
    pub unknown: Vec<LetterId>,
}

impl Preview {
    /// Of a replay that would send this, which is of these causes.
    #[must_use]
    pub fn new(sorted: Sorted, groups: Vec<Group>) -> Self {
        let Sorted { plan, matching, refused, refusals } = sorted;
        let Plan { picked, out, resolved, unforced, unknown } = plan;
        Self { letters: picked.len(), groups, matching, refused, refusals, out, resolved, unforced, unknown }
    }
}

/// A replay of many letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobShown {
    pub id: String,
    pub by: String,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// Whether it goes on.
    pub running: bool,
    #[serde(flatten)]
    pub progress: Progress,
}

/// Letters to be closed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResolveAsked {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<LetterId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Asked>,
    pub all: bool,
    /// Why; "operator resolved" if nothing is said.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl ResolveAsked {
    /// The letters that are meant.
    #[must_use]
    pub fn chosen(&self) -> Chosen {
        Chosen { ids: self.ids.clone(), filter: self.filter.clone(), all: self.all }
    }
}

/// How many letters were closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resolved {
    pub resolved: usize,
}

/// Other data for a letter's event: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EditAsked {
    /// The new data: JSON, or a text that is the JSON; for a letter without an event the whole new body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// An object to merge (RFC 7396) or a list of operations (RFC 6902).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl EditAsked {
    /// As it is worked with.
    ///
    /// # Errors
    /// Neither or both are given.
    pub fn edit(self) -> Result<Edit, OperationError> {
        match (self.data, self.patch) {
            (Some(Value::String(body)), None) => Ok(Edit::Data(body.into())),
            (Some(data), None) => Ok(Edit::Data(data.to_string().into())),
            (None, Some(patch)) => Ok(Edit::Patch(patch)),
            (None, None) => Err(OperationError::Invalid("expected `data` or `patch`, found neither".to_owned())),
            (Some(_), Some(_)) => Err(OperationError::Invalid("expected `data` or `patch`, found both".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen() {
        let asked = || Some(Asked { hook: Some("a".into()), ..Asked::default() });
        let check = |ids: &[&str], filter: Option<Asked>, all, expected: &str| {
            let ids = ids.iter().map(|&id| LetterId::from(id)).collect();
            let found = match (Chosen { ids, filter, all }).selection(7) {
                Ok(Selection::Ids(ids)) => format!("{} ids", ids.len()),
                Ok(Selection::Filter(filter)) => format!("hook {:?}", filter.hook.map(|hook| hook.as_str().to_owned())),
                Err(error) => error.to_string(),
            };
            assert!(found.contains(expected), "{found}");
        };
        check(&["1", "2"], None, false, "2 ids");
        check(&["1"], Some(Asked::default()), false, "1 ids");
        check(&[], asked(), false, "hook Some(\"a\")");
        check(&[], None, true, "hook None");
        check(&[], None, false, "found nothing");
        check(&[], Some(Asked::default()), false, "found nothing");
        check(&["1"], asked(), false, "found several");
        check(&[], asked(), true, "found several");
        let class = Some(Asked { class: Some("rejcted".into()), ..Asked::default() });
        check(&[], class, false, "`rejected`");
    }
}
