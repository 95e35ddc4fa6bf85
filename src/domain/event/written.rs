//! An event that is made here, as CloudEvents' structured JSON (JSON event format 1.0.2, 3).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::dialect::Dialect;

/// What the event says. Attributes that are `None` are left out.
#[derive(Debug, Clone, Serialize)]
pub struct Written<'a> {
    pub specversion: &'static str,
    pub id: &'a str,
    pub source: &'a str,
    #[serde(rename = "type")]
    pub kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a str>,
    /// In RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    pub datacontenttype: &'static str,
    /// The dialect of the data, if it is another system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hookdialect: Option<Dialect>,
    /// Further attributes.
    #[serde(flatten)]
    pub attributes: BTreeMap<&'static str, String>,
    pub data: &'a RawValue,
}

impl<'a> Written<'a> {
    /// With what every event has.
    #[must_use]
    pub fn new(id: &'a str, source: &'a str, kind: &'a str, data: &'a RawValue) -> Self {
        Self {
            specversion: "1.0",
            id,
            source,
            kind,
            subject: None,
            time: None,
            datacontenttype: "application/json",
            hookdialect: None,
            attributes: BTreeMap::new(),
            data,
        }
    }

    /// The whole event. Each part of the data is as it was written.
    #[must_use]
    pub fn json(&self) -> Bytes {
        // Strings and checked JSON always serialize.
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }
}
