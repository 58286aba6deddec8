//! The one reader of the log: reads each part of it once for all subscriptions that have come as far.

use std::sync::Arc;

use amends_engine::Timestamp;
use amends_store::{Cursor, Store, StoreError};
use tokio::sync::{Notify, watch};

use crate::definition_names::DefinitionNames;
use crate::limits::EVENTS_PER_READ;
use crate::outlet::Outlet;
use crate::stop::{is_stopped, stopped};

/// The reader of the log.
pub(crate) struct Tail {
    pub(crate) outlets: Vec<Arc<Outlet>>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) names: DefinitionNames,
    /// Wakes the reader when a subscription has room again.
    pub(crate) room: Arc<Notify>,
    pub(crate) now: fn() -> Timestamp,
}

impl Tail {
    /// Runs until the host stops.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut head = self.store.log().head();
        let mut is_failing = false;
        loop {
            let end = *head.borrow_and_update();
            let pause = match self.read_on(end).await {
                Ok(true) => {
                    is_failing = false;
                    if is_stopped(&stop) {
                        return;
                    }
                    continue;
                }
                Ok(false) => {
                    is_failing = false;
                    None
                }
                Err(error) => {
                    if !is_failing {
                        tracing::warn!(%error, "subscriptions cannot read the log");
                    }
                    is_failing = true;
                    Some(error.retry_after())
                }
            };
            let again = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopped(&mut stop) => return,
                changed = head.changed(), if pause.is_none() => if changed.is_err() { return },
                () = self.room.notified() => {}
                () = again => {}
            }
        }
    }

    /// Reads one page for each place at which subscriptions wait for events, so that one that is far
    /// behind does not hold up the others. Returns false when nobody takes more.
    async fn read_on(&self, end: Cursor) -> Result<bool, StoreError> {
        let mut places: Vec<Cursor> = Vec::new();
        for outlet in &self.outlets {
            if !outlet.has_turn() {
                continue;
            }
            let queue = outlet.queue();
            if queue.has_room() && queue.tail() != end && !places.contains(&queue.tail()) {
                places.push(queue.tail());
            }
        }
        let mut has_read = false;
        for place in places {
            has_read |= self.read_page(place).await?;
        }
        Ok(has_read)
    }

    async fn read_page(&self, place: Cursor) -> Result<bool, StoreError> {
        let page = self.store.log().follow(place, EVENTS_PER_READ).await?;
        let has_read = page.next != place;
        let (mut before, mut events) = (place, Vec::with_capacity(page.events.len()));
        for event in page.events {
            let after = event.cursor();
            let is_wanted = |outlet: &Arc<Outlet>| outlet.settings.filter.wants_type(&event.kind);
            if self.outlets.iter().any(is_wanted) {
                events.push((before, Arc::new(self.names.name(event).await?)));
            }
            before = after;
        }
        for outlet in &self.outlets {
            if !outlet.has_turn() {
                continue;
            }
            let mut queue = outlet.queue();
            if queue.tail() != place || !queue.has_room() {
                continue;
            }
            for (before, event) in &events {
                if outlet.settings.filter.wants(event) {
                    queue.push(Arc::clone(event), *before, (self.now)());
                }
            }
            queue.advance(page.next);
            drop(queue);
            outlet.changed.notify_one();
        }
        Ok(has_read)
    }
}
