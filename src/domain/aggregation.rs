//! How the answers of many gates become one decision. Each dialect has its own way.

/// How the gates of one event are asked, which are those that match it in the order of the catalog. Their answers are merged
/// in that order, in whichever order they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aggregation {
    pub order: Order,
    /// A gate gets what the gates before it have put in place of the event's data. Gates that are asked at once do not.
    pub passes_input: bool,
}

/// In which order gates are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One after the other, up to the answer that ends it.
    InTurn(StopAt),
    /// All at once.
    AtOnce,
}

/// The answer after which no further gate is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAt {
    /// The first that denies, in whatever words, or wants no gate behind it to be asked.
    Denial,
    /// The first that blocks, or wants nothing to go on. That a permission is denied does not end it.
    Block,
    /// None: every gate is asked.
    Never,
}
