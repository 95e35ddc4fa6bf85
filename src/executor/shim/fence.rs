//! Fences around a program: limits, rights, files.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::domain::hook::Fences;

/// Puts up fences around this process and becomes the program; comes back only if it cannot.
pub(super) fn enter(mut arguments: impl Iterator<Item = OsString>) -> io::Error {
    let fences = arguments.next().and_then(|fences| serde_json::from_slice(fences.as_encoded_bytes()).ok());
    let (Some(fences), Some(program)) = (fences, arguments.next()) else {
        return io::Error::new(io::ErrorKind::InvalidInput, "expected fences and a program");
    };
    let mut program = Command::new(program);
    program.args(arguments); // before there may be no memory for it
    match put_up(&fences) {
        Ok(()) => program.exec(),
        Err(error) => error,
    }
}

/// Whether there is such a program, without trying to run it.
pub(super) fn find(program: &OsStr) -> io::Result<()> {
    let is_found = if program.as_encoded_bytes().contains(&b'/') {
        Path::new(program).exists()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into()); // as execvp has it
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    if is_found { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

#[cfg(target_os = "linux")]
fn put_up(fences: &Fences) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let processes = fences.limits.processes.map(|more| super::family::of_this_user() + more); // while /proc can be read
    if let Some(files) = &fences.files {
        landlocked(files)?;
    }
    if fences.no_new_privileges {
        rustix::thread::set_no_new_privs(true)?;
    }
    let limits = &fences.limits;
    // Memory comes last: this process has more of it already.
    for (resource, limit) in [
        (Resource::Nproc, processes),
        (Resource::Nofile, limits.files),
        (Resource::Cpu, limits.cpu_s),
        (Resource::As, limits.memory),
    ] {
        if let Some(limit) = limit {
            let limit = Some(getrlimit(resource).maximum.unwrap_or(u64::MAX).min(limit)); // no more than the worker may
            setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
        }
    }
    Ok(())
}

/// See landlock(7). A kernel that cannot take away what changes files (before 6.2: truncating them) is refused; rights
/// that it does not know besides are not taken away.
#[cfg(target_os = "linux")]
fn landlocked(files: &crate::domain::hook::Files) -> io::Result<()> {
    use landlock::{
        ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
        RulesetCreatedAttr as _,
    };
    let failed = |error: &dyn std::fmt::Display| io::Error::other(format!("its fence of files: {error}"));
    let all = AccessFs::from_all(ABI::V5);
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let ruleset = ruleset.handle_access(AccessFs::from_all(ABI::V3)).map_err(|error| failed(&error))?;
    let ruleset = ruleset.set_compatibility(CompatLevel::BestEffort).handle_access(all);
    let mut ruleset = ruleset.and_then(Ruleset::create).map_err(|error| failed(&error))?;
    let (read, write) = (AccessFs::from_read(ABI::V5), all);
    let paths = files.read.iter().map(|path| (path, read)).chain(files.write.iter().map(|path| (path, write)));
    for (path, access) in paths {
        let opened = PathFd::new(path).map_err(|error| failed(&error))?;
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(ABI::V5) };
        ruleset = ruleset.add_rule(PathBeneath::new(opened, access)).map_err(|error| failed(&error))?;
    }
    ruleset.restrict_self().map_err(|error| failed(&error))?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn put_up(_: &Fences) -> io::Result<()> {
    Err(io::Error::other("`limits`, `no_new_privileges` and `files` of commands need Linux"))
}
