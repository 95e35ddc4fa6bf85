//! What a process keeps of one hook: its permits, its rate, its share, its target.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until};
use utoipa::ToSchema;

use super::permits::{OwnPermit, Permits};
use super::ration::Ration;
use super::share::Share;
use super::target::{STRIKES, Target};
use crate::domain::flow::Rate;
use crate::domain::health::Health;
use crate::domain::hook::{Hook, HookLane, Mode};
use crate::domain::id::HookId;
use crate::domain::message::Lane;
use crate::domain::outcome::Outcome;
use crate::flow::Failing;
use crate::worker::metrics::HookMetrics;

/// The runs of one lane.
pub(super) struct LaneGate {
    permits: Arc<Semaphore>,
    /// Those of them that runs at targets which are not proven may take, so that thousands of dead ones leave room for
    /// the others.
    unproven: Arc<Semaphore>,
    width: usize,
    /// Runs that have gone on for long.
    long: AtomicUsize,
}

impl LaneGate {
    pub(super) fn new(width: usize, unproven: usize) -> Self {
        let unproven = Arc::new(Semaphore::new(unproven.clamp(1, width.max(1))));
        Self { permits: Arc::new(Semaphore::new(width)), unproven, width, long: AtomicUsize::new(0) }
    }
}

/// One hook.
pub struct Gate {
    hook: HookId,
    lane: HookLane,
    /// Somebody waits for what it says.
    decides: bool,
    /// Since when this process has known that the hook is paused.
    paused: Option<Instant>,
    permits: Arc<Permits>,
    of_lane: Arc<LaneGate>,
    /// It calls one URL, whatever the event.
    pub(super) calls_one_url: bool,
    rate: Option<Rate>,
    /// Slots in hand; held while the next one is waited for, so that all take their turn.
    slots: tokio::sync::Mutex<Hand>,
    share: Option<Share>,
    pub(super) target: Arc<Target>,
    /// Its own attempts that have failed since the last one that did not.
    strikes: AtomicU32,
    /// All its attempts that have failed since the last one that did not, refusals among them.
    failed_in_a_row: AtomicU64,
    long: AtomicUsize,
    waiting: AtomicUsize,
    pub(in crate::worker) metrics: HookMetrics,
}

/// Slots of a rate that this worker has reserved.
struct Hand {
    next: Instant,
    left: u32,
}

/// What was found at a gate.
pub(super) enum Take {
    Taken(Permit),
    /// It is to be waited for.
    Later,
    /// Waiting would be of no use.
    Refused,
}

/// How a hook is doing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct GateStatus {
    pub hook: String,
    pub lane: &'static str,
    pub running: usize,
    /// In memory, for a permit, a slot or a share.
    pub waiting: usize,
    /// Runs at a time that the fleet grants this worker, where there is a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<u32>,
    /// Runs at a time that it has left while its target answers 429, 502 or 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub narrowed_to: Option<usize>,
    /// Its target has not succeeded yet, or not of late: it shares a part of its lane with others of the kind.
    pub unproven: bool,
    /// Its breaker is open, and holds it back.
    pub parked: bool,
    /// It is paused in the catalog: what comes for it is parked.
    pub paused: bool,
}

impl Gate {
    pub(super) fn new(hook: &Hook, of_lane: Arc<LaneGate>, target: Arc<Target>) -> Self {
        let permits = Arc::new(Permits::new(hook.concurrency));
        permits.narrow_to(target.width(hook.concurrency));
        Self {
            hook: hook.id.clone(),
            lane: hook.lane,
            decides: hook.mode != Mode::Observe,
            paused: hook.paused.then(Instant::now),
            permits,
            of_lane,
            calls_one_url: hook.action.calls_one_url(),
            rate: hook.rate,
            slots: tokio::sync::Mutex::new(Hand { next: Instant::now(), left: 0 }),
            share: hook.concurrency_fleet.map(Share::new),
            target,
            strikes: AtomicU32::new(0),
            failed_in_a_row: AtomicU64::new(0),
            long: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            metrics: HookMetrics::new(&hook.id),
        }
    }

