//! Where a log can be read again behind records that the broker cannot hand out. Pure: it names the next offset to look at,
//! and the reader looks there.

use crate::domain::dead_letter::Offset;

/// Farther than this no gap is looked over.
const FAR: u64 = 1 << 48;

/// What came of looking at a place of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// The record there, or the first one behind it that there is, is handed out.
    Readable,
    /// It is not.
    Withheld,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    Look(Offset),
    /// The log can be read from here on.
    Readable(Offset),
}

/// A gap in the log, as far as it is known. Its end is found by as few looks as it takes: one for a single record. The
/// record that is withheld may stand far behind the place that was asked for, where the log begins later. The log ends
/// with a record that is handed out, the barrier of this read.
#[derive(Debug, Clone)]
pub(super) struct Gap {
    begin: u64,
    step: u64,
    /// The last place that is known to be withheld, and the first one that is known not to be.
    bad: u64,
    good: Option<u64>,
}

impl Gap {
    /// Of a record that is withheld.
    pub(super) const fn at(withheld: Offset) -> Self {
        Self { begin: withheld.0, step: 1, bad: withheld.0, good: None }
    }

    /// Where to look, or the end of the gap.
    ///
    /// # Errors
    /// It has no end.
    pub(super) fn ahead(&self) -> Result<Ahead, String> {
        match self.good {
            None if self.step > FAR => Err(format!("the broker hands out nothing from offset {} on", self.begin)),
            None => Ok(Ahead::Look(Offset(self.begin.saturating_add(self.step)))),
            Some(good) if good - self.bad <= 1 => Ok(Ahead::Readable(Offset(good))),
            Some(good) => Ok(Ahead::Look(Offset(self.bad + (good - self.bad) / 2))),
        }
    }

    /// Takes in what looking there came to.
    pub(super) fn looked(&mut self, at: Offset, looked: Looked) {
        match looked {
            Looked::Readable => self.good = Some(at.0),
            Looked::Withheld => self.bad = at.0,
        }
        self.step *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a log that begins at `first`, with these records withheld: the place behind, and the looks that it took.
    fn check(from: u64, first: u64, withheld: std::ops::Range<u64>, expected: u64, looks: usize) {
        let (mut gap, mut looked) = (Gap::at(Offset(from)), 0);
        let found = loop {
            match gap.ahead().unwrap() {
                Ahead::Readable(end) => break end.0,
                Ahead::Look(at) => {
                    let is_withheld = withheld.contains(&at.0.max(first));
                    gap.looked(at, if is_withheld { Looked::Withheld } else { Looked::Readable });
                    looked += 1;
                }
            }
        };
        assert_eq!((found, looked), (expected, looks), "{from} {first} {withheld:?}");
    }

    #[test]
    fn gaps() {
        check(7, 0, 7..8, 8, 1);
        check(7, 0, 7..9, 9, 2);
        check(7, 0, 7..10, 10, 4);
        check(7, 0, 7..107, 107, 14);
        check(0, 1000, 1000..1001, 1001, 20); // the log begins later
    }

    #[test]
    fn a_log_that_is_withheld_to_its_end() {
        let mut gap = Gap::at(Offset(3));
        while let Ok(Ahead::Look(at)) = gap.ahead() {
            gap.looked(at, Looked::Withheld);
        }
        assert_eq!(gap.ahead(), Err("the broker hands out nothing from offset 3 on".to_owned()));
    }
}
