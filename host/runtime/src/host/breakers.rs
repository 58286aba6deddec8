//! The circuit breakers of a host, as operators see and order them.

use std::time::Duration;

use amends_engine::ServiceName;
use amends_registry::now;
use amends_store::{StoreError, StoreHealth};

use super::Host;
use crate::action::{Action, authorize};
use crate::breakers::settings::{BreakerInfo, ByHand};
use crate::breakers::{Breakers, Written};
use crate::error::BreakerError;
use crate::principal::Principal;

/// Why the store takes no writes, when it takes none.
fn no_writes(health: &StoreHealth) -> Option<StoreError> {
    match health {
        StoreHealth::Well => None,
        StoreHealth::NoWrites(error) | StoreHealth::Lost(error) => Some(error.clone()),
    }
}

impl Host {
    /// The circuit breakers, by service.
    #[must_use]
    pub fn breakers(&self) -> Vec<BreakerInfo> {
        self.inner.breakers.list(now())
    }

    /// Opens a circuit breaker by hand, for so long or until somebody closes it. None: the service has no
    /// breaker.
    ///
    /// # Errors
    /// When the store takes no writes: see [`BreakerError`].
    pub async fn open_breaker(
        &self,
        principal: &Principal,
        service: &ServiceName,
        reason: String,
        open_for: Option<Duration>,
    ) -> Result<Option<BreakerInfo>, BreakerError> {
        authorize(principal, &Action::OpenBreaker { service });
        let by_hand = ByHand { who: principal.subject.clone(), reason };
        let until = open_for.map(|time| now().after(time));
        let order = |breakers: &Breakers| breakers.hold(service, by_hand, until, now());
        self.order_breaker(service, order).await
    }

    /// Closes a circuit breaker by hand. None: the service has no breaker.
    ///
    /// # Errors
    /// When the store takes no writes: see [`BreakerError`].
    pub async fn close_breaker(
        &self,
        principal: &Principal,
        service: &ServiceName,
        reason: String,
    ) -> Result<Option<BreakerInfo>, BreakerError> {
        authorize(principal, &Action::CloseBreaker { service });
        let by_hand = ByHand { who: principal.subject.clone(), reason };
        self.order_breaker(service, |breakers| breakers.close(service, &by_hand, now())).await
    }

    async fn order_breaker(
        &self,
        service: &ServiceName,
        order: impl FnOnce(&Breakers) -> Option<Written>,
    ) -> Result<Option<BreakerInfo>, BreakerError> {
        if self.breaker(service).is_none() {
            return Ok(None);
        }
        if let Some(error) = no_writes(&self.store_health()) {
            return Err(BreakerError::NotDone(error));
        }
        let Some(written) = order(&self.inner.breakers) else { return Ok(None) };
        let written = tokio::select! {
            biased;
            written = written => written.unwrap_or(Err(StoreError::Closed)),
            // The store tries the orders one after another: this one may wait behind others.
            error = self.until_store(no_writes) => Err(error),
        };
        written.map_err(BreakerError::NotWritten)?;
        Ok(self.breaker(service))
    }

    fn breaker(&self, service: &ServiceName) -> Option<BreakerInfo> {
        self.breakers().into_iter().find(|breaker| breaker.service == *service)
    }
}
