//! `hookfleet openapi`.

use super::output;
use crate::admin::api;

pub(super) fn run() -> anyhow::Result<()> {
    output::out(&serde_json::to_string_pretty(&api::document())?);
    Ok(())
}
