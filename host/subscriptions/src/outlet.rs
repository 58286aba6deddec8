//! What the reader of the log, the task of a subscription and operators share of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use amends_store::{Cursor, Store, StoreError, SubscriptionChange};
use tokio::sync::Notify;

use crate::limits::DEAD_LETTERS_PER_READ;
use crate::queue::Queue;
use crate::settings::{StartFrom, SubscriptionSettings, Target};
use crate::status::SubscriptionStatus;

/// One subscription that runs.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) settings: SubscriptionSettings,
    queue: Mutex<Queue>,
    /// How far dead letters are read to be sent again; none when none are.
    redrive: Mutex<Option<Redrive>>,
    /// Wakes the task of the subscription.
    pub(crate) changed: Notify,
    /// Whether this host delivers it now.
    has_turn: AtomicBool,
    /// Whether the queue is what the store has, because no other host can have changed that.
    is_fresh: AtomicBool,
}

impl Outlet {
    /// Reads what the store keeps of a subscription. A new one begins where its settings say, and that is
    /// written down before this returns. `has_turn`: this host delivers it from the beginning.
    pub(crate) async fn open(
        settings: SubscriptionSettings,
        store: &dyn Store,
        has_turn: bool,
    ) -> Result<Self, StoreError> {
        let queue = Mutex::new(read_queue(&settings, store).await?);
        let (redrive, changed) = (Mutex::default(), Notify::new());
        let (has_turn, is_fresh) = (AtomicBool::new(false), AtomicBool::new(has_turn));
        Ok(Self { settings, queue, redrive, changed, has_turn, is_fresh })
    }

    /// Whether this host delivers the subscription now.
    pub(crate) fn has_turn(&self) -> bool {
        self.has_turn.load(Ordering::Acquire)
    }

    /// Reads again what the store keeps, which another host may have changed, and begins to deliver.
    pub(crate) async fn take_turn(&self, store: &dyn Store) -> Result<(), StoreError> {
        if !self.is_fresh.swap(false, Ordering::AcqRel) {
            let queue = read_queue(&self.settings, store).await?;
            *self.queue() = queue;
        }
        self.has_turn.store(true, Ordering::Release);
        Ok(())
    }

    /// Leaves the subscription to another host.
    pub(crate) fn end_turn(&self) {
        self.has_turn.store(false, Ordering::Release);
        *self.redrive() = None;
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn redrive(&self) -> MutexGuard<'_, Option<Redrive>> {
        self.redrive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has dead letters sent again, and makes a subscription active that its receiver has ended.
    pub(crate) fn begin_redrive(&self) {
        self.queue().begin_redrive();
        *self.redrive() = Some(Redrive::default());
        self.changed.notify_one();
    }

    pub(crate) fn status(&self, head: Cursor) -> SubscriptionStatus {
        let is_redriving = self.redrive().is_some();
        let queue = self.queue();
        let cursor = queue.cursor();
        SubscriptionStatus {
            name: self.settings.name.clone(),
            target: match &self.settings.target {
                Target::Webhook(webhook) => shown(&webhook.url),
                Target::Nats(nats) => nats.to_string(),
                Target::Local(taker) => taker.target(),
            },
            cursor,
            lag_events: cursor.events_until(head),
            is_away: queue.is_away(),
            disabled: queue.disabled().map(str::to_owned),
            last_error: queue.last_error().cloned(),
            dead_letters: queue.dead_letters(),
            is_redriving,
        }
    }
}

/// Reads what the store keeps of a subscription. Of a new one, it is written down first where it begins.
async fn read_queue(
    settings: &SubscriptionSettings,
    store: &dyn Store,
) -> Result<Queue, StoreError> {
    let name = settings.name.clone();
    let kept = store.outbox().subscription(name.clone()).await?;
    let (cursor, disabled) = if let Some(row) = kept {
        (row.cursor, row.disabled)
    } else {
        let cursor = match settings.from {
            StartFrom::Now => *store.log().head().borrow(),
            StartFrom::Start => Cursor::START,
        };
        let (dead, delivered) = (Vec::new(), Vec::new());
        let name = name.clone();
        let change = SubscriptionChange { name, cursor, disabled: None, dead, delivered };
        store.outbox().save(change).await?;
        (cursor, None)
    };
    let rules = (settings.batch, settings.retry);
    let is_local = matches!(settings.target, Target::Local(_));
    let mut queue = Queue::new(name.clone(), rules, cursor, disabled, is_local);
    let mut after = None;
    loop {
        let name = name.clone();
        let page = store.outbox().dead_letters(name, after, DEAD_LETTERS_PER_READ).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.place);
        for letter in page {
            queue.knows_dead(letter.stream, letter.place);
        }
    }
    Ok(queue)
}

/// How far dead letters are read to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Redrive {
    /// The place of the last one that was read.
    pub(crate) after: Option<Cursor>,
}

/// An address without its query, which may have a secret.
fn shown(url: &http::Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    format!("{scheme}://{authority}{}", url.path())
}
