//! States that differ only in names are one state: the model goes on with the one that is put in order.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::state::{Delivery, Job, Message, NO_TOKEN, State};
use crate::domain::fold;
use crate::domain::mutation::Mutation;
use crate::domain::settle::{Answer, Stage};

impl State {
    /// Forgets what is over, which worker and which hook is which, how runs are named, and the order of arrival.
    pub(super) fn put_in_order(&mut self, mutation: Mutation) {
        self.drop_what_is_over(mutation);
        self.sort();
        self.rename_runs();
        if let [one, other] = &self.keys[..] {
            let (one, other) = (digest(one), digest(other));
            let mirrored = if one < other { None } else { Some(self.mirrored()) };
            if let Some(mirrored) = mirrored.filter(|mirrored| one > other || digest(mirrored) < digest(self)) {
                *self = mirrored;
            }
        }
    }

    fn drop_what_is_over(&mut self, mutation: Mutation) {
        for worker in &mut self.workers {
            for delivery in worker.iter_mut() {
                for job in &mut delivery.jobs {
                    if !delivery.ours && job.stage == Stage::Acking {
                        job.advance(mutation, Answer::Acked); // no longer ours to ack
                    }
                }
                delivery.jobs.retain(|job| job.stage != Stage::Ended);
            }
            worker.retain(|delivery| delivery.ours || !delivery.jobs.is_empty());
        }
        for key in &mut self.keys {
            if let Some((top, state)) = key.fold {
                // Marks that would change nothing.
                let raises = |generation| (generation, fold::State::Replaying) > (top, state);
                let due = key.marks_due;
                key.marks_due = (0..u8::BITS).filter(|g| raises(*g)).map(|g| due & (1 << g)).sum();
            }
        }
    }

    fn sort(&mut self) {
        if self.faults_left == 0 {
            // Nothing will strike one worker and not the other.
            let [all, rest] = &mut self.workers;
            all.append(rest);
        }
        for worker in &mut self.workers {
            worker.sort_by_cached_key(|delivery| (nameless(delivery), digest(delivery)));
        }
        let rank = |worker: &Vec<Delivery>| (worker.iter().map(nameless).collect::<Vec<_>>(), digest(worker));
        let [one, other] = &self.workers;
        if one.is_empty() || !other.is_empty() && rank(one) > rank(other) {
            self.workers.swap(0, 1);
        }
        self.queue.sort_unstable();
    }

    /// Names the runs of each hook in the order in which they are met.
    fn rename_runs(&mut self) {
        for (hook, key) in self.keys.iter_mut().enumerate() {
            let mut met = Vec::new();
            let jobs = self.workers.iter_mut().flatten().flat_map(|delivery| &mut delivery.jobs);
            let jobs = jobs.filter(|job| job.of.hook == hook).flat_map(Job::tokens);
            for token in key.tokens().chain(jobs).filter(|token| **token != NO_TOKEN) {
                if !met.contains(token) {
                    met.push(*token);
                }
                token.run = (1..).zip(&met).find(|(_, name)| **name == *token).map_or(0, |(run, _)| run);
            }
        }
    }

    /// The same state with the two hooks' names exchanged.
    fn mirrored(&self) -> Self {
        let mut mirrored = self.clone();
        mirrored.keys.swap(0, 1);
        mirrored.queue.iter_mut().for_each(mirror);
        for delivery in mirrored.workers.iter_mut().flatten() {
            let Delivery { message, jobs, .. } = delivery;
            mirror(message);
            for job in jobs.iter_mut() {
                job.of.hook = 1 - job.of.hook;
            }
            jobs.sort_by_key(|job| job.of.hook);
        }
        mirrored.sort();
        mirrored.rename_runs();
        mirrored
    }
}

fn mirror(message: &mut Message) {
    if let Message::Invocation(invocation) = message {
        invocation.hook = 1 - invocation.hook;
    }
}

/// What a delivery is but for the names of its runs: what is sorted by that keeps its place when they are renamed.
fn nameless(delivery: &Delivery) -> u64 {
    let mut hasher = DefaultHasher::new();
    (delivery.message, delivery.ours).hash(&mut hasher);
    for job in &delivery.jobs {
        (job.of, job.guarded, std::mem::discriminant(&job.stage)).hash(&mut hasher);
    }
    hasher.finish()
}

pub(super) fn digest<T: Hash>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