    /// Whether the hook still has this capacity.
    pub(super) fn is_of(&self, hook: &Hook) -> bool {
        let limit = self.share.as_ref().map(Share::limit);
        self.permits.width() == hook.concurrency
            && self.lane == hook.lane
            && self.decides == (hook.mode != Mode::Observe)
            && self.paused.is_some() == hook.paused
            && self.rate == hook.rate
            && limit == hook.concurrency_fleet
            && self.target.name() == hook.identity
    }

    /// How long it waits behind a pause: about as long as that has been known, so that little is sent about in vain.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.paused.map(|since| since.elapsed().max(Duration::from_millis(1)))
    }

    /// Whether an open breaker of its target holds it back. A hook that decides is asked all the same until its own last
    /// attempts have failed: a breaker that others have opened says little of it, and passing it over is a decision.
    pub(super) fn is_held_back(&self) -> bool {
        !self.decides || self.strikes.load(Ordering::Relaxed) >= STRIKES
    }

    /// One of its own attempts said this of its target.
    pub(super) fn ended(&self, health: Health) {
        if health == Health::Well {
            self.strikes.store(0, Ordering::Relaxed);
        } else if !self.is_held_back() {
            self.strikes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An attempt came to this.
    pub(super) fn attempted(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Done => self.failed_in_a_row.store(0, Ordering::Relaxed),
            Outcome::Failed(_) => drop(self.failed_in_a_row.fetch_add(1, Ordering::Relaxed)),
            Outcome::Interrupted => {}
        }
    }

    /// What is to be said of it if its last attempts, at least so many, have all failed.
    pub(super) fn failing(&self, least: u64) -> Option<Failing> {
        let attempts = self.failed_in_a_row.load(Ordering::Relaxed);
        let parked = self.target.is_open() && self.is_held_back();
        (attempts >= least).then(|| Failing { hook: self.hook.to_string(), attempts, parked })
    }

    /// Its overflow queue.
    #[must_use]
    pub fn overflow(&self) -> Lane {
        self.lane.overflow(&self.hook)
    }

    /// What can be had without waiting. Runs that go on for long may fill half of a lane: then their hooks get no more.
    /// `at_leisure`: it may wait for long.
    pub(super) fn take(self: &Arc<Self>, at_leisure: bool) -> Take {
        let long_in_lane = self.of_lane.long.load(Ordering::Relaxed);
        if self.long.load(Ordering::Relaxed) > 0 && long_in_lane * 2 >= self.of_lane.width {
            return Take::Refused;
        }
        let unproven = if self.target.is_proven() {
            None
        } else {
            match Arc::clone(&self.of_lane.unproven).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) if at_leisure => return Take::Later,
                Err(_) => return Take::Refused, // there may be thousands of its kind
            }
        };
        if self.rate.is_some() {
            return Take::Later; // slots are given out in order
        }
        let own = self.permits.try_take();
        let lane = Arc::clone(&self.of_lane.permits).try_acquire_owned();
        let (Ok(own), Ok(lane)) = (own, lane) else { return Take::Later };
        if self.share.as_ref().is_some_and(|share| !share.take()) {
            return Take::Later;
        }
        Take::Taken(self.permit(own, unproven, lane))
    }

    /// Waits for everything that a run needs. Cancel-safe.
    pub(super) async fn wait(self: &Arc<Self>, ration: &Ration) -> Option<Permit> {
        let _waiting = Counted::new(&self.waiting);
        let own = self.permits.take().await.ok()?;
        if let Some(rate) = self.rate {
            self.slot(rate, ration).await;
        }
        let unproven = if self.target.is_proven() {
            None
        } else {
            Some(Arc::clone(&self.of_lane.unproven).acquire_owned().await.ok()?)
        };
        let lane = Arc::clone(&self.of_lane.permits).acquire_owned().await.ok()?;
        if let Some(share) = &self.share {
            share.wait(&self.hook, ration).await;
        }
        Some(self.permit(own, unproven, lane))
    }

    /// Waits for a slot of the rate. One that is given up while it is waited for is lost: the next asks for another.
    async fn slot(&self, rate: Rate, ration: &Ration) {
        let mut hand = self.slots.lock().await;
        while hand.left == 0 {
            let waiting = u32::try_from(self.waiting.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
            let slots = ration.slots(&self.hook, rate, rate.slice(waiting)).await;
            if slots.count == 0 {
                sleep(slots.wait).await;
            } else {
                *hand = Hand { next: Instant::now() + slots.wait, left: slots.count };
            }
        }
        let at = hand.next;
        *hand = Hand { next: at + rate.interval, left: hand.left - 1 };
        sleep_until(at).await;
    }

    /// Asks the fleet again for the share that is in use and waited for.
    pub(super) async fn renew(&self, ration: &Ration) {
        if let Some(share) = &self.share
            && share.is_of_use()
        {
            share.ask(&self.hook, ration).await;
        }
    }

    pub(super) fn width(&self) -> usize {
        self.permits.width()
    }

    /// Lets as many run at a time as its target takes now.
    pub(super) fn narrow(&self) {
        self.permits.narrow_to(self.target.width(self.permits.width()));
    }

    pub(super) fn status(&self) -> GateStatus {
        GateStatus {
            hook: self.hook.to_string(),
            lane: if self.decides { "gates" } else { self.lane.name() },
            running: self.permits.in_use(),
            narrowed_to: Some(self.permits.allowed()).filter(|allowed| *allowed < self.permits.width()),
            waiting: self.waiting.load(Ordering::Relaxed),
            granted: self.share.as_ref().map(Share::granted),
            unproven: !self.target.is_proven(),
            parked: self.target.is_open() && self.is_held_back(),
            paused: self.paused.is_some(),
        }
    }

    fn permit(
        self: &Arc<Self>,
        own: OwnPermit,
        unproven: Option<OwnedSemaphorePermit>,
        lane: OwnedSemaphorePermit,
    ) -> Permit {
        Permit {
            gate: Arc::clone(self),
            began: Instant::now(),
            _own: own,
            unproven: Mutex::new(unproven),
            _lane: lane,
            long: AtomicBool::new(false),
            probe: AtomicBool::new(false),
        }
    }
}

