//! The task of one subscription: sends what its queue has, and writes down how far it has come.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use amends_engine::{Timestamp, Version};
use amends_store::{
    ArchiveError, DeadLetter, Obstacle, PageBudget, Store, StoreError, StoredEvent, Stream,
    SubscriptionChange,
};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use crate::answer::Answer;
use crate::definition_names::DefinitionNames;
use crate::limits::{
    ARCHIVE_RETRY_AFTER, DEAD_LETTERS_PER_READ, EVENT_BYTES_HELD_MAX, SAVE_INTERVAL,
};
use crate::outlet::{Outlet, Redrive};
use crate::receiver::Receiver;
use crate::stop::stopped;

/// The task of one subscription.
pub(crate) struct Delivery {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) names: DefinitionNames,
    /// Wakes the reader of the log.
    pub(crate) room: Arc<Notify>,
    pub(crate) now: fn() -> Timestamp,
    /// A change that is not written down yet, because the store failed.
    pub(crate) unsaved: Option<SubscriptionChange>,
}

/// A request under way, and what became of it: its number, its count of events, the answer.
type UnderWay = Pin<Box<dyn Future<Output = (u64, usize, Answer)> + Send>>;

impl Delivery {
    /// Runs until the host stops. Requests that are under way then are cut off: their events are sent
    /// again after the next start, or by the host whose turn comes.
    pub(crate) async fn run(
        mut self,
        mut stop: watch::Receiver<bool>,
        mut has_turn: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                has_turn = async { has_turn.wait_for(|has| *has).await.is_ok() } => if !has_turn {
                    return;
                },
            }
            if let Err(error) = self.outlet.take_turn(&*self.store).await {
                let name = &self.outlet.settings.name;
                tracing::debug!(subscription = name, %error, "a subscription cannot be read now");
                tokio::select! {
                    () = stopped(&mut stop) => return,
                    () = tokio::time::sleep(error.retry_after()) => continue,
                }
            }
            self.room.notify_one();
            let has_stopped = self.deliver(&mut stop, &mut has_turn).await;
            self.outlet.end_turn();
            if has_stopped {
                return;
            }
            // Another host may have come further.
            self.unsaved = None;
        }
    }

    /// Delivers until the host stops, or its turn ends. Returns true when it stops.
    async fn deliver(
        &mut self,
        stop: &mut watch::Receiver<bool>,
        has_turn: &mut watch::Receiver<bool>,
    ) -> bool {
        let mut requests: FuturesUnordered<UnderWay> = FuturesUnordered::new();
        let mut saves = tokio::time::interval(SAVE_INTERVAL);
        saves.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.read_redriven().await;
            loop {
                let Some(request) = self.outlet.queue().take(Instant::now()) else { break };
                let (receiver, now) = (Arc::clone(&self.receiver), self.now);
                requests.push(Box::pin(async move {
                    let answer = receiver.send(&request.events, now()).await;
                    (request.number, request.events.len(), answer)
                }));
            }
            let due = self.outlet.queue().next_due();
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopped(stop) => break,
                is_over = async { has_turn.wait_for(|has| !*has).await.is_ok() } => {
                    if is_over {
                        return false;
                    }
                    // The host is going, and says so.
                    stopped(stop).await;
                    break;
                }
                Some((number, events, answer)) = requests.next() => {
                    self.answered(number, events, answer);
                }
                () = self.outlet.changed.notified() => {}
                () = due => {}
                _ = saves.tick() => {
                    if let Err(error) = self.save().await {
                        let name = &self.outlet.settings.name;
                        tracing::debug!(subscription = name, %error, "a cursor cannot be written down now");
                    }
                }
            }
        }
        drop(requests);
        if let Err(error) = self.save().await {
            let name = &self.outlet.settings.name;
            tracing::warn!(subscription = name, %error, "events will be delivered again: the cursor is not written down");
        }
        true
    }

    fn answered(&self, number: u64, events: usize, answer: Answer) {
        let name = self.outlet.settings.name.as_str();
        match &answer {
            Answer::Delivered => {
                metrics::counter!("amends_subscription_delivered_total", "subscription" => name.to_owned())
                    .increment(events as u64);
            }
            Answer::Gone(reason) => {
                tracing::warn!(
                    subscription = name,
                    reason,
                    "the receiver wants no more events; `amends subscription redrive` begins again"
                );
            }
            Answer::Failed { error, .. } => {
                metrics::counter!("amends_subscription_failures_total", "subscription" => name.to_owned())
                    .increment(1);
                tracing::debug!(subscription = name, error, "a request to a receiver failed");
            }
        }
        let mut queue = self.outlet.queue();
        let was_away = queue.is_away();
        queue.answered(number, answer, (Instant::now(), (self.now)()));
        let is_away = queue.is_away();
        let error = queue.last_error().map(|(error, _)| error.clone()).unwrap_or_default();
        drop(queue);
        if is_away && !was_away {
            tracing::warn!(
                subscription = name,
                error,
                "the receiver is away; the host tries again"
            );
        } else if was_away && !is_away {
            tracing::info!(subscription = name, "the receiver is back");
        }
        self.room.notify_one();
    }

    /// Writes down what has changed. What cannot be written now is kept for the next time.
    async fn save(&mut self) -> Result<(), StoreError> {
        loop {
            if self.unsaved.is_none() {
                self.unsaved = self.outlet.queue().take_change();
            }
            let Some(change) = &self.unsaved else { return Ok(()) };
            self.store.outbox().save(change.clone()).await?;
            self.unsaved = None;
        }
    }

    /// Takes dead letters in that are to be sent again, when those before them are settled.
    async fn read_redriven(&mut self) {
        let redrive = *self.outlet.redrive();
        let Some(redrive) = redrive else { return };
        // The subscription may have been disabled until now.
        self.room.notify_one();
        let is_ready = {
            let queue = self.outlet.queue();
            queue.redriven() == 0 && queue.has_room_for_redriven() && queue.disabled().is_none()
        };
        if !is_ready {
            return;
        }
        // An error is tried again with the next event of the loop, within a second.
        let page = async {
            // What became a dead letter since is to be found by the read, and what is settled is not.
            self.save().await?;
            self.redrive_page(redrive).await
        };
        if let Err(error) = page.await {
            let name = &self.outlet.settings.name;
            tracing::debug!(subscription = name, %error, "dead letters cannot be read now");
        }
    }

    /// Reads the event of a dead letter, from the archive when its saga has left the store. None when the
    /// saga was deleted.
    async fn event_of(&self, letter: &DeadLetter) -> Result<Option<StoredEvent>, StoreError> {
        let before = Version(letter.version.0.saturating_sub(1));
        let (stream, one) = (letter.stream.clone(), PageBudget::items(1));
        let found = self.store.log().stream(stream, before, one).await?;
        let is_it = |event: &StoredEvent| event.version == letter.version;
        if let Some(event) = found.into_iter().find(is_it) {
            return Ok(Some(event));
        }
        let Stream::Saga(id) = letter.stream else { return Ok(None) };
        match self.store.archive().read(id).await {
            Ok(archived) => Ok(archived.and_then(|saga| saga.events.into_iter().find(is_it))),
            Err(ArchiveError::Deleted { .. }) => Ok(None),
            Err(ArchiveError::Store(error)) => Err(error),
            Err(error) => {
                // The letters stay, and the redrive goes on when the file is there again.
                let subscription = self.outlet.settings.name.as_str();
                tracing::warn!(subscription, %error, "a dead letter cannot be read from the archive");
                Err(StoreError::Unavailable {
                    obstacle: Obstacle::File,
                    retry_after: ARCHIVE_RETRY_AFTER,
                    source: Arc::new(error),
                })
            }
        }
    }

    async fn redrive_page(&self, redrive: Redrive) -> Result<(), StoreError> {
        let name = self.outlet.settings.name.clone();
        let outbox = self.store.outbox();
        let letters = outbox.dead_letters(name, redrive.after, DEAD_LETTERS_PER_READ).await?;
        let (mut events, mut bytes) = (Vec::with_capacity(letters.len()), 0);
        for letter in letters {
            if bytes >= EVENT_BYTES_HELD_MAX {
                break;
            }
            let event = match self.event_of(&letter).await? {
                Some(event) => Some(Arc::new(self.names.name(event).await?)),
                None => None,
            };
            bytes += event.as_ref().map_or(0, |event| event.bytes());
            events.push((letter, event));
        }
        let last = events.last().map(|(letter, _)| letter.place);
        let mut queue = self.outlet.queue();
        for (letter, event) in events {
            match event {
                None => {
                    tracing::warn!(
                        subscription = self.outlet.settings.name,
                        stream = %letter.stream,
                        version = letter.version.0,
                        kind = letter.kind,
                        "a dead letter is dropped: its saga was deleted when its retention was over"
                    );
                    queue.drop_dead(&letter);
                }
                Some(_) if queue.is_behind_another(&letter.stream) => {}
                Some(event) => queue.push_redriven(event, letter.place),
            }
        }
        drop(queue);
        // It is over when there are no more, and all that were read are settled.
        let mut slot = self.outlet.redrive();
        // Unless an operator has begun another one meanwhile.
        if *slot == Some(redrive) {
            *slot = last.map(|last| Redrive { after: Some(last) });
        }
        Ok(())
    }
}
