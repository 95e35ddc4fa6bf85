//! How many deliveries of a queue fit its share of memory, by the moving mean of their sizes. Pure.
//!
//! The broker counts messages only: it knows no bound in bytes (`prefetch_size` is not implemented by RabbitMQ).

use super::super::Wanted;

/// Deliveries that a mean is made of before it counts; from then on the newest weighs as one of so many.
const SAMPLE: u32 = 16;
/// The size that is taken for granted before: the largest that events have by default.
const FIRST_GUESS: f64 = 1024.0 * 1024.0;
/// What a delivery takes beside its body, about.
const OVERHEAD: f64 = 4096.0;

/// The sizes of a queue's deliveries.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    mean: f64,
    seen: u32,
}

impl Window {
    /// A delivery with a body of so many bytes.
    #[expect(clippy::cast_precision_loss, reason = "a mean needs none")]
    pub(super) fn delivered(&mut self, bytes: usize) {
        self.seen = (self.seen + 1).min(SAMPLE);
        self.mean += (bytes as f64 + OVERHEAD - self.mean) / f64::from(self.seen);
    }

    /// The prefetch: as much as is wanted and fits, at least 1.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    pub(super) fn fitting(&self, wanted: &Wanted) -> u16 {
        let mean = if self.seen < SAMPLE { FIRST_GUESS } else { self.mean };
        (wanted.bytes as f64 / mean).clamp(1.0, f64::from(wanted.prefetch.max(1))) as u16
    }

    /// Whether what fits is so far from `prefetch` that the consumer is worth opening anew: sooner to need less memory
    /// than to use more.
    pub(super) fn has_outgrown(&self, prefetch: u16, wanted: &Wanted) -> bool {
        let fitting = self.fitting(wanted);
        let is_too_wide = u32::from(fitting) * 4 <= u32::from(prefetch) * 3;
        is_too_wide || fitting / 2 >= prefetch || (fitting > prefetch && fitting == wanted.prefetch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Queue;

    const MIB: usize = 1024 * 1024;

    /// What fits after so many deliveries of these sizes, of 100 within 8 MiB.
    fn check(sizes: &[(usize, usize)], expected: u16) {
        let mut window = Window::default();
        for (bytes, count) in sizes {
            (0..*count).for_each(|_| window.delivered(*bytes));
        }
        let wanted = Wanted { queue: Queue::Events, prefetch: 100, bytes: 8 * MIB };
        assert_eq!(window.fitting(&wanted), expected, "{sizes:?}");
    }

    #[test]
    fn what_fits() {
        check(&[], 8);
        check(&[(10, 15)], 8); // too few to say
        check(&[(10, 16)], 100);
        check(&[(1000, 1000)], 100);
        check(&[(100 * 1024, 16)], 78);
        check(&[(MIB, 16)], 7);
        check(&[(100 * MIB, 16)], 1);
        check(&[(10, 100), (MIB, 1)], 100); // one of them is no news
        check(&[(10, 100), (MIB, 32)], 9);
        check(&[(MIB, 100), (10, 100)], 100);
    }

    #[test]
    fn small_changes_are_not_worth_a_new_consumer() {
        let wanted = Wanted { queue: Queue::Events, prefetch: 100, bytes: 8 * MIB };
        let check = |bytes: usize, prefetch: u16, expected: bool| {
            let mut window = Window::default();
            (0..SAMPLE).for_each(|_| window.delivered(bytes));
            assert_eq!(window.has_outgrown(prefetch, &wanted), expected, "{bytes} {prefetch}");
        };
        check(200 * 1024, 40, false); // 40 fit
        check(200 * 1024, 50, false);
        check(200 * 1024, 53, false);
        check(200 * 1024, 54, true);
        check(200 * 1024, 21, false);
        check(200 * 1024, 20, true);
        check(10, 99, true);
        check(10, 100, false);
        check(100 * MIB, 1, false);
    }
}
