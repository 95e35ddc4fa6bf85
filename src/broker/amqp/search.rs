//! How a queue is searched for messages that the broker cannot hand out. Pure.
//!
//! A broker hands out first what came back to it, the oldest first; what ends a connection goes behind the rest of that. So
//! two ends in a row are of one message, as far as nobody else takes from the queue.

/// A queue is searched to the end once so many messages in a row were handed out: more than came back to it at the loss.
const CLEAN: u32 = 300;
/// The same of requests, which go round until then.
const CLEAN_UNLIMITED: u32 = 100;
/// Looks at an empty queue before it counts as such: a message that ended a connection takes a moment to come back.
const EMPTY: u32 = 10;
/// Ends after which a message is taken to have no limit of deliveries: more than our policies and RabbitMQ's default set.
const ENDS_MAX: u32 = 220;
/// The same in a queue that cannot have a limit.
const ENDS_MAX_UNLIMITED: u32 = 3;

/// What a look at the queue's head came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Got {
    Message,
    Nothing,
    /// The broker ended the connection.
    End,
    /// It did so to a look that removes what it finds.
    Removed,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Look,
    /// Look a moment later.
    Wait,
    /// Look in such a way that what is found is removed.
    Remove,
    Done,
}

/// A search under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Search {
    ends_max: u32,
    clean_max: u32,
    /// Since something was removed last.
    ends_of_one: u32,
    in_a_row: u32,
    clean: u32,
    empty: u32,
    /// Connections that the broker ended, messages that were handed out, and messages that were removed, in all.
    pub(super) ends: u32,
    pub(super) handed_on: u32,
    pub(super) removed: u32,
}

impl Search {
    /// Of a queue that may have a limit of deliveries, or cannot.
    pub(super) fn new(may_be_limited: bool) -> Self {
        let (ends_max, clean_max) =
            if may_be_limited { (ENDS_MAX, CLEAN) } else { (ENDS_MAX_UNLIMITED, CLEAN_UNLIMITED) };
        Self { ends_max, clean_max, ..Self::default() }
    }

    pub(super) fn next(&mut self, got: Got) -> Step {
        self.empty = if got == Got::Nothing { self.empty + 1 } else { 0 };
        match got {
            Got::Message => {
                self.handed_on += 1;
                self.clean += 1;
                self.in_a_row = 0;
                if self.clean >= self.clean_max { Step::Done } else { Step::Look }
            }
            Got::Nothing if self.empty >= EMPTY => Step::Done,
            Got::Nothing => Step::Wait,
            Got::End => {
                self.ends += 1;
                self.ends_of_one += 1;
                self.in_a_row += 1;
                self.clean = 0;
                if self.ends_of_one >= self.ends_max && self.in_a_row > 1 { Step::Remove } else { Step::Look }
            }
            Got::Removed => {
                self.removed += 1;
                (self.ends_of_one, self.in_a_row, self.clean) = (0, 0, 0);
                Step::Look
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps that follow from so many looks of each kind, one after the other; equal ones once.
    fn check(may_be_limited: bool, looks: &[(Got, u32)], expected: &[Step]) {
        let mut search = Search::new(may_be_limited);
        let mut steps = Vec::new();
        for (got, count) in looks {
            (0..*count).for_each(|_| steps.push(search.next(*got)));
        }
        steps.dedup();
        assert_eq!(steps, expected, "{looks:?}");
    }

    #[test]
    fn searches() {
        use Got::{End, Message, Nothing, Removed};
        use Step::{Done, Look, Remove, Wait};
        check(true, &[(Nothing, 9)], &[Wait]);
        check(true, &[(Nothing, 10)], &[Wait, Done]);
        check(true, &[(Nothing, 9), (Message, 1), (Nothing, 9)], &[Wait, Look, Wait]);
        check(true, &[(Message, 299)], &[Look]);
        check(true, &[(Message, 300)], &[Look, Done]);
        check(true, &[(Message, 299), (End, 1), (Message, 299)], &[Look]);
        check(true, &[(End, 201), (Message, 300)], &[Look, Done]); // set apart by the broker
        check(true, &[(End, 219)], &[Look]);
        check(true, &[(End, 220)], &[Look, Remove]);
        check(true, &[(End, 219), (Message, 1), (End, 1)], &[Look]); // whose end was that?
        check(true, &[(End, 219), (Message, 1), (End, 2)], &[Look, Remove]);
        check(true, &[(End, 220), (Removed, 1), (End, 219)], &[Look, Remove, Look]);
        check(false, &[(Message, 99)], &[Look]);
        check(false, &[(Message, 100)], &[Look, Done]);
        check(false, &[(End, 2)], &[Look]);
        check(false, &[(End, 3)], &[Look, Remove]);
    }
}
