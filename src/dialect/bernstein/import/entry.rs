//! What is read of an entry, whatever surface it is of.

use super::draft::{Said, said};
use super::reference::Referring;
use super::scalar::Scalar;
use crate::domain::escape::quoted;
use crate::yaml::problem::Mismatch;
use crate::yaml::value::Value;

/// A field of a map, without a report if it is none.
pub(super) fn field<'v>(value: &Value<'v>, name: &str) -> Option<Value<'v>> {
    let entries = if value.is_map() { value.entries()? } else { return None };
    entries.into_iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
}

/// A field that has to be there.
pub(super) fn required<'v>(entry: &Value<'v>, name: &str) -> Option<Value<'v>> {
    let found = field(entry, name).filter(|value| !value.is_nothing());
    if found.is_none() {
        entry.wrong(Mismatch::new(format!("a field `{name}`")).found("none"));
    }
    found
}

/// A text that may have variables in it.
pub(super) fn referring(value: &Value<'_>, name: &str, remarks: &mut Vec<Said>) -> Option<Referring> {
    let Some(Scalar::Text(text)) = Scalar::of(value) else {
        value.wrong(Mismatch::new("a text"));
        return None;
    };
    put_in(value, &text, name, remarks)
}

/// What is a text in Python once it is made one.
pub(super) fn referring_shown(value: &Value<'_>, name: &str, remarks: &mut Vec<Said>) -> Option<Referring> {
    let Some(scalar) = Scalar::of(value) else {
        value.wrong(Mismatch::new("a text"));
        return None;
    };
    put_in(value, &scalar.shown(), name, remarks)
}

fn put_in(value: &Value<'_>, text: &str, name: &str, remarks: &mut Vec<Said>) -> Option<Referring> {
    match Referring::read(text) {
        Ok(referring) => {
            remarks.extend(referring.remark(name));
            Some(referring)
        }
        Err(mismatch) => {
            value.wrong(mismatch);
            None
        }
    }
}

/// The remark on a secret that stands in the file.
pub(super) fn literal(secret: &Referring, field: &str) -> Option<Said> {
    let change = format!("`{field}` stands in the file, and with it here");
    secret.is_literal.then(|| said(change, "put it into a variable, and write `${env:NAME}`"))
}

/// Remarks on the fields of an entry that Bernstein does not look at.
pub(super) fn unknown(entry: &Value<'_>, known: &[&str]) -> Vec<Said> {
    let keys = entry.entries().unwrap_or_default().into_iter().map(|(key, _)| key.name.clone());
    let others = keys.filter(|key| !known.contains(&key.as_str()));
    let remark = |key: String| {
        said(
            format!("Bernstein passes over the field {}, and so does this import", quoted(&key)),
            "look at what it was meant to do: it does nothing there",
        )
    };
    others.map(remark).collect()
}
