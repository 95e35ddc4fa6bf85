//! The subject of readiness and status: a process with workers, or the fleet.

use std::sync::Arc;

use super::fleet::Fleet;
use super::process::Process;

/// Whether the status has what Kheish's tools look for: the setting `http.kheish_api`.
#[derive(Debug, Clone, Copy)]
pub struct KheishApi(pub bool);

/// The subject of readiness and status.
#[derive(Clone)]
pub enum Source {
    /// This process, which has workers.
    Process(Arc<Process>),
    /// The fleet, of which this process is a server.
    Fleet(Arc<Fleet>),
}
