//! The contract layer: what a target gets for one attempt, and what it gives back, free of any transport.
//!
//! A [`Dialect`](super::dialect::Dialect) turns an invocation into an [`Exchange`]; an executor carries that to the target and brings back a [`Raw`]
//! reply; the dialect reads the reply. The rules of each dialect stand in `crate::dialect`; this file is their common shape.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::decision::{Answer, Json};
use super::event::Event;

/// A question to a gate. An observing hook is run without one.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What the gates before it have put in place of the event's data, if they have.
    pub input: Option<&'a Json>,
}

/// What an attempt was about, for who reads its reply.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub event: &'a Event,
    pub question: Option<&'a Question<'a>>,
}

/// What a target gets for one attempt, beside what its hook itself defines (URL, program, own headers and variables). A
/// transport takes the parts that it has a place for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange<'a> {
    /// The body of a request, or a program's stdin. Empty where the hook has a body of its own.
    pub body: Bytes,
    /// Headers that the hook may set to another value. Lower-case names.
    pub default_headers: Vec<(&'static str, Cow<'a, str>)>,
    /// Headers that replace those of the hook. Lower-case names.
    pub headers: Vec<(Cow<'static, str>, Cow<'a, str>)>,
    /// Environment variables of a program, over those of the hook.
    pub env: Vec<(Cow<'static, str>, Cow<'a, str>)>,
    /// Arguments behind those of the hook.
    pub args: Vec<Cow<'a, str>>,
    /// A program has ended when nothing writes to its outputs any more, and not before.
    pub ends_with_output: bool,
    /// The body of a successful reply is an answer. If it is not, such a reply is good once its head is there.
    pub reads_body: bool,
}

/// What a transport brought back from a target that answered. Failures to reach it never get here.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// An HTTP reply.
    Http {
        status: u16,
        /// The standard phrase of the status.
        reason: Option<&'static str>,
        /// `Retry-After`, as a wait from now on.
        retry_after: Option<Duration>,
        body: Body,
        /// Bytes of the request's body, as they were sent.
        sent: usize,
    },
    /// A program that ended by itself.
    Exit { code: i32, stdout: Body, stderr: Vec<u8> },
    /// An answer that needs no reading, or none at all.
    Value(Option<Box<Answer>>),
    /// A function of this program panicked.
    Panic,
}

/// What was read of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Whole(Vec<u8>),
    /// The beginning: the rest was not of interest.
    Beginning(Vec<u8>),
    /// The beginning: it is larger than the limit of so many bytes.
    TooLarge {
        beginning: Vec<u8>,
        bytes_max: usize,
    },
}

impl Body {
    /// What there is of it.
    #[must_use]
    pub fn beginning(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) | Self::Beginning(bytes) | Self::TooLarge { beginning: bytes, .. } => bytes,
        }
    }
}

/// What a target answered, if it was asked.
pub type Reply = Option<Box<Answer>>;
