//! Which events a hook wants, how they are alike, and what it is called for people.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::domain::escape;
use crate::domain::expression::Expression;
use crate::domain::hook::OncePer;
use crate::domain::pattern::{Glob, Pattern, oddity};
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::duration;
use crate::yaml::value::{Value, all};

/// Far more than anybody writes by hand; each is compared with each.
const LIST_MAX: usize = 256;
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 30);
const LABELS_MAX: usize = 32;
const LABEL_NAME_BYTES_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 256;

/// One pattern or a list of them. One that another one makes superfluous is warned of.
pub(super) fn patterns(value: &Value<'_>) -> Option<Vec<Pattern>> {
    let read =
        |item: &Value<'_>| item.read(|text| Pattern::new(text).map_err(|sentence| Mismatch::from_sentence(&sentence)));
    let found = one_or_more(value, "event type or pattern", |item| Some((read(&item)?, item)))?;
    for (number, (pattern, item)) in found.iter().enumerate() {
        if let Some(odd) = oddity(pattern.as_str()) {
            let mismatch = Mismatch::new("a type as events have it, or a pattern with `*` and `**`");
            let found = format!("{odd} in `{}`", escape::name(pattern.as_str()));
            item.warn(mismatch.found(found).help("it matches only types that are written exactly so"));
        }
        let others = found.iter().enumerate().filter(|(other, _)| *other != number);
        // Of two that are the same the first one counts.
        let covering = others
            .filter(|(other, (covering, _))| covering.covers(pattern) && (*other < number || !pattern.covers(covering)))
            .map(|(_, (covering, _))| covering.as_str())
            .next();
        if let Some(covering) = covering {
            let (own, covering) = (escape::name(pattern.as_str()), escape::name(covering));
            let found = format!("`{own}`, which `{covering}` matches already");
            item.warn(Mismatch::new("patterns that each match something more").found(found));
        }
    }
    Some(found.into_iter().map(|(pattern, _)| pattern).collect())
}

/// One glob or a list of them.
pub(super) fn globs(value: &Value<'_>) -> Option<Vec<Glob>> {
    one_or_more(value, "glob", |item| {
        item.read(|text| Glob::new(text).map_err(|sentence| Mismatch::from_sentence(&sentence)))
    })
}

fn one_or_more<'a, T>(value: &Value<'a>, what: &str, mut read: impl FnMut(Value<'a>) -> Option<T>) -> Option<Vec<T>> {
    if !value.is_list() {
        return Some(vec![read(value.clone())?]);
    }
    let items = value.list(read)?;
    if items.is_empty() {
        value.wrong(Mismatch::new(format!("at least one {what}")).found("an empty list"));
    }
    if items.len() > LIST_MAX {
        value.wrong(Mismatch::new(format!("at most {LIST_MAX} of them")).found(items.len().to_string()));
        return None;
    }
    Some(items)
}

/// An expression in CEL.
pub(super) fn expression(text: &str) -> Result<Expression, Mismatch> {
    Ok(Expression::new(text)?)
}

pub(super) fn once_per(value: &Value<'_>) -> Option<OncePer> {
    let mut fields = value.fields()?;
    let key = fields.require("key").and_then(|key| key.read(expression));
    let window = fields.require("window").and_then(|window| window.read(duration(WINDOWS)));
    fields.end();
    Some(OncePer { key: key?, window: window? })
}

/// Labels, over those that are there by default.
pub(super) fn labels(value: &Value<'_>, default: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let own = all(value.entries()?.into_iter().map(|(key, value)| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        if key.name.is_empty() || key.name.len() > LABEL_NAME_BYTES_MAX || !key.name.bytes().all(legal) {
            let expected = format!("a name of at most {LABEL_NAME_BYTES_MAX} letters, digits, `.`, `_`, `-` or `/`");
            value.wrong_key(key, Mismatch::new(expected));
        }
        let label = value.read(|text| {
            if text.len() > LABEL_BYTES_MAX || text.chars().any(char::is_control) {
                return Err(Mismatch::new(format!("a line of at most {LABEL_BYTES_MAX} bytes")));
            }
            Ok(text.to_owned())
        });
        Some((key.name.clone(), label?))
    }))?;
    let labels: BTreeMap<_, _> = default.clone().into_iter().chain(own).collect();
    if labels.len() > LABELS_MAX {
        value.wrong(Mismatch::new(format!("at most {LABELS_MAX} labels")).found(labels.len().to_string()));
    }
    Some(labels)
}
