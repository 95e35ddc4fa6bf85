//! The program as its next version will be, as far as messages go: for the test of both side by side.

#[path = "../src/main.rs"]
mod program;

fn main() -> std::process::ExitCode {
    program::main()
}