/// One more, until dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to run once; given back when dropped.
pub struct Permit {
    gate: Arc<Gate>,
    began: Instant,
    _own: OwnPermit,
    /// Given back when the run is long, or when this is dropped.
    unproven: Mutex<Option<OwnedSemaphorePermit>>,
    _lane: OwnedSemaphorePermit,
    long: AtomicBool,
    probe: AtomicBool,
}

impl Permit {
    pub(in crate::worker) const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    pub(super) const fn began(&self) -> Instant {
        self.began
    }

    /// The run has gone on for longer than a delivery may be held: it holds none any more, and counts as long instead of
    /// unproven.
    pub(in crate::worker) fn is_long(&self) {
        drop(self.unproven.lock().unwrap_or_else(PoisonError::into_inner).take());
        if !self.long.swap(true, Ordering::Relaxed) {
            self.gate.long.fetch_add(1, Ordering::Relaxed);
            self.gate.of_lane.long.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn begin_probe(&self) {
        self.probe.store(true, Ordering::Relaxed);
    }

    /// Another worker probes the target: the run is one like any other.
    pub(super) fn give_up_probe(&self) {
        if self.end_probe() {
            self.gate.target.not_probed();
        }
    }

    /// Whether the run was the probe of its target; from now on it is not.
    pub(super) fn end_probe(&self) -> bool {
        self.probe.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if *self.long.get_mut() {
            self.gate.long.fetch_sub(1, Ordering::Relaxed);
            self.gate.of_lane.long.fetch_sub(1, Ordering::Relaxed);
        }
        if *self.probe.get_mut() {
            self.gate.target.not_probed(); // it ended without an outcome
        }
        if let Some(share) = &self.gate.share {
            share.give_back();
        }
    }
}
