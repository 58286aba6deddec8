//! The schedules of a host.

use std::sync::Arc;

use amends_engine::SagaId;
use amends_registry::now;
use amends_store::StoreError;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{Host, Runner, StartRequest, WeakHost};
use crate::error::StartError;
use crate::principal::Principal;
use crate::schedules::{Firing, Firings, ScheduleStatus};

impl Host {
    /// Returns how each schedule stands, in the order of the config.
    #[must_use]
    pub fn schedules(&self) -> Vec<ScheduleStatus> {
        self.inner.schedules.list(now())
    }

    /// Begins to start the sagas of schedules.
    pub(super) async fn begin_schedules(&self) -> Result<(), StoreError> {
        let schedules = self.inner.schedules.clone();
        if schedules.settings().is_empty() {
            return Ok(());
        }
        let sagas = Arc::new(WeakHost(Arc::downgrade(&self.inner)));
        let store = Arc::clone(&self.inner.store);
        let runner = Runner::open(schedules, store, sagas, now()).await?;
        tokio::spawn(runner.run());
        Ok(())
    }
}

impl Firings for WeakHost {
    fn fire(&self, firing: Firing) -> BoxFuture<'_, Result<SagaId, StartError>> {
        let fire = async move {
            let host = self.host().ok_or(StartError::Stopping)?;
            let principal = Principal::of_schedule(&firing.schedule);
            let Firing { schedule: _, definition, input, tags, key } = firing;
            let (key, traceparent, start_at) = (Some(key), None, None);
            let request = StartRequest { definition, input, key, tags, traceparent, start_at };
            match host.start(&principal, request).await {
                Ok(started) => Ok(started.id),
                // The config has another input since.
                Err(StartError::KeyReused(saga)) => Ok(saga),
                Err(error) => Err(error),
            }
        };
        fire.boxed()
    }

    fn is_running(&self) -> bool {
        self.host().is_some_and(|host| !host.is_stopping())
    }
}
