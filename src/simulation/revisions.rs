//! The catalog of a simulated fleet, which may change in the middle: workers learn of it at different moments.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::chance::Chance;
use super::process::Life;
use crate::domain::dialect::Dialect;
use crate::domain::expression::Expression;
use crate::domain::hook::{Hook, OncePer, fixture};
use crate::domain::matching::HookSet;
use crate::domain::retry::RetryPolicy;
use crate::domain::revision::BEHIND_MAX;

/// All events are alike for this hook: one in so long runs it.
pub(super) const STORMY: &str = "stormy";
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Every revision has these.
pub(super) const LASTING: [&str; 3] = ["patient", "narrow", STORMY];
/// The first revision has this one, and the second does not.
pub(super) const LEAVING: &str = "leaving";
/// The second revision has this one, and the first does not.
pub(super) const COMING: &str = "coming";
/// By then every worker that does not stand still has a revision.
pub(super) const LEARNT_AFTER: Duration = Duration::from_secs(20);

/// Which hooks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Revision {
    /// The lasting ones: nobody changes anything.
    Only,
    First,
    Second,
    /// What has left is brought back.
    Third,
}

/// The current revision of a fleet.
pub(super) struct Revisions {
    chance: Arc<Chance>,
    state: Mutex<State>,
}

struct State {
    current: Arc<HookSet>,
    /// When it changed first.
    changed_at: Option<Instant>,
    followers: Vec<Follower>,
}

/// What one worker knows of it.
#[derive(Clone)]
struct Follower {
    life: Life,
    hooks: watch::Sender<Arc<HookSet>>,
    /// Why it takes no work, if it takes none.
    halt: watch::Sender<Option<String>>,
}

impl Revisions {
    pub(super) fn new(begin: Revision, chance: Arc<Chance>) -> Self {
        let state = State { current: Arc::new(hooks(begin)), changed_at: None, followers: Vec::new() };
        Self { chance, state: Mutex::new(state) }
    }

    pub(super) fn changed_at(&self) -> Option<Instant> {
        self.state().changed_at
    }

    /// Makes this the current one. Workers follow some time later, each by itself.
    pub(super) fn apply(&self, revision: Revision) {
        let mut state = self.state();
        state.changed_at.get_or_insert_with(Instant::now);
        state.current = Arc::new(hooks(revision));
        state.followers.retain(|follower| !follower.life.is_over());
        for follower in state.followers.clone() {
            let takes = self.chance.learning(LEARNT_AFTER); // here: dice have an order
            tokio::spawn(follower.take(Arc::clone(&state.current), takes));
        }
    }

    /// A worker begins with what is current. Answers its hooks, and why it takes no work if it takes none.
    pub(super) fn follow(&self, life: Life) -> (watch::Receiver<Arc<HookSet>>, watch::Receiver<Option<String>>) {
        let mut state = self.state();
        let hooks = watch::Sender::new(Arc::clone(&state.current));
        let follower = Follower { life, hooks, halt: watch::Sender::new(None) };
        let known = (follower.hooks.subscribe(), follower.halt.subscribe());
        state.followers.push(follower);
        known
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// Who has known of a newer revision for too long takes no work until it has that.
    async fn take(self, newest: Arc<HookSet>, takes: Duration) {
        let at_work = takes.min(BEHIND_MAX);
        sleep(at_work).await;
        if at_work < takes {
            self.halt.send_replace(Some("it is behind".to_owned()));
            sleep(takes.saturating_sub(at_work)).await;
        }
        self.life.check().await;
        self.hooks.send_replace(newest);
        self.halt.send_replace(None);
    }
}

fn hooks(revision: Revision) -> HookSet {
    let hook = |id: &str, attempts: u32, concurrency: usize| Hook {
        dialect: Dialect::Native,
        name: None,
        matcher: None,
        identity: id.to_owned(),
        concurrency,
        timeout: Duration::from_mins(1),
        retry: RetryPolicy { attempts, initial: Duration::from_millis(700), ..RetryPolicy::default() },
        ..fixture::hook(id)
    };
    let once = OncePer { key: Expression::new("event.source").unwrap(), window: WINDOW };
    let stormy = Hook { once_per: Some(once), ..hook(STORMY, 3, 4) };
    let (leaving, coming) = (hook(LEAVING, 3, 2), hook(COMING, 3, 2));
    let mut hooks = vec![hook("patient", 5, 8), hook("narrow", 3, 1), stormy];
    let name = match revision {
        Revision::Only => "r",
        Revision::First => {
            hooks.push(leaving);
            "r1"
        }
        Revision::Second => {
            hooks.push(coming);
            "r2"
        }
        Revision::Third => {
            hooks.extend([leaving, coming]);
            "r3"
        }
    };
    HookSet::new(name, hooks)
}
