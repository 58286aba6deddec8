//! The subscriptions of a host, as operators see and order them.

use amends_store::{Cursor, DeadLetter, PageBudget, StoreError};
use amends_subscriptions::{NamedEvent, SubscriptionStatus};

use super::Host;
use crate::action::{Action, authorize};
use crate::principal::Principal;

/// A page of the log, with the definitions of its sagas.
#[derive(Debug)]
pub struct NamedLogPage {
    /// The events, in order. Empty only when there are no more.
    pub events: Vec<NamedEvent>,
    /// The place after the last of them.
    pub next: Cursor,
}

impl Host {
    /// Returns how each subscription stands, in the order of the config.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionStatus> {
        self.inner.subscriptions.list()
    }

    /// Has the dead letters of a subscription sent again, and makes a subscription active that its
    /// receiver has ended. The log of the host has who asked and why. Returns how the subscription stands
    /// then; none when there is no such subscription.
    #[must_use]
    pub fn redrive(
        &self,
        principal: &Principal,
        name: &str,
        reason: &str,
    ) -> Option<SubscriptionStatus> {
        authorize(principal, &Action::Redrive { subscription: name });
        let status = self.inner.subscriptions.redrive(name)?;
        let (who, dead_letters) = (&principal.subject, status.dead_letters);
        tracing::info!(
            subscription = name,
            who,
            reason,
            dead_letters,
            "dead letters are sent again"
        );
        Some(status)
    }

    /// Returns up to `limit` dead letters of a subscription, in the order of the log: those after the place
    /// of an earlier one, or from the first on. None when there is no such subscription.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn dead_letters(
        &self,
        name: &str,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Option<Vec<DeadLetter>>, StoreError> {
        if !self.subscriptions().iter().any(|subscription| subscription.name == name) {
            return Ok(None);
        }
        self.inner.store.outbox().dead_letters(name.to_owned(), after, limit).await.map(Some)
    }

    /// Returns up to `limit` events of all streams after a cursor, in order, with the definitions of their
    /// sagas. A page of large events ends early.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn named_log(&self, from: Cursor, limit: u32) -> Result<NamedLogPage, StoreError> {
        let page = self.inner.store.log().follow(from, PageBudget::items(limit)).await?;
        let mut events = Vec::with_capacity(page.events.len());
        for event in page.events {
            events.push(self.inner.definition_names.name(event).await?);
        }
        Ok(NamedLogPage { events, next: page.next })
    }
}
