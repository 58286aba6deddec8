//! The effects that stand or may stand of all sagas that have not completed, summed.
//!
//! Each worker sums its own live sagas. The effects that an abandoned saga left do not change any more, so
//! each abandoned saga is counted once and its sum is kept. A request counts sagas that are not counted
//! yet, for a limited time.
//!
//! Deliberately absent: a table of sums in the store. Sagas are abandoned by hand, and few.

use std::time::Duration;

use amends_engine::SagaStatus;
use amends_store::{SagaQuery, StoreError};
use tokio::time::Instant;

use crate::abandoned::{Counted, Sums, add};
use crate::error::RuntimeError;
use crate::host::Host;

/// How long a request counts abandoned sagas that were not counted before: about as long as a
/// person waits. The next one goes on from there.
const COUNTING_MAX: Duration = Duration::from_secs(2);

/// Abandoned sagas that are listed at once.
const ABANDONED_PER_READ: u32 = 1_000;

/// Why what stands is not told.
#[derive(Debug, thiserror::Error)]
pub enum ExposureError {
    /// Abandoned sagas are still being counted, so the sums would be too small. Caller: later.
    #[error("abandoned sagas are being counted: {counted} are, and there are more")]
    Counting {
        /// How many have been.
        counted: usize,
    },
    /// The store failed. Operator.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Host {
    /// What stands or may stand of all sagas that have not completed: those that go on, are being
    /// undone, are blocked, or were abandoned. By definition and step.
    ///
    /// # Errors
    /// When the store fails, or abandoned sagas could not all be counted within two seconds; what
    /// was counted is remembered. May be cancelled at any time.
    pub async fn exposure(&self) -> Result<Sums, ExposureError> {
        let until = Instant::now() + COUNTING_MAX;
        let counting = tokio::time::timeout_at(until, self.abandoned().0.lock()).await;
        let mut abandoned = counting.map_err(|_| ExposureError::Counting { counted: 0 })?;
        abandoned.count(self, until).await?;
        let mut sums = abandoned.sums.clone();
        drop(abandoned);
        let mut live = self.live_pages();
        while let Some(page) = live.next(|_| true).await? {
            for loaded in page {
                add(&mut sums, &loaded.saga);
            }
        }
        Ok(sums)
    }
}

impl Counted {
    /// Counts the abandoned sagas that were not counted before, until then.
    async fn count(&mut self, host: &Host, until: Instant) -> Result<(), ExposureError> {
        let mut query = SagaQuery {
            statuses: vec![SagaStatus::Abandoned],
            limit: ABANDONED_PER_READ,
            ..SagaQuery::default()
        };
        loop {
            let rows = host.store().sagas().list(query.clone()).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            query.before = Some(last.id);
            for row in rows {
                if self.ids.contains(&row.id) {
                    continue;
                }
                if Instant::now() >= until {
                    return Err(ExposureError::Counting { counted: self.ids.len() });
                }
                match host.state(row.id).await {
                    Ok(Some(state)) => add(&mut self.sums, &state.saga),
                    Ok(None) => {}
                    Err(RuntimeError::Store(error)) => return Err(error.into()),
                    // One that cannot be read is told by its own calls.
                    Err(error) => {
                        tracing::debug!(saga_id = %row.id, %error, "what stands of it is not known");
                    }
                }
                self.ids.insert(row.id);
            }
        }
    }
}
