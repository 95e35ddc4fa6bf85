//! The hook of a letter in the words of another system.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::dialect::Dialect;

/// What the system whose dialect a hook has says of it, as the hook was when it failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForeignHook {
    #[schema(value_type = String, example = "kheish")]
    pub dialect: Dialect,
    /// What the hook is called there.
    pub name: String,
    /// Whether its failure blocks what it is asked about.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fails_closed: bool,
    /// What it calls, safe to show.
    pub target: String,
    /// Digest of its definition there, in hexadecimal digits.
    pub definition: String,
}
