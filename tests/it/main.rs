//! All integration tests, in one program: real servers, the real binary.

mod commands;
mod conformance;
mod crash;
mod embedded;
mod faults;
mod fleet;
mod input;
mod pipeline;
mod publishing;
mod servers;
mod sink;
mod tidy;
