//! A fleet of stateless workers that run hooks.

pub mod domain;

pub mod yaml;

pub mod config;

pub mod broker;
pub mod catalog;
pub mod dead_letters;
pub mod idempotency;
