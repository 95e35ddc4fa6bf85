//! Which letters somebody asks for, in words.

use std::str::FromStr as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::domain::browse::{Filter, States};
use crate::domain::dialect::Dialect;
use crate::domain::escape::quoted;
use crate::domain::failure::Class;
use crate::domain::pattern::Glob;
use crate::operations::OperationError;
use crate::yaml::scalar;

/// Longest time that is looked back.
const AGO_MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// Which letters: those that every given condition holds for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[schema(as = LetterFilter)]
pub struct Asked {
    /// Id of the hook; `*` is any run of characters, `?` any one, here and in `type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 1024)]
    #[param(min_length = 1, max_length = 1024)]
    pub hook: Option<String>,
    /// Type of the event.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 1024)]
    #[param(min_length = 1, max_length = 1024)]
    pub kind: Option<String>,
    /// Id of the event, or of the one that it was edited from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Why it became a letter, such as exhausted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline, value_type = Option<Class>)]
    #[param(inline, value_type = Option<Class>)]
    pub class: Option<String>,
    /// Dialect of the hook, such as kheish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// all, unresolved, open, replaying or resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(all|unresolved|open|replaying|resolved)$")]
    #[param(pattern = "^(all|unresolved|open|replaying|resolved)$")]
    pub state: Option<String>,
    /// A time (RFC 3339), or how long ago, such as `2h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d)|0|[0-9]{4}-.+)$")]
    #[param(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d)|0|[0-9]{4}-.+)$")]
    pub since: Option<String>,
    /// Written before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d)|0|[0-9]{4}-.+)$")]
    #[param(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d)|0|[0-9]{4}-.+)$")]
    pub until: Option<String>,
    /// Somewhere in error, target, or the event's id, source or subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The session that the event names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The run that the event names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The fingerprint of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl Asked {
    /// As it is worked with.
    ///
    /// # Errors
    /// One sentence: what was expected and what was found.
    pub fn filter(&self, now_ms: u64) -> Result<Filter, OperationError> {
        let read = || {
            let glob = |text: &Option<String>| text.as_deref().map(Glob::new).transpose();
            let time = |name: &str, text: &Option<String>| {
                text.as_deref().map(|text| time(text, now_ms).map_err(|error| format!("{name}: {error}"))).transpose()
            };
            Ok(Filter {
                hook: glob(&self.hook)?,
                kind: glob(&self.kind)?,
                event: self.event.clone(),
                class: self.class.as_deref().map(Class::named).transpose()?,
                dialect: self.dialect.as_deref().map(Dialect::named).transpose()?,
                states: self.state.as_deref().map(States::named).transpose()?.unwrap_or_default(),
                since_ms: time("since", &self.since)?,
                until_ms: time("until", &self.until)?,
                text: self.text.clone(),
                session: self.session.clone(),
                run: self.run.clone(),
                fingerprint: self.group.clone(),
            })
        };
        read().map_err(OperationError::Invalid)
    }
}

fn time(text: &str, now_ms: u64) -> Result<u64, String> {
    if let Ok(ago) = scalar::duration(Duration::ZERO..=AGO_MAX)(text) {
        return Ok(now_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)));
    }
    let time = jiff::Timestamp::from_str(text).ok().and_then(|time| u64::try_from(time.as_millisecond()).ok());
    time.ok_or_else(|| {
        format!("expected a time such as 2026-11-21T10:00:00Z, or how long ago, such as 2h, found {}", quoted(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(time(text, 10_000_000).ok(), expected, "{text}");
        check("1s", Some(9_999_000));
        check("2h", Some(2_800_000));
        check("1970-01-01T00:00:07Z", Some(7_000));
        check("1970-01-01T01:00:07+01:00", Some(7_000));
        for text in ["", "7", "yesterday", "-1s", "1969-01-01T00:00:00Z"] {
            check(text, None);
        }
    }
}
