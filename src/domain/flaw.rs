//! Faults that the model makes on purpose, to show that it would notice them.
//!
//! Outside tests there is no flaw to choose, so every comparison with one folds away.

/// A mutation of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The protocol as it is.
    None,
    /// A settlement is written over another run's claim.
    #[cfg_attr(not(test), allow(dead_code, reason = "chosen by the model only"))]
    TokenNotCompared,
    /// A message for an attempt that is over is run again.
    #[cfg_attr(not(test), allow(dead_code, reason = "chosen by the model only"))]
    LowerAttemptRuns,
    /// A release forgets which attempt was under way.
    #[cfg_attr(not(test), allow(dead_code, reason = "chosen by the model only"))]
    ReleaseForgets,
    /// What follows is published before the settlement is recorded.
    #[cfg_attr(not(test), allow(dead_code, reason = "chosen by the model only"))]
    PublishBeforeRecord,
    /// The delivery is acked before what follows is confirmed.
    #[cfg_attr(not(test), allow(dead_code, reason = "chosen by the model only"))]
    AckBeforePublish,
}
