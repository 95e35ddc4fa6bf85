//! The seam to what a hook does: one attempt in, one [`Outcome`] out.
//!
//! A refusal, a panic and a target that never answers are outcomes, not errors. Nothing here knows of retries, claims
//! or brokers. Dropping a run stops it: the connection is closed, the process group killed. No order and no uniqueness
//! is promised; the receiver tells repeats by the idempotency key.

mod egress;
