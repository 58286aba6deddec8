//! What a connection does at the moment: who may close it, and until when bytes must come, follows from
//! that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The head of a request may take this long from its first byte, and a new connection may say nothing for
/// as long. Heads are small: a network that needs longer for one is of no use.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// A connection may wait this long for its next request. Clients and proxies keep connections for about a
/// minute, and it is better that they close them.
const IDLE_TIME_MAX: Duration = Duration::from_secs(90);

/// What a connection does. The server, the connection and its stream share it.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    phase: Mutex<Phase>,
    /// The peer has to read before the host can send more.
    is_sending: AtomicBool,
    /// The connection was told to end, and has not done so yet.
    is_told: AtomicBool,
    /// The connection has a place of those that are served, or is about to have one.
    is_served: AtomicBool,
    /// Wakes the connection when it is told to end.
    closed: Notify,
    /// Wakes the connection when a request is over, so that the time for the next one begins.
    rested: Notify,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The connection waits for a request, for as long as `time_max`.
    Idle { since: Instant, time_max: Duration },
    /// A head has begun to come.
    Head { since: Instant },
    /// A request is under way, until the end of its answer.
    Request,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Idle { since: Instant::now(), time_max: HEAD_TIME_MAX }
    }
}

impl Activity {
    /// Begins a connection. `is_served`: it has a place of those that are served, or is about to have one.
    pub(crate) fn new(is_served: bool) -> Self {
        Self { is_served: AtomicBool::new(is_served), ..Self::default() }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when no request is under way; none while one is, or its answer is being sent.
    pub(crate) fn without_request_since(&self) -> Option<Instant> {
        if self.is_sending.load(Ordering::Relaxed) {
            return None;
        }
        match *self.phase() {
            Phase::Idle { since, .. } | Phase::Head { since } => Some(since),
            Phase::Request => None,
        }
    }

    /// Until when bytes must come; none while a request is under way: bodies have their own pace.
    pub(crate) fn read_deadline(&self) -> Option<Instant> {
        match *self.phase() {
            Phase::Idle { since, time_max } => Some(since + time_max),
            Phase::Head { since } => Some(since + HEAD_TIME_MAX),
            Phase::Request => None,
        }
    }

    /// Records that bytes have come.
    pub(crate) fn was_read(&self) {
        let mut phase = self.phase();
        if matches!(*phase, Phase::Idle { .. }) {
            *phase = Phase::Head { since: Instant::now() };
        }
    }

    /// Records that the connection waits for its first request: before, it has agreed on keys.
    pub(crate) fn expects_head(&self) {
        *self.phase() = Phase::default();
    }

    /// Records whether the peer has to read before the host can send more.
    pub(crate) fn sends(&self, is_sending: bool) {
        self.is_sending.store(is_sending, Ordering::Relaxed);
    }

    /// Whether the connection has a place of those that are served, or is about to have one.
    pub(crate) fn is_served(&self) -> bool {
        self.is_served.load(Ordering::Relaxed)
    }

    /// Records whether the connection got the place that it was about to have.
    pub(crate) fn serves(&self, is_served: bool) {
        self.is_served.store(is_served, Ordering::Relaxed);
    }

    /// Tells the connection to end, unless a request comes first. False when it was told so before.
    pub(crate) fn close(&self) -> bool {
        let is_first = !self.is_told.swap(true, Ordering::Relaxed);
        if is_first {
            self.closed.notify_one();
        }
        is_first
    }

    /// Whether the connection was told to end and has not done so yet.
    pub(crate) fn is_told_to_close(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// Lets the connection go on: a request came before it could end.
    pub(crate) fn goes_on(&self) {
        self.is_told.store(false, Ordering::Relaxed);
    }

    /// Waits until the connection is told to end. May be cancelled.
    pub(crate) async fn told_to_close(&self) {
        self.closed.notified().await;
    }

    /// Waits until a request is over. May be cancelled.
    pub(crate) async fn request_over(&self) {
        self.rested.notified().await;
    }
}

/// Marks a request as under way for as long as this lives.
pub(crate) struct UnderWay(Arc<Activity>);

impl UnderWay {
    /// Begins a request of the connection.
    pub(crate) fn new(activity: &Arc<Activity>) -> Self {
        *activity.phase() = Phase::Request;
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.phase() = Phase::Idle { since: Instant::now(), time_max: IDLE_TIME_MAX };
        self.0.rested.notify_one();
    }
}
