//! Events whose data breaks the schema of their type, or cannot be read where a hook's condition needs them.

use super::Worker;
use crate::broker::Delivery;
use crate::domain::dead_letter::Letter;
use crate::domain::event::Malformed;
use crate::domain::event_type::EventTypes;
use crate::domain::failure::Class;
use crate::domain::invocation::EventMessage;
use crate::telemetry::{Metric, now_ms};

impl Worker {
    /// Dead-letters an event whose data hooks ask for by `when` and that cannot be read: those hooks would be passed over in
    /// silence. The hooks that ask for nothing run all the same.
    pub(super) async fn report_unreadable(&self, delivery: &Delivery, message: &EventMessage) {
        let error = "hooks ask for its data by `when`, which is no JSON that can be read (a lone surrogate, a number \
                     beyond all bounds, or nested too deeply)";
        let malformed = Malformed::new(Class::Unreadable, error);
        let letter = Letter::of_event(message, &malformed, delivery.queue.name(), now_ms());
        Box::pin(self.dead_letter(letter, "its data cannot be read")).await;
    }

    /// Counts an event that breaks the schema of its type. Where the type is strict the event ends here, as a dead letter:
    /// true then.
    pub(super) async fn violates_schema(
        &self,
        delivery: &Delivery,
        message: &EventMessage,
        types: &EventTypes,
    ) -> bool {
        let Some(misfit) = types.misfit(&message.event) else { return false };
        let action = if misfit.strict { "buried" } else { "warned" };
        Metric::EventsMisfit.count(&[("type", misfit.on.clone()), ("action", action.to_owned())]);
        if !misfit.strict {
            self.metrics.misfit_taken(&message.event, &misfit);
            return false;
        }
        let malformed = Malformed::new(Class::Invalid, misfit.sentence());
        let letter = Letter::of_event(message, &malformed, delivery.queue.name(), now_ms());
        // Few events end so: the others need no room for it.
        Box::pin(self.dead_letter(letter, "not what its type declares")).await;
        self.broker.ack(delivery.receipt);
        true
    }
}
