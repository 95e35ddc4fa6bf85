//! A claim as text, the same in every store. Fields are separated by one space; the first is the state's letter.
//!
//! ```text
//! h GENERATION ATTEMPT DEATHS FLOOR_MS TOKEN          held
//! s GENERATION ATTEMPT DEATHS TOKEN r|b JSON          settled: a retry or a burial follows, as JSON
//! o GENERATION ATTEMPT DEATHS                         out
//! d GENERATION TOKEN                                  done
//! b GENERATION                                        buried, with a letter
//! b GENERATION c                                      buried: cancelled
//! v TOKEN JSON                                        decided
//! ```

use crate::domain::claim::{Claim, Next, Point, Token};

use super::StoreError;

/// The stored form of a claim.
#[must_use]
pub fn encode(claim: &Claim) -> String {
    match claim {
        Claim::Held { at, token, deaths, floor_ms } => {
            format!("h {} {} {deaths} {floor_ms} {token}", at.generation, at.attempt)
        }
        Claim::Settled { at, token, deaths, next } => {
            let kind = if next.is_bury() { 'b' } else { 'r' };
            format!("s {} {} {deaths} {token} {kind} {}", at.generation, at.attempt, next_json(next))
        }
        Claim::Out { at, deaths } => format!("o {} {} {deaths}", at.generation, at.attempt),
        Claim::Done { generation, token } => format!("d {generation} {token}"),
        Claim::Buried { generation, cancelled } => format!("b {generation}{}", if *cancelled { " c" } else { "" }),
        Claim::Decided { token, decision } => format!("v {token} {decision}"),
    }
}

/// What follows, as it stands in the value.
#[must_use]
pub fn next_json(next: &Next) -> String {
    serde_json::to_string(next).unwrap_or_default() // strings and numbers always serialize
}

/// Reads a stored claim.
///
/// # Errors
/// [`StoreError::Unreadable`] with the value, cut.
pub fn decode(text: &str) -> Result<Claim, StoreError> {
    parse(text).ok_or_else(|| StoreError::Unreadable(text.chars().take(80).collect()))
}

fn parse(text: &str) -> Option<Claim> {
    if let Some(decided) = text.strip_prefix("v ") {
        let (by, decision) = decided.split_once(' ')?;
        return Some(Claim::Decided { token: token(by)?, decision: decision.to_owned() });
    }
    let mut fields = text.splitn(7, ' ');
    let state = fields.next()?;
    let generation = fields.next()?.parse().ok()?;
    let mut number = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let claim = match state {
        "h" | "s" | "o" => {
            let at = Point { generation, attempt: number()?.try_into().ok()? };
            let deaths = number()?.try_into().ok()?;
            match state {
                "h" => {
                    let floor_ms = number()?;
                    Claim::Held { at, token: token(fields.next()?)?, deaths, floor_ms }
                }
                "s" => {
                    let token = token(fields.next()?)?;
                    let kind = fields.next()?;
                    let next: Next = serde_json::from_str(fields.next()?).ok()?;
                    let kinds_agree = (kind == "b") == next.is_bury();
                    return kinds_agree.then_some(Claim::Settled { at, token, deaths, next });
                }
                _ => Claim::Out { at, deaths },
            }
        }
        "d" => Claim::Done { generation, token: token(fields.next()?)? },
        "b" => match fields.next() {
            None => Claim::Buried { generation, cancelled: false },
            Some("c") => Claim::Buried { generation, cancelled: true },
            Some(_) => return None,
        },
        _ => return None,
    };
    fields.next().is_none().then_some(claim)
}

/// Reads a token as its `Display` writes it.
#[must_use]
pub fn token(text: &str) -> Option<Token> {
    let (run, body) = text.split_at_checked(16)?;
    if body.len() != 8 {
        return None;
    }
    Some(Token { run: u64::from_str_radix(run, 16).ok()?, body: u32::from_str_radix(body, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::AttemptReport;

    #[test]
    fn claims_keep_their_form() {
        let (at, token) = (Point { generation: 3, attempt: 7 }, Token { run: 0xab, body: 0xcd });
        let report = AttemptReport {
            generation: 0,
            attempt: 7,
            at_ms: 1,
            took_ms: 2,
            status: None,
            tries: 1,
            error: "a b  \"c\"".into(),
        };
        for claim in [
            Claim::Held { at, token, deaths: 1, floor_ms: 86_400_000 },
            Claim::Settled { at, token, deaths: 0, next: Next::poisoned() },
            Claim::Settled {
                at,
                token,
                deaths: 0,
                next: Next::Retry { delay_ms: 1, spent_ms: 2, report: Some(report) },
            },
            Claim::Out { at, deaths: 4 },
            Claim::Done { generation: 0, token },
            Claim::Buried { generation: 2, cancelled: false },
            Claim::Buried { generation: 2, cancelled: true },
            Claim::Decided { token, decision: "{\"reason\": \"a  b\"}".to_owned() },
        ] {
            assert_eq!(decode(&encode(&claim)).unwrap(), claim);
        }
    }

    #[test]
    fn strangers_are_refused() {
        for text in
            ["", "x", "h", "h 1 2", "d 0 zz", "b 1 2", "o 1 2 3 4", "s 0 1 0 00000000000000ab000000cd r {}", "v 0 {}"]
        {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
