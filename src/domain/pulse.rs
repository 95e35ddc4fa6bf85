//! Whether the delay ladder carries what is put on it: probes go up, and come back or do not. Pure.
//!
//! The broker's own dead-lettering moves what waits. Where that stands still nothing is lost and nothing fails: retries just
//! never come. A probe that is out for two rounds tells.

/// Rounds after which a probe that is out is overdue. One may be a broker that has just come back.
const ROUNDS_MAX: u32 = 2;
/// Probes that are kept in mind: the newest of more than that say nothing new.
const OUT_MAX: usize = 16;

/// A probe that is out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Probe {
    name: String,
    at_ms: u64,
    rounds: u32,
}

/// The probes that are out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulse {
    out: Vec<Probe>,
}

impl Pulse {
    /// A probe of this name went up.
    pub fn sent(&mut self, name: String, now_ms: u64) {
        if self.out.len() < OUT_MAX {
            self.out.push(Probe { name, at_ms: now_ms, rounds: 0 });
        }
    }

    /// A probe came back, and with it the proof that those before it are not waited for.
    pub fn came_back(&mut self, name: &str) {
        if let Some(at) = self.out.iter().position(|probe| probe.name == name) {
            self.out.drain(..=at);
        }
    }

    /// All that has come back was taken in. Answers for how long nothing has come back that should have, in milliseconds; 0:
    /// nothing is overdue.
    pub fn round(&mut self, now_ms: u64) -> u64 {
        for probe in &mut self.out {
            probe.rounds += 1;
        }
        let oldest = self.out.first().filter(|probe| probe.rounds >= ROUNDS_MAX);
        oldest.map_or(0, |probe| now_ms.saturating_sub(probe.at_ms).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each round says; in a round a probe goes up at its end, and what stands here has come back before.
    fn check(rounds: &[&[u32]], expected: &[u64]) {
        let mut pulse = Pulse::default();
        let mut said = Vec::new();
        for (number, back) in (0u32..).zip(rounds) {
            back.iter().for_each(|name| pulse.came_back(&name.to_string()));
            said.push(pulse.round(u64::from(number) * 30));
            pulse.sent(number.to_string(), u64::from(number) * 30);
        }
        assert_eq!(said, expected, "{rounds:?}");
    }

    #[test]
    fn what_is_overdue() {
        check(&[&[], &[0], &[1], &[2]], &[0; 4]);
        check(&[&[], &[], &[0, 1], &[2]], &[0; 4]); // late once
        check(&[&[], &[0], &[], &[], &[]], &[0, 0, 0, 60, 90]);
        check(&[&[], &[], &[], &[], &[0, 1, 2, 3], &[4]], &[0, 0, 60, 90, 0, 0]);
        check(&[&[], &[], &[], &[2], &[3]], &[0, 0, 60, 0, 0]); // a newer one came back
        check(&[&[], &[9]], &[0, 0]);
    }

    #[test]
    fn the_first_that_is_out_is_kept_in_mind() {
        let mut pulse = Pulse::default();
        for number in 0..1000 {
            pulse.sent(number.to_string(), number);
            pulse.round(number);
        }
        assert_eq!((pulse.out.len(), pulse.round(5000)), (OUT_MAX, 5000));
    }
}
