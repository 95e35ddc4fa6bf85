//! A worker's look at the policies of its broker: once when it starts, and every hour.
//!
//! It needs the management API and a user who may read it (tag `management`). Without them nothing is looked at, and
//! nothing else depends on it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use crate::amqp::management::Management;
use crate::amqp::policy::harm::{harms, untold};
use crate::amqp::policy::policies;
use crate::amqp::topology::Topology;
use crate::config::BrokerServer;
use crate::telemetry::Metric;

/// Between two looks; up to a tenth more, so that a fleet spreads.
const LOOK_EVERY: Duration = Duration::from_hours(1);

/// Before the next look while the broker does not tell all yet, and how often that is waited for.
const SOON: Duration = Duration::from_secs(3);
const SOON_MAX: u32 = 20;

/// Looks for policies that cost work, and logs each once while it is there. For ever.
pub(super) async fn watch(server: &BrokerServer, namespace: &str, retention: Duration) {
    let (topology, wanted) = (Topology::new(namespace), policies(namespace, retention));
    let (mut known, mut soon) = (BTreeSet::new(), 0);
    loop {
        let found = match Management::new(server).await {
            Ok(management) => management.in_force().await.map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => {
                known = told(&known, harms(&topology, &wanted, &found));
                if untold(&topology, &found) > 0 && soon < SOON_MAX {
                    soon += 1;
                    sleep(SOON).await;
                    continue;
                }
            }
            Err(reason) => tracing::debug!(reason, "the broker's policies are not looked at"),
        }
        soon = 0;
        sleep(LOOK_EVERY.mul_f64(1.0 + fastrand::f64() / 10.0)).await;
    }
}

/// Logs what is new and what is over; answers what is known now.
fn told(known: &BTreeSet<String>, harms: Vec<String>) -> BTreeSet<String> {
    let now: BTreeSet<String> = harms.into_iter().collect();
    for harm in now.difference(known) {
        tracing::error!(harm, "a policy of the broker costs work: `hookfleet doctor` says what to do");
    }
    for harm in known.difference(&now) {
        tracing::info!(harm, "a policy of the broker costs no more work");
    }
    #[allow(clippy::cast_precision_loss, reason = "some dozens at the most")]
    Metric::PoliciesHarmful.set(now.len() as f64);
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d2_what_is_over_is_forgotten() {
        let harms = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let known = told(&BTreeSet::new(), harms(&["a", "b"]));
        assert_eq!(known.len(), 2);
        assert_eq!(told(&known, harms(&["b"])), BTreeSet::from(["b".to_owned()]));
    }
}
