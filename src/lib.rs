//! A fleet of stateless workers that run hooks.

pub mod domain;

pub mod config;

pub mod embedded;

pub mod broker;
pub mod dead_letters;
pub mod idempotency;
