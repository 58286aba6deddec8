//! The subscriptions of a host.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use amends_engine::Timestamp;
use amends_store::{Store, StoreError};
use metrics::Label;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::definition_names::DefinitionNames;
use crate::delivery::Delivery;
use crate::outlet::Outlet;
use crate::receiver::Receiver;
use crate::settings::SubscriptionSettings;
use crate::status::SubscriptionStatus;
use crate::tail::Tail;

/// The subscriptions of a host.
pub struct Subscriptions {
    outlets: Vec<Arc<Outlet>>,
    store: Arc<dyn Store>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

impl std::fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriptions").field("outlets", &self.outlets).finish_non_exhaustive()
    }
}

impl Subscriptions {
    /// Opens subscriptions and begins to deliver. A new one that begins now gets every event that is
    /// appended after this has returned.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn open(
        settings: Vec<SubscriptionSettings>,
        store: Arc<dyn Store>,
    ) -> Result<Self, StoreError> {
        let (turn, has_turn) = watch::channel(true);
        // It is this host's turn for good.
        tokio::spawn(async move { turn.closed().await });
        Self::open_in_turn(settings, store, has_turn).await
    }

    /// As [`Self::open`], for a host of several that share the store: it delivers while `has_turn` is true.
    /// Each time that it becomes true, it goes on from what the store has, so that what another host delivered
    /// meanwhile is not sent again.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_in_turn(
        settings: Vec<SubscriptionSettings>,
        store: Arc<dyn Store>,
        has_turn: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        let mut outlets = Vec::with_capacity(settings.len());
        for settings in settings {
            let is_first = *has_turn.borrow();
            outlets.push(Arc::new(Outlet::open(settings, &*store, is_first).await?));
        }
        let (stop, stopping) = watch::channel(false);
        let names = DefinitionNames::new(Arc::clone(&store));
        let room = Arc::new(Notify::new());
        let mut tasks = Vec::new();
        for outlet in &outlets {
            // From 0 on, so that the first failure is an increase.
            for metric in
                ["amends_subscription_delivered_total", "amends_subscription_failures_total"]
            {
                let name = outlet.settings.name.clone();
                metrics::counter!(metric, "subscription" => name).increment(0);
            }
            let delivery = Delivery {
                outlet: Arc::clone(outlet),
                receiver: Arc::new(Receiver::new(&outlet.settings)),
                store: Arc::clone(&store),
                names: names.clone(),
                room: Arc::clone(&room),
                now,
                unsaved: None,
            };
            tasks.push(tokio::spawn(delivery.run(stopping.clone(), has_turn.clone())));
        }
        if !outlets.is_empty() {
            let (outlets, store) = (outlets.clone(), Arc::clone(&store));
            let tail = Tail { outlets, store, names, room, now };
            tasks.push(tokio::spawn(tail.run(stopping)));
        }
        Ok(Self { outlets, store, tasks: Mutex::new(tasks), stop })
    }

    /// Returns how each subscription stands, in the order of the settings.
    #[must_use]
    pub fn list(&self) -> Vec<SubscriptionStatus> {
        let head = *self.store.log().head().borrow();
        self.outlets.iter().map(|outlet| outlet.status(head)).collect()
    }

    /// Has the dead letters of a subscription sent again, in their order. A subscription that its receiver
    /// has ended becomes active. Returns how the subscription stands; none when there is none of this
    /// name. The order is lost when the process ends; the dead letters are not.
    pub fn redrive(&self, name: &str) -> Option<SubscriptionStatus> {
        let outlet = self.outlets.iter().find(|outlet| outlet.settings.name == name)?;
        outlet.begin_redrive();
        let head = *self.store.log().head().borrow();
        Some(outlet.status(head))
    }

    /// Sets the gauges of all subscriptions, with these labels beside the name of each.
    #[expect(clippy::cast_precision_loss, reason = "counts of events are far below 2^52")]
    pub fn refresh_gauges(&self, labels: &[Label]) {
        let head = *self.store.log().head().borrow();
        // Of several hosts, one knows.
        for outlet in self.outlets.iter().filter(|outlet| outlet.has_turn()) {
            let status = outlet.status(head);
            let name = Label::new("subscription", status.name.clone());
            let labels: Vec<_> = labels.iter().cloned().chain([name]).collect();
            metrics::gauge!("amends_subscription_lag_events", labels.clone())
                .set(status.lag_events as f64);
            metrics::gauge!("amends_subscription_dead_letters", labels)
                .set(status.dead_letters as f64);
        }
    }

    /// Stops delivering, and writes the cursors down. A second call returns at once.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            let _ = task.await;
        }
    }
}

/// The present, by the clock of the machine.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
