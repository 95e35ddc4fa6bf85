//! Two tiers of tests: what CI runs for every change, and everything.
//!
//! `tests/run` runs the tier of CI, `tests/run --all` everything. They differ in two ways, and `tests/run` prints both at
//! its end, so that nothing is left out in silence:
//!
//! - [`sizes`]: some tests do less in CI.
//! - Tests that are marked `#[ignore]` run in `--all` only: more faults of a family of which CI tries one, more storms, and
//!   what takes root.

pub(crate) mod sizes;

use std::path::{Path, PathBuf};
use std::process::Command;

/// `tests/run` prints these lines at its end.
#[test]
fn sizes_are_told() {
    for size in sizes::SIZES {
        assert!(size.in_ci < size.in_all, "{size:?}");
        println!("size: {} in place of {} {}", size.in_ci, size.in_all, size.what);
    }
}

/// A line that names no test any more says nothing of the test that it was written for.
#[test]
fn every_line_of_the_plan_names_a_test() {
    let listed = Command::new(std::env::current_exe().unwrap()).args(["--list", "--format", "terse"]).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    for (begin, _) in crate::servers::slots::PLAN {
        assert!(names.lines().any(|name| name.starts_with(begin)), "no test's name begins with {begin}");
    }
}

/// What a test may start without a word of [`TAKING`] before it, which takes its units.
const STARTING: [&str; 5] =
    ["Command::new(", "TcpListener::bind(", "UdpSocket::bind(", "Executors::new(", "Store::open("];
const TAKING: [&str; 6] = ["slots::take()", "Sink::start()", "Site::", "site(", "shared()", "free_port()"];

#[test]
fn nothing_starts_without_units() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut wrong = Vec::new();
    for path in sources(&folder) {
        let text = std::fs::read_to_string(&path).unwrap();
        let starts = STARTING.iter().find(|word| text.contains(**word));
        if let Some(word) = starts
            && !TAKING.iter().any(|word| text.contains(word))
        {
            wrong.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "without slots::take() or what calls it:\n{}", wrong.join("\n"));
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else {
            found.push(path);
        }
    }
    found
}
