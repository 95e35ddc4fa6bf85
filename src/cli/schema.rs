//! `hookfleet schema`.

use super::output;

/// The JSON Schema of hooks files. Tests hold it against the reader, level by level.
const HOOKS: &str = include_str!("../../config/hooks.schema.json");

pub(super) fn run() {
    output::out(HOOKS);
}
