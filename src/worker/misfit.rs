//! Events whose data is not what their type declares, or not to be read where a hook asks for it.

use super::Worker;
use crate::broker::Delivery;
use crate::domain::dead_letter::{Letter, Record};
use crate::domain::event::Malformed;
use crate::domain::event_type::EventTypes;
use crate::domain::failure::Class;
use crate::domain::invocation::EventMessage;
use crate::telemetry::{Metric, now_ms};

impl Worker {
    /// Hooks ask for the data of an event, and it cannot be read: they would be passed over without a word. A letter says
    /// so; the hooks that ask for nothing run.
    pub(super) async fn tell_unreadable(&self, delivery: &Delivery, whole: &EventMessage) {
        let error = "hooks ask for its data by `when`, which is no JSON that can be read (a lone surrogate, a number \
                     beyond all bounds, or nested too deeply)";
        let malformed = Malformed::new(Class::Unreadable, error);
        let letter = Letter::of_event(whole, &malformed, delivery.queue.name(), now_ms());
        tracing::warn!(letter = %letter.id, event = whole.event.id, source = whole.event.source, error, "no readable event");
        self.meters.buried(Class::Unreadable, None);
        Box::pin(self.append(&Record::Letter(Box::new(letter)))).await;
    }

    /// Tells of an event that does not fit its type. Where the type is strict the event ends here, as a letter: true then.
    pub(super) async fn is_misfit(&self, delivery: &Delivery, whole: &EventMessage, types: &EventTypes) -> bool {
        let Some(misfit) = types.misfit(&whole.event) else { return false };
        let (id, source) = (&whole.event.id, &whole.event.source);
        let action = if misfit.strict { "buried" } else { "warned" };
        Metric::EventsMisfit.count(&[("type", misfit.on.clone()), ("action", action.to_owned())]);
        if !misfit.strict {
            self.meters.misfit_taken(&whole.event, &misfit);
            return false;
        }
        let malformed = Malformed::new(Class::Invalid, misfit.sentence());
        let letter = Letter::of_event(whole, &malformed, delivery.queue.name(), now_ms());
        tracing::warn!(letter = %letter.id, event = id, source, error = malformed.error, "no valid event");
        self.meters.buried(Class::Invalid, None);
        Box::pin(self.append(&Record::Letter(Box::new(letter)))).await; // few events end so: the others need no room for it
        self.broker.ack(delivery.receipt);
        true
    }
}
