//! The exit codes of all commands: one table, for the program, `--help` and README.

use std::process::ExitCode;

use reqwest::StatusCode;

use super::answer::Refused;
use crate::amqp::connection::ConnectError;
use crate::amqp::management::ManagementError;
use crate::broker::PublishError;
use crate::catalog::apply;
use crate::catalog::revisions::RevisionsError;
use crate::flow::FlowError;
use crate::idempotency::StoreError;
use crate::operations::OperationError;
use crate::publish::{Undecided, Unpublished};
use crate::redis::error::Failure;
use crate::yaml::problem::Problems;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done,
    Failed,
    Denied,
    Ask,
    Usage,
    ServerAway,
    TryAgain,
}

/// The table, as `--help` shows it; README has the same lines.
pub(super) const TABLE: &str = "\
Exit codes:
  0   done; of decide: it may be done
  1   failed or refused; of doctor: there are problems
  2   denied by a gate
  3   somebody else is to be asked, or nothing is known of what was named
  64  wrong usage: arguments or settings
  69  a server is away
  75  not done in time: try again";

impl Exit {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Denied => 2,
            Self::Ask => 3,
            Self::Usage => 64,
            Self::ServerAway => 69,
            Self::TryAgain => 75,
        }
    }

    /// How a command ends that has failed with this error. The outermost cause that says something decides.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(known).unwrap_or(Self::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What was typed or set cannot work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Usage {
    #[error("{0}")]
    Sentence(String),
    #[error(transparent)]
    Settings(#[from] Problems),
}

/// An error of usage.
pub(super) fn usage(sentence: impl Into<String>) -> anyhow::Error {
    Usage::Sentence(sentence.into()).into()
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if cause.is::<Usage>() {
        return Some(Exit::Usage);
    }
    if let Some(Refused { status, .. }) = cause.downcast_ref() {
        return Some(of_status(*status));
    }
    if let Some(error) = cause.downcast_ref::<Unpublished>() {
        return Some(of_publishing(&error.error));
    }
    if let Some(error) = cause.downcast_ref::<reqwest::Error>() {
        return Some(if error.is_timeout() { Exit::TryAgain } else { Exit::ServerAway });
    }
    match cause.downcast_ref() {
        Some(apply::Refused::Blocked(_)) => return Some(Exit::Denied),
        Some(apply::Refused::Unasked(_)) => return Some(Exit::TryAgain),
        _ => {}
    }
    let is_away = matches!(cause.downcast_ref(), Some(ConnectError::Away(_)))
        || matches!(cause.downcast_ref(), Some(StoreError::Away(_) | StoreError::Timeout))
        || matches!(cause.downcast_ref(), Some(Failure::Away(_) | Failure::Timeout))
        || matches!(cause.downcast_ref(), Some(RevisionsError::Redis(Failure::Away(_) | Failure::Timeout)))
        || matches!(cause.downcast_ref(), Some(ManagementError::Away(_)))
        || matches!(cause.downcast_ref(), Some(OperationError::Away(_)))
        || matches!(cause.downcast_ref(), Some(Undecided::Unavailable(_)))
        || cause.is::<FlowError>();
    if is_away {
        return Some(Exit::ServerAway);
    }
    match (cause.downcast_ref(), cause.downcast_ref(), cause.downcast_ref()) {
        (Some(OperationError::Unknown(_)), _, _) | (_, Some(RevisionsError::Unknown(_)), _) => Some(Exit::Ask),
        (_, _, Some(Undecided::Unanswered(_))) => Some(Exit::TryAgain),
        _ => None,
    }
}

/// What a route has answered. Within this process 503 says that a server is away, elsewhere that its process cannot now.
fn of_status(status: StatusCode) -> Exit {
    match status {
        StatusCode::NOT_FOUND => Exit::Ask,
        StatusCode::SERVICE_UNAVAILABLE => Exit::ServerAway,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Exit::TryAgain,
        _ => Exit::Failed,
    }
}

fn of_publishing(error: &PublishError) -> Exit {
    match error {
        PublishError::Away(_) => Exit::ServerAway,
        PublishError::Unconfirmed | PublishError::Refused(_) => Exit::TryAgain,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::anyhow;

    use super::*;

    fn check(error: anyhow::Error, expected: Exit) {
        assert_eq!(Exit::of(&error), expected, "{error:#}");
        assert_eq!(Exit::of(&error.context("while doing something")), expected, "beneath a context");
    }

    #[test]
    fn errors_have_their_codes() {
        check(anyhow!("a sentence"), Exit::Failed);
        check(usage("no --type"), Exit::Usage);
        check(ConnectError::Away("dead".into()).into(), Exit::ServerAway);
        check(ConnectError::Settings("wrong password".into()).into(), Exit::Failed);
        check(Failure::Timeout.into(), Exit::ServerAway);
        check(RevisionsError::Redis(Failure::Away("dead".into())).into(), Exit::ServerAway);
        check(RevisionsError::Unknown(3).into(), Exit::Ask);
        check(Undecided::Unanswered(Duration::from_secs(1)).into(), Exit::TryAgain);
        check(Undecided::Unavailable("dead".into()).into(), Exit::ServerAway);
        check(Undecided::Refused("no".into()).into(), Exit::Failed);
        check(OperationError::Unknown("x".into()).into(), Exit::Ask);
        for (status, expected) in [
            (400, Exit::Failed),
            (404, Exit::Ask),
            (409, Exit::Failed),
            (422, Exit::Failed),
            (503, Exit::ServerAway),
            (504, Exit::TryAgain),
        ] {
            assert_eq!(of_status(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
        assert_eq!(of_publishing(&PublishError::Unconfirmed), Exit::TryAgain);
        assert_eq!(of_publishing(&PublishError::Away("dead".into())), Exit::ServerAway);
    }

    #[test]
    fn the_table_has_every_code_and_readme_has_the_table() {
        let readme = include_str!("../../README.md");
        let all = [Exit::Done, Exit::Failed, Exit::Denied, Exit::Ask, Exit::Usage, Exit::ServerAway, Exit::TryAgain];
        let lines: Vec<&str> = TABLE.lines().skip(1).map(str::trim).collect();
        assert_eq!(lines.len(), all.len());
        for (exit, line) in all.into_iter().zip(lines) {
            let (code, means) = line.split_once(' ').unwrap();
            assert_eq!(code, exit.code().to_string());
            assert!(readme.contains(&format!("| {code} | {} |", means.trim())), "README lacks {line}");
        }
    }
}
