//! Faults that tests make on purpose, to show that they would notice them: the model, the simulation, and the tests that
//! kill real workers.

/// A mutation of the protocol. Workers have none, but for debug builds that are told to ([`crate::crash::flaw`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flaw {
    /// The protocol as it is.
    #[default]
    None,
    /// A settlement is written over another run's claim.
    TokenNotCompared,
    /// A message for an attempt that is over is run again.
    LowerAttemptRuns,
    /// A release forgets which attempt was under way.
    ReleaseForgets,
    /// What follows is published before the settlement is recorded.
    PublishBeforeRecord,
    /// The delivery is acked before what follows is confirmed.
    AckBeforePublish,
    /// A hook that a worker does not know is taken to be removed, whichever catalog the message is from.
    RevisionNotCompared,
    /// What waits for a hook that was removed is dropped without a letter.
    RemovedIsDropped,
}
