//! `hookfleet openapi`.

use super::output;
use crate::http::openapi;

pub(super) fn run() -> anyhow::Result<()> {
    output::out(&serde_json::to_string_pretty(&openapi::document())?);
    Ok(())
}
