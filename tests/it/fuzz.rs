//! The corpora of the fuzz targets, replayed: what was found once is not found again.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[path = "../fuzz/checks.rs"]
#[allow(unreachable_pub, reason = "a crate of its own for the fuzzer")]
mod checks;

/// Far above what any file takes, far below what a quadratic one does.
const SLOW: Duration = Duration::from_secs(5);

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

#[test]
fn everything_in_the_corpora_holds() {
    let mut failed = Vec::new();
    for (target, check) in checks::ALL {
        for file in corpus(target) {
            let data = fs::read(&file).unwrap();
            let began = Instant::now();
            let held = catch_unwind(|| check(&data)).is_ok();
            if !held || began.elapsed() > SLOW {
                let how = if held { "is slow" } else { "does not hold" };
                failed.push(format!("{} {how}", file.display()));
            }
        }
    }
    assert!(failed.is_empty(), "see above for what was expected; see tests/fuzz:\n{}", failed.join("\n"));
}

/// A target without a corpus, and a corpus without a target, are both forgotten.
#[test]
fn every_target_has_a_corpus() {
    let names = |folder: &str| {
        let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(folder)).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| stem(entry.unwrap().path())).collect::<std::collections::BTreeSet<_>>()
    };
    let checks = checks::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("targets"), checks);
    assert_eq!(names("corpus"), checks);
}
