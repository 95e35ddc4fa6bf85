//! What attempts say of their target, and how many of them at a time it takes. Pure: the clock is an argument.

use super::outcome::{Again, NO_ROUTE, Outcome};

/// What an attempt says of its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers; refusals are answers.
    Well,
    Ill,
    /// Ill, and it says that fewer requests at a time would help (Standard Webhooks, "Handling failure").
    Overloaded,
    /// Nobody is to call it again (RFC 9110, 15.5.11).
    Gone,
}

impl Health {
    /// `None`: it says nothing. `one_url`: what it says, it says of every call of the hook.
    #[must_use]
    pub const fn of(outcome: &Outcome, one_url: bool) -> Option<Self> {
        let Outcome::Failed(failure) = outcome else {
            return if matches!(outcome, Outcome::Done) { Some(Self::Well) } else { None };
        };
        if !failure.of_target {
            return None;
        }
        match (failure.again, failure.status) {
            (Again::Later(_), Some(429 | 502 | 504)) => Some(Self::Overloaded),
            (Again::Later(_), Some(NO_ROUTE)) => Some(Self::Well), // other keys may have a queue
            (Again::Later(_), _) => Some(Self::Ill),
            (Again::Never(_), Some(410)) if one_url => Some(Self::Gone),
            (Again::Never(_), Some(_)) => Some(Self::Well),
            (Again::Never(_), None) => None,
        }
    }
}

/// The runs of a target at a time are halved at most this often.
const CUT_EVERY_MS: u64 = 1_000;
/// They are doubled again after this long without a sign of overload, step by step.
const EASE_EVERY_MS: u64 = 10_000;

/// How many runs at a time a target takes, by its own word. Times are milliseconds by any clock that nobody sets.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    halvings: u8,
    cut_ms: u64,
    /// The last word of it, or the last step back.
    heard_ms: u64,
}

impl Throttle {
    /// It told a run of a hook of this width that it is overloaded. Answers whether fewer may run from now on: a run that
    /// began before the last cut says nothing new, and one at a time is the least.
    pub fn overloaded(&mut self, began_ms: u64, now_ms: u64, width: usize) -> bool {
        self.heard_ms = now_ms + now_ms.saturating_sub(began_ms); // those that run now are heard of no sooner
        let anew = self.halvings == 0 || began_ms >= self.cut_ms && now_ms >= self.cut_ms + CUT_EVERY_MS;
        if !anew || self.width(width) <= 1 {
            return false;
        }
        self.halvings += 1;
        self.cut_ms = now_ms;
        true
    }

    /// Whether more may run from now on.
    pub const fn eased(&mut self, now_ms: u64) -> bool {
        if self.halvings == 0 || now_ms < self.heard_ms + EASE_EVERY_MS {
            return false;
        }
        self.halvings -= 1;
        self.heard_ms = now_ms;
        true
    }

    /// What is left of so many runs at a time: one at least.
    #[must_use]
    pub fn width(&self, width: usize) -> usize {
        width.checked_shr(self.halvings.into()).unwrap_or_default().max(width.min(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::Class;
    use crate::domain::outcome::Failure;

    #[test]
    fn outcomes_say_how_a_target_is() {
        assert_eq!(Health::of(&Outcome::Done, true), Some(Health::Well));
        assert_eq!(Health::of(&Outcome::later("reset"), true), Some(Health::Ill));
        assert_eq!(Health::of(&Outcome::never(Class::TargetBlocked, "x"), true), None);
        assert_eq!(Health::of(&Outcome::Interrupted, true), None);
    }

    #[test]
    fn statuses_say_how_a_target_is() {
        let (never, later) = (Again::Never(Class::Rejected), Again::Later(None));
        for (again, status, of_one_url, of_many) in [
            (never, 404, Health::Well, Health::Well),
            (never, 410, Health::Gone, Health::Well),
            (later, 429, Health::Overloaded, Health::Overloaded),
            (later, NO_ROUTE, Health::Well, Health::Well),
            (later, 502, Health::Overloaded, Health::Overloaded),
            (later, 503, Health::Ill, Health::Ill),
            (later, 504, Health::Overloaded, Health::Overloaded),
        ] {
            let failure = Failure::new(again, Some(status), "");
            let elsewhere = Outcome::Failed(Failure { of_target: false, ..failure.clone() });
            assert_eq!(Health::of(&elsewhere, true), None, "{status}");
            let outcome = Outcome::Failed(failure);
            let found = [true, false].map(|one_url| Health::of(&outcome, one_url));
            assert_eq!(found, [Some(of_one_url), Some(of_many)], "{status}");
        }
    }

    #[test]
    fn an_overloaded_target_gets_half_and_half_again() {
        let mut throttle = Throttle::default();
        let widths = |throttle: &Throttle| [64, 5, 1, 0].map(|width| throttle.width(width));
        assert!(!throttle.eased(0));
        assert!(throttle.overloaded(0, 0, 64));
        assert_eq!(widths(&throttle), [32, 2, 1, 0]);
        assert!(!throttle.overloaded(500, 999, 64), "too soon");
        assert!(throttle.overloaded(500, 1_000, 64));
        assert_eq!(widths(&throttle), [16, 1, 1, 0]);
        assert!(!throttle.overloaded(900, 60_000, 64), "it began before");
        assert!(!throttle.eased(129_099), "it answers after a minute");
        assert!(!throttle.overloaded(60_000, 60_000, 4), "this hook has one left");
        assert!(!throttle.eased(69_999));
        assert!(throttle.eased(70_000) && !throttle.eased(70_001));
        assert_eq!(widths(&throttle), [32, 2, 1, 0]);
        assert!(throttle.eased(80_000) && !throttle.eased(90_000));
        assert_eq!(widths(&throttle), [64, 5, 1, 0]);
        let cuts = (100..200).filter(|second| throttle.overloaded(second * 1_000, second * 1_000, 64)).count();
        assert_eq!((cuts, throttle.width(64), throttle.width(1 << 20)), (6, 1, 1 << 14));
    }
}
