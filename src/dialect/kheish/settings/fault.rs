//! What is wrong with settings.

use std::fmt;

use crate::dialect::json_text::{Spot, Way};
use crate::dialect::kheish::event_name::EventName;
use crate::domain::escape;

/// Longest message that is shown.
const CHARS_MAX: usize = 400;

/// What Kheish does about a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The file is no JSON.
    NotJson,
    /// It is JSON of another shape or version.
    Incompatible,
    /// A rule of their settings is broken: `invalid_hook_settings` of their API.
    Invalid,
    /// Kheish takes it, and drops a part of it in silence.
    Ambiguous,
}

impl FaultKind {
    /// What Kheish does with a file that has it.
    #[must_use]
    pub const fn consequence(self) -> &'static str {
        match self {
            Self::NotJson => "Kheish moves such a file aside and starts without hooks",
            Self::Incompatible | Self::Invalid => "Kheish starts with all hooks disabled on such a file",
            Self::Ambiguous => "Kheish takes the last one and drops those before it without a word",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// One sentence. Of a broken rule: as Kheish words it, with `{Event}[{index}]:{name}: ` before it.
    pub message: String,
    /// The way to it.
    pub way: Way,
    /// Where it stands, if it was read from a text: of very many faults, the first have it.
    pub spot: Option<Spot>,
}

impl Fault {
    pub(super) fn new(kind: FaultKind, way: &Way, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), way: way.clone(), spot: None }
    }

    /// What begins the message about a hook: `{Event}[{index}]:{name}`.
    #[must_use]
    pub fn said_of(event: &EventName, index: usize, name: &str) -> String {
        format!("{}[{index}]:{name}", event.pascal)
    }

    /// Whether it is a matter of one event or hook, so that the rest could do without that.
    #[must_use]
    pub fn is_of_one_event(&self) -> bool {
        matches!(self.kind, FaultKind::Incompatible | FaultKind::Invalid) && self.way.len() > 1
    }

    /// Whether a rule of their settings is broken, and their API would answer `invalid_hook_settings`.
    #[must_use]
    pub fn is_of_a_rule(&self) -> bool {
        self.kind == FaultKind::Invalid
    }

    /// The message, fit for a terminal.
    #[must_use]
    pub fn shown(&self) -> String {
        escape::sentence(&self.message, CHARS_MAX)
    }
}

impl fmt::Display for Fault {
    /// `12:9 (hooks.stop[0].name): MESSAGE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = self.way.to_string();
        match (&self.spot, way.is_empty()) {
            (Some(spot), true) => write!(f, "{}:{}: ", spot.line, spot.column)?,
            (Some(spot), false) => write!(f, "{}:{} ({way}): ", spot.line, spot.column)?,
            (None, true) => {}
            (None, false) => write!(f, "({way}): ")?,
        }
        f.write_str(&self.shown())
    }
}
