//! A fleet of stateless workers that run hooks.

pub mod domain;

pub mod yaml;

pub mod config;
pub mod crash;
pub mod telemetry;

pub mod amqp;
pub mod broker;
pub mod catalog;
pub mod dead_letters;
pub mod executor;
pub mod idempotency;

pub mod worker;

pub mod admin;
pub mod desk;
pub mod fleet;
pub mod publish;
