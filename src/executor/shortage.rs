//! Shortages of this process or its machine: file handles, buffers, ports, memory. They say nothing of a target, so they
//! spend no attempt and count for no breaker.

use std::error::Error;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use tokio::time::{Instant, sleep, timeout_at};

use crate::domain::outcome::Outcome;
use crate::error_chain::causes;

/// Before something is tried again that a shortage was in the way of.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What is short, of a whole machine or of one process.
const SHORT: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::ADDRNOTAVAIL, Errno::NOMEM];

/// Whether an error comes of a shortage.
pub(super) fn is_shortage(error: &(dyn Error + 'static)) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| is_short(cause, &SHORT))
}

/// Whether a program could not be started for want of anything, processes included.
pub(super) fn is_shortage_of_processes(error: &io::Error) -> bool {
    is_shortage(error) || is_short(error, &[Errno::AGAIN])
}

fn is_short(error: &io::Error, of: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|code| of.iter().any(|short| short.raw_os_error() == code))
}

/// Whether this process can open no file just now. For errors that have lost their cause on the way: a name that cannot be
/// looked up for want of a socket is told as a name that is not known.
pub(super) fn has_no_handle() -> bool {
    File::open("/dev/null").is_err_and(|error| is_short(&error, &[Errno::MFILE, Errno::NFILE, Errno::NOMEM]))
}

/// Tries something again for as long as a shortage is in its way.
///
/// # Errors
/// The deadline has passed: [`Outcome::Interrupted`] if a shortage took of the time, else what `late` says.
pub(super) async fn outlasted<T, E, Attempt: Future<Output = Result<T, E>>>(
    hook: &str,
    deadline: Instant,
    attempt: impl Fn() -> Attempt,
    is_short: impl Fn(&E) -> bool,
    late: impl FnOnce() -> Outcome,
) -> Result<Result<T, E>, Outcome> {
    let was_short = AtomicBool::new(false);
    let tried = async {
        loop {
            match attempt().await {
                Err(error) if is_short(&error) => {
                    was_short.store(true, Ordering::Relaxed);
                    sleep(AGAIN_AFTER).await;
                }
                done => return done,
            }
        }
    };
    match timeout_at(deadline, tried).await {
        Ok(done) => Ok(done),
        Err(_) if was_short.load(Ordering::Relaxed) => {
            tracing::warn!(hook, "this process is short of file handles, ports or memory; no attempt is spent");
            Err(Outcome::Interrupted)
        }
        Err(_) => Err(late()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect")]
    struct Outer(#[source] io::Error);

    #[test]
    fn d3_shortages_are_ours() {
        let check = |errno: Errno, expected| {
            let inner = io::Error::from_raw_os_error(errno.raw_os_error());
            assert_eq!(is_shortage(&Outer(io::Error::new(inner.kind(), inner))), expected, "{errno:?}");
            let inner = io::Error::from_raw_os_error(errno.raw_os_error());
            assert_eq!(is_shortage(&Outer(inner)), expected, "{errno:?}");
        };
        for errno in SHORT {
            check(errno, true);
        }
        for errno in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::TIMEDOUT, Errno::AGAIN, Errno::NOENT] {
            check(errno, false);
        }
        assert!(is_shortage_of_processes(&io::Error::from_raw_os_error(Errno::AGAIN.raw_os_error())));
        assert!(!has_no_handle());
    }

    /// It is tried again until it works or fails, and beyond the deadline it is no failure of the target.
    #[tokio::test(start_paused = true)]
    async fn d3_a_shortage_spends_no_attempt() {
        let check = async |shortages: u32, then: Option<Errno>, expected: &str| {
            let count = AtomicU32::new(0);
            let attempt = || async {
                let before = count.fetch_add(1, Ordering::Relaxed);
                match then {
                    _ if before < shortages => Err(Errno::MFILE),
                    Some(Errno::INPROGRESS) => std::future::pending().await,
                    Some(errno) => Err(errno),
                    None => Ok(()),
                }
            };
            let late = || Outcome::later("late");
            let deadline = Instant::now() + Duration::from_secs(1);
            let ended = outlasted("h", deadline, attempt, |error| *error == Errno::MFILE, late).await;
            let ended = match ended {
                Ok(Ok(())) => "done",
                Ok(Err(_)) => "failed",
                Err(Outcome::Interrupted) => "interrupted",
                Err(_) => "late",
            };
            assert_eq!(ended, expected, "{shortages} {then:?}");
        };
        check(0, None, "done").await;
        check(3, None, "done").await;
        check(3, Some(Errno::CONNREFUSED), "failed").await;
        check(100, None, "interrupted").await;
        check(1, Some(Errno::INPROGRESS), "interrupted").await;
        check(0, Some(Errno::INPROGRESS), "late").await;
    }
}
