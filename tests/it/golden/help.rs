//! What the program prints about itself: help of every command, OpenAPI, the schema of hooks files, topology, settings.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use super::compare;
use crate::fleet::HOOKFLEET;
use crate::servers::slots;

/// The output of a command without any settings, which must succeed.
fn printed(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    slots::take();
    let mut command = Command::new(HOOKFLEET);
    command.args(arguments).env_clear().current_dir(folder.path()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && error.is_empty(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

/// The help of a command, and of those below it.
fn collect(path: &[&str], record: &mut String) {
    let help = printed(&[path, &["--help"]].concat());
    let command = [&["hookfleet"], path, &["--help"]].concat().join(" ");
    writeln!(record, "$ {command}\n{help}").unwrap();
    for name in commands(&help) {
        collect(&[path, &[name]].concat(), record);
    }
}

#[test]
fn help_of_every_command() {
    let mut record = String::new();
    collect(&[], &mut record);
    assert!(record.matches("\nUsage: ").count() > 30, "{record}");
    compare("help.txt", &record);
}

#[test]
fn the_openapi_document() {
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let document = printed(&["openapi"]);
    assert!(document.contains(&version));
    compare("openapi.json", &document.replace(&version, "\"version\": \"{version}\""));
}

#[test]
fn the_schema_of_hooks_files() {
    compare("schema.json", &printed(&["schema"]));
}

#[test]
fn the_topology() {
    compare("topology.txt", &printed(&["topology", "print"]));
}

#[test]
fn the_default_settings() {
    compare("settings.yaml", &printed(&["settings"]));
}
