//! Requests to gates: how long they may take, and how their answers find back.

use std::time::Duration;

use serde_json::json;

use super::message::{Asking, Destination, Message, Outgoing, Properties};

/// Header with the moment by which who asks needs the answer, in milliseconds since 1970 by the clock of who asks.
pub const DEADLINE: &str = "hookfleet-deadline";
/// The longest that a request may take: within RabbitMQ's `consumer_timeout` of 30 minutes.
pub const TIME_MAX: Duration = Duration::from_mins(20);
/// A request whose deadline has been over for longer than this when it arrives was not late: clocks differ.
const SKEW: Duration = Duration::from_secs(2);
/// The property `type` of an answer that is a decision.
const DECISION: &str = "hookfleet.decision";
/// Media type of an answer that says why there is none (RFC 9457).
const PROBLEM_JSON: &str = "application/problem+json";
/// Of what is left, this part is kept for what follows the last hook, up to [`MARGIN_MAX`].
const MARGIN_PART: u32 = 10;
const MARGIN_MAX: Duration = Duration::from_millis(500);

/// How long a request that has just arrived may take; `None`: nobody waits for it any more.
///
/// The broker hands out no request beyond its expiration. So where the deadline has been over for more than two seconds, or is
/// further away than the whole expiration, the clocks of both sides differ, and only the expiration counts: it is what can
/// be left at the most. In no case it is more than [`TIME_MAX`].
#[must_use]
pub fn time_left(request: &Message, default: Duration, now_ms: u64) -> Option<Duration> {
    let expiration = request.asking.as_ref().and_then(|asking| asking.expiration);
    let deadline = request.number(DEADLINE).and_then(|at_ms| u64::try_from(at_ms).ok());
    let left = deadline.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)));
    let over = deadline.map(|at_ms| Duration::from_millis(now_ms.saturating_sub(at_ms))).unwrap_or_default();
    let left = match (expiration, left) {
        (None, None) => Some(default),
        (Some(expiration), None) => Some(expiration),
        (Some(expiration), Some(left)) if over > SKEW || left > expiration => Some(expiration),
        (_, Some(left)) => Some(left).filter(|left| !left.is_zero()),
    };
    left.map(|left| left.min(TIME_MAX))
}

/// Of the time that is left, what hooks may take: who fails last has to be told of in time.
#[must_use]
pub fn time_of_hooks(left: Duration) -> Duration {
    left.saturating_sub((left / MARGIN_PART).min(MARGIN_MAX))
}

/// A decision for who has asked, if anybody waits for it.
#[must_use]
pub fn reply(asking: Option<&Asking>, decision: &str) -> Option<Outgoing> {
    answer(asking, "application/json", DECISION, decision.to_owned())
}

/// Why there is no decision, to who has asked: the request is no event, or one that nobody takes.
#[must_use]
pub fn refusal(asking: Option<&Asking>, detail: &str) -> Option<Outgoing> {
    let problem = json!({ "type": "about:blank", "title": "Unprocessable Content", "status": 422, "detail": detail });
    answer(asking, PROBLEM_JSON, "hookfleet.problem", problem.to_string())
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq)]
pub enum Answered {
    /// A decision, as JSON.
    Decision(String),
    /// There will be none, and why.
    Refused(String),
}

/// Reads an answer.
#[must_use]
pub fn read(answer: &Message) -> Answered {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.properties.content_type.as_deref() != Some(PROBLEM_JSON) {
        return Answered::Decision(text);
    }
    let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    Answered::Refused(problem["detail"].as_str().unwrap_or("it was refused").to_owned())
}

fn answer(asking: Option<&Asking>, content_type: &str, kind: &str, body: String) -> Option<Outgoing> {
    let asking = asking?;
    let to = asking.reply_to.clone().filter(|queue| !queue.is_empty())?;
    let properties = Properties {
        content_type: Some(content_type.to_owned()),
        kind: Some(kind.to_owned()),
        ..Properties::default()
    };
    let asking = Asking { correlation_id: asking.correlation_id.clone(), ..Asking::default() };
    let message = Message { body: body.into(), properties, asking: Some(asking), ..Message::default() };
    Some(Outgoing { to: Destination::Reply(to), delay: Duration::ZERO, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn check(expiration_ms: Option<u64>, deadline: Option<i64>, expected_ms: Option<u64>) {
        let asking = Asking { expiration: expiration_ms.map(Duration::from_millis), ..Asking::default() };
        let request = Message { asking: Some(asking), ..Message::default() };
        let request = match deadline {
            Some(at_ms) => request.with(DEADLINE, at_ms),
            None => request,
        };
        let left = time_left(&request, Duration::from_secs(30), NOW);
        assert_eq!(left.map(|left| left.as_millis()), expected_ms.map(u128::from));
    }

    #[test]
    fn how_long_a_request_may_take() {
        check(None, None, Some(30_000));
        check(Some(5_000), None, Some(5_000));
        check(Some(5_000), Some(1_003_000), Some(3_000)); // it has waited in the queue
        check(Some(5_000), Some(1_005_000), Some(5_000));
        check(Some(5_000), Some(1_900_000), Some(5_000)); // their clock is ahead
        check(Some(5_000), Some(900_000), Some(5_000)); // ours is
        check(Some(5_000), Some(1_000_000), None); // just over
        check(Some(5_000), Some(998_000), None);
        check(Some(5_000), Some(997_999), Some(5_000));
        check(Some(7_200_000), None, Some(1_200_000));
        check(None, Some(1_003_000), Some(3_000));
        check(None, Some(1_000_000), None);
        check(None, Some(900_000), None);
        check(None, Some(-1), Some(30_000));
    }

    #[test]
    fn time_is_kept_for_what_follows() {
        for (left_ms, hooks_ms) in [(0, 0), (100, 90), (1_000, 900), (5_000, 4_500), (60_000, 59_500)] {
            assert_eq!(time_of_hooks(Duration::from_millis(left_ms)).as_millis(), hooks_ms);
        }
    }

    #[test]
    fn answers_find_back() {
        let asking = Asking {
            reply_to: Some("amq.gen-1".into()),
            correlation_id: Some("7".into()),
            expiration: Some(Duration::from_secs(1)),
        };
        let Outgoing { to, message, .. } = reply(Some(&asking), r#"{"verdict":"allow"}"#).unwrap();
        assert_eq!(to, Destination::Reply("amq.gen-1".into()));
        let back = message.asking.clone().unwrap();
        assert_eq!((back.reply_to, back.correlation_id.as_deref(), back.expiration), (None, Some("7"), None));
        assert_eq!(read(&message), Answered::Decision(r#"{"verdict":"allow"}"#.into()));
        let refused = refusal(Some(&asking), "no event").unwrap().message;
        assert_eq!(read(&refused), Answered::Refused("no event".into()));
        assert_eq!(reply(Some(&Asking { reply_to: Some(String::new()), ..asking }), "{}"), None);
        assert_eq!(reply(None, "{}"), None);
    }
}
