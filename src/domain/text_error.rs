//! Why a text of a hook is not what it should be.

/// What was expected, and what was found instead. Shows no more of the text than names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub expected: String,
    pub found: String,
    /// A name that does not exist, and those that do.
    pub unknown: Option<(String, &'static [&'static str])>,
}

impl Refusal {
    pub(super) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { expected: expected.into(), found: found.into(), unknown: None }
    }
}
