//! What has to hold of everything that reads what others have written, whatever they wrote.
//!
//! A check takes bytes and panics where something does not hold. libFuzzer calls it through `targets/`, the test
//! `tests/it/fuzz.rs` with every file of `corpus/`. `Cargo.toml` says how to fuzz.

mod condition;
mod event;
mod hooks;
mod input;
mod invocation;
mod letter;
mod redaction;
mod retry_after;

pub use condition::condition;
pub use event::event;
pub use hooks::hooks;
pub use invocation::invocation;
pub use letter::letter;
pub use redaction::redaction;
pub use retry_after::retry_after;

/// A check.
pub type Check = fn(&[u8]);

/// Every check, by the name of its target and of the folder of its corpus.
pub const ALL: [(&str, Check); 7] = [
    ("event", event),
    ("invocation", invocation),
    ("letter", letter),
    ("retry_after", retry_after),
    ("hooks", hooks),
    ("condition", condition),
    ("redaction", redaction),
];
