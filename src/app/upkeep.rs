//! What a process forgets: hooks and targets that are gone, and their series of metrics.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::domain::matching::HookSet;
use crate::telemetry::Registry;
use crate::worker::admission::Admission;

/// Between two looks at what nobody uses any more.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// What is not in the catalog and has nothing under way is forgotten after this long.
const FORGET_AFTER: Duration = Duration::from_mins(10);

/// Forgets what is neither in the catalog nor, in a worker, under way. For ever.
pub(super) async fn forget(
    catalog: &watch::Receiver<Arc<HookSet>>,
    admission: Option<&Arc<Admission>>,
    metrics: &Registry,
) {
    loop {
        sleep(LOOK_EVERY).await;
        let hooks = catalog.borrow().clone();
        if let Some(admission) = admission {
            admission.forget(&hooks, FORGET_AFTER);
        }
        metrics.end_quiet(FORGET_AFTER, |label, value| {
            is_in_use(&hooks, label, value) || admission.is_some_and(|admission| admission.knows(label, value))
        });
    }
}

/// Whether a label of a metric stands for something of the catalog, or for nothing that comes and goes.
fn is_in_use(hooks: &HookSet, label: &str, value: &str) -> bool {
    match label {
        "hook" => value.is_empty() || hooks.get(value).is_some(),
        "type" => hooks.types().all().iter().any(|declared| declared.on.as_str() == value),
        "revision" => hooks.revision().to_string() == value,
        label => label != "target",
    }
}
