//! How long a token is used. Pure: times are milliseconds by any clock that nobody sets.

use std::time::Duration;

/// Of a token whose server does not say how long it lasts (RFC 6749, 5.1 only recommends it).
pub const LIFE_UNSAID: Duration = Duration::from_mins(5);
/// No token is kept for longer.
const LIFE_MAX_MS: u64 = 24 * 3_600_000;
/// A token is renewed this long before its end, or a tenth of its life if that is less.
const MARGIN_MAX_MS: u64 = 60_000;
/// Before a renewal that failed is tried again, while the old token lasts.
pub const RENEW_AGAIN: Duration = Duration::from_secs(5);
/// A younger token that a receiver refuses is not replaced: the next one would be no better.
const YOUNG_MS: u64 = 1_000;

/// What is to be done about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is used.
    Fresh,
    /// It is used, and somebody gets the next one.
    Renew,
    /// It is not used any more.
    Over,
}

/// From when to when a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the unit of each")]
pub struct Life {
    granted_ms: u64,
    renew_ms: u64,
    end_ms: u64,
}

impl Life {
    /// Of a token that was asked for and granted then. Its life counts from the moment of the request, since nobody knows
    /// when between both the server has begun to count.
    #[must_use]
    pub fn new(asked_ms: u64, granted_ms: u64, expires_in: Option<u64>) -> Self {
        let life_ms = expires_in.unwrap_or(LIFE_UNSAID.as_secs()).saturating_mul(1_000).min(LIFE_MAX_MS);
        let end_ms = asked_ms.saturating_add(life_ms);
        Self { granted_ms, renew_ms: end_ms - MARGIN_MAX_MS.min(life_ms / 10), end_ms }
    }

    /// `put_off_ms`: no renewal before then.
    #[must_use]
    pub const fn standing(&self, now_ms: u64, put_off_ms: u64) -> Standing {
        if now_ms >= self.end_ms {
            Standing::Over
        } else if now_ms >= self.renew_ms && now_ms >= put_off_ms {
            Standing::Renew
        } else {
            Standing::Fresh
        }
    }

    /// Whether another token may help an attempt that began then and whose receiver has refused this one: not if it was
    /// granted just now.
    #[must_use]
    pub const fn is_worth_another(&self, began_ms: u64, now_ms: u64) -> bool {
        self.granted_ms < began_ms && now_ms >= self.granted_ms.saturating_add(YOUNG_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_ends_and_never_used_after() {
        use Standing::{Fresh, Over, Renew};
        let check = |expires_in: Option<u64>, expected: &[(u64, Standing)]| {
            let life = Life::new(1_000, 1_500, expires_in);
            for (after_ms, standing) in expected {
                assert_eq!(life.standing(1_000 + after_ms, 0), *standing, "{expires_in:?} after {after_ms} ms");
            }
        };
        check(
            Some(3_600),
            &[(0, Fresh), (3_539_999, Fresh), (3_540_000, Renew), (3_599_999, Renew), (3_600_000, Over)],
        );
        check(Some(600), &[(539_999, Fresh), (540_000, Renew), (600_000, Over)]);
        check(Some(10), &[(8_999, Fresh), (9_000, Renew), (9_999, Renew), (10_000, Over)]);
        check(Some(1), &[(899, Fresh), (900, Renew), (1_000, Over)]);
        check(Some(0), &[(0, Over)]);
        check(None, &[(269_999, Fresh), (270_000, Renew), (300_000, Over)]);
        check(Some(u64::MAX), &[(LIFE_MAX_MS - 60_001, Fresh), (LIFE_MAX_MS, Over)]);
    }

    #[test]
    fn a_renewal_that_failed_is_put_off() {
        let life = Life::new(0, 0, Some(600));
        assert_eq!(life.standing(550_000, 555_000), Standing::Fresh);
        assert_eq!(life.standing(555_000, 555_000), Standing::Renew);
        assert_eq!(life.standing(600_000, 605_000), Standing::Over);
    }

    #[test]
    fn a_refused_token_is_replaced_unless_it_is_new() {
        let life = Life::new(900, 1_000, Some(600));
        let check = |began_ms, now_ms, expected| assert_eq!(life.is_worth_another(began_ms, now_ms), expected);
        check(5_000, 5_001, true);
        check(1_001, 2_000, true);
        check(1_001, 1_999, false); // young
        check(1_000, 9_000, false); // granted to this attempt, or while it waited
        check(500, 9_000, false);
    }
}
