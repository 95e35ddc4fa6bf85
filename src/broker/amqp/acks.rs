//! Cumulative acks: one frame for a run of finished deliveries. Pure.
//!
//! Tags of a channel count up from 1 without gaps. Acks are cumulative as far as every earlier delivery is finished;
//! behind a slow head they are written one by one once they fill half the window, so that the queue goes on.

use std::collections::BTreeSet;

/// In a smaller window every place counts: nothing in it waits for its neighbours.
const SMALL_WINDOW: usize = 8;

/// One ack frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    pub(super) multiple: bool,
}

/// The finished deliveries of one channel.
#[derive(Debug)]
pub(super) struct Acks {
    /// The lowest tag that is neither finished nor acked.
    head: u64,
    /// Finished, not yet acked.
    finished: BTreeSet<u64>,
    /// Acked one by one, above the head.
    singled: BTreeSet<u64>,
    window: usize,
}

impl Acks {
    pub(super) fn new(prefetch: u16) -> Self {
        Self { head: 1, finished: BTreeSet::new(), singled: BTreeSet::new(), window: usize::from(prefetch) }
    }

    /// The delivery `tag` is to be acked.
    pub(super) fn finish(&mut self, tag: u64) {
        if tag >= self.head && !self.singled.contains(&tag) {
            self.finished.insert(tag);
        }
    }

    /// Whether so many are waiting that they are better written now than at the next tick.
    pub(super) fn is_pressing(&self) -> bool {
        self.finished.len() * 4 >= self.window
    }

    /// The frames to write now.
    pub(super) fn flush(&mut self) -> Vec<Ack> {
        let mut frames = Vec::new();
        let mut highest = None;
        loop {
            if self.finished.remove(&self.head) {
                highest = Some(self.head);
            } else if !self.singled.remove(&self.head) {
                break;
            }
            self.head += 1;
        }
        // Up to the highest finished one, never a singled one: the broker refuses a tag that it no longer knows.
        frames.extend(highest.map(|tag| Ack { tag, multiple: true }));
        if self.window < SMALL_WINDOW || self.finished.len() * 2 >= self.window {
            for tag in std::mem::take(&mut self.finished) {
                self.singled.insert(tag);
                frames.push(Ack { tag, multiple: false });
            }
        }
        frames
    }

    /// So many may be unacked from now on.
    pub(super) fn resize(&mut self, prefetch: u16) {
        self.window = usize::from(prefetch);
    }

    /// No more is coming: from now on everything finished is written, whatever is before it.
    pub(super) fn close_window(&mut self) {
        self.window = 0;
    }

    /// Whether anything waits to be written.
    pub(super) fn is_dirty(&self) -> bool {
        !self.finished.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(window: u16, rounds: &[(&[u64], &str)]) {
        let mut acks = Acks::new(window);
        for (tags, expected) in rounds {
            tags.iter().for_each(|&tag| acks.finish(tag));
            let frames: Vec<String> = acks
                .flush()
                .iter()
                .map(|ack| format!("{}{}", if ack.multiple { "..=" } else { "" }, ack.tag))
                .collect();
            assert_eq!(frames.join(" "), *expected, "{tags:?}");
        }
    }

    #[test]
    fn frames() {
        check(100, &[(&[1, 2, 3], "..=3"), (&[], ""), (&[5], ""), (&[4], "..=5")]);
        check(4, &[(&[2, 3], "2 3"), (&[1], "..=1"), (&[4], "..=4")]); // half the window waits behind 1
        check(4, &[(&[2, 3], "2 3"), (&[4, 1], "..=4")]);
        check(3, &[(&[3], "3"), (&[1, 2], "..=2")]);
        check(0, &[(&[5, 9], "5 9")]); // the window is closed
    }

    proptest! {
        /// Every tag is acked exactly once, none before it is finished, and no frame names an unknown tag.
        #[test]
        fn each_exactly_once(order in Just((1..=60u64).collect::<Vec<_>>()).prop_shuffle(), every in 1usize..9) {
            let mut acks = Acks::new(16);
            let (mut finished, mut acked) = (BTreeSet::new(), BTreeSet::new());
            for (count, &tag) in order.iter().enumerate() {
                acks.finish(tag);
                finished.insert(tag);
                if count % every != 0 && count != 59 { continue }
                for ack in acks.flush() {
                    prop_assert!(!acked.contains(&ack.tag));
                    let range = if ack.multiple { 1..=ack.tag } else { ack.tag..=ack.tag };
                    for tag in range {
                        prop_assert!(finished.contains(&tag));
                        acked.insert(tag);
                    }
                }
            }
            prop_assert_eq!(acked.len(), 60);
            prop_assert!(!acks.is_dirty());
        }
    }
}
