//! The `hookfleet` program: parse, run, turn the result into an exit code.

use std::process::ExitCode;

use mimalloc::MiMalloc;

// A fifth of a worker's time went to the system's allocator: many small messages, each freed on its own. Without huge
// pages (`no_thp`), which cost a sixth more memory and gained nothing.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = hookfleet::executor::shim::serve() {
        return code;
    }
    let cli = match hookfleet::cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // One thread for everything but SQLite, DNS and the other cells: the fastest shape per core.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return hookfleet::cli::fail(&error.into()),
    };
    match runtime.block_on(hookfleet::cli::run(cli)) {
        Ok(code) => code,
        Err(error) => hookfleet::cli::fail(&error),
    }
}
