//! All that descends from this process.

use std::collections::HashMap;

use rustix::process::{Pid, Signal, getpid, kill_process};

/// Looks for marked processes: those that were started during one are found by the next.
const ROUNDS: usize = 10;

/// Orphans among them become children of this process from now on.
pub(super) fn adopt() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(getpid())); // known to every Linux since 3.4
}

/// Kills them. Those that start others meanwhile are found by the next call; that one fails only for those that end just
/// now. Each is stopped first, so that one that starts others for ever gets no further.
pub(super) fn kill() {
    for signal in [Signal::STOP, Signal::KILL] {
        for pid in descendants() {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Kills all that have this variable, until there is nobody. Nothing where there is no /proc.
pub(in super::super) fn kill_marked(variable: &str) {
    for _ in 0..ROUNDS {
        let marked: Vec<Pid> =
            processes().filter(|(pid, _)| has(*pid, variable)).filter_map(|(pid, _)| Pid::from_raw(pid)).collect();
        if marked.is_empty() {
            return;
        }
        for signal in [Signal::STOP, Signal::KILL] {
            for pid in &marked {
                let _ = kill_process(*pid, signal);
            }
        }
    }
}

fn has(pid: i32, variable: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|found| found == variable.as_bytes())
}

/// Everybody whose parent is this process or one of them.
fn descendants() -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in processes() {
        children.entry(parent).or_default().push(pid);
    }
    let mut family = children.remove(&getpid().as_raw_pid()).unwrap_or_default();
    let mut at = 0;
    while let Some(parent) = family.get(at) {
        family.extend(children.remove(parent).unwrap_or_default());
        at += 1;
    }
    family.into_iter().filter_map(Pid::from_raw).collect()
}

/// Numbers of processes, and of their parents. Nothing where there is no /proc.
fn processes() -> impl Iterator<Item = (i32, i32)> {
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    numbers.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read(entry.path().join("stat")).ok()?;
        // The name may hold anything, parentheses too.
        let rest = &stat[stat.iter().rposition(|byte| *byte == b')')?..];
        let parent = std::str::from_utf8(rest).ok()?.split_whitespace().nth(2)?.parse().ok()?;
        Some((pid, parent))
    })
}

/// Processes and threads of this user.
#[cfg(target_os = "linux")]
pub(super) fn of_this_user() -> u64 {
    let user = rustix::process::getuid().as_raw().to_string();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let tasks = all.filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        if line("Uid:")? == user { line("Threads:")?.parse::<u64>().ok() } else { None }
    });
    tasks.sum()
}
