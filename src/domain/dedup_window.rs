//! Of many events that are alike one runs a hook: it takes the window that they share.
//!
//! The window remembers whose it is, so that the event that took it goes on, however often it is delivered.

use super::event::Event;
use super::expression::Facts;
use super::hook::Hook;
use super::id::EventDigest;
use super::time::millis;

/// What events share that are alike for a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Names it among all hooks and keys.
    pub digest: EventDigest,
    /// From the moment that it is taken.
    pub length_ms: u64,
}

/// Whose a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Ours,
    Anothers,
}

impl Window {
    /// The window of an event at a hook, if the hook has any.
    ///
    /// # Errors
    /// The event has no key.
    pub fn of(hook: &Hook, event: &Event) -> Result<Option<Self>, String> {
        let Some(once) = &hook.once_per else { return Ok(None) };
        let key = once.key.key(&Facts::new(event))?;
        let digest = EventDigest::of(hook.id.as_str(), &key);
        Ok(Some(Self { digest, length_ms: millis(once.window) }))
    }
}
