//! The schedules of a host.

use std::sync::Arc;

use amends_engine::SagaId;
use amends_registry::now;
use amends_store::{ShardId, Store, StoreError};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{Host, Runner, StartRequest, WeakHost};
use crate::error::StartError;
use crate::limits::SCHEDULE_RETRY_PAUSE;
use crate::principal::Principal;
use crate::schedules::{Firing, Firings, ScheduleStatus, Schedules};

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
        if let Some(owned) = self.owned() {
            tokio::spawn(run_in_turn(owned, schedules, store, sagas));
            return Ok(());
        }
        let runner = Runner::open(schedules, store, sagas, now()).await?;
        tokio::spawn(runner.run());
        Ok(())
    }
}

/// Runs the schedules while it is this host that does so for the store. What was cut off is found again by its
/// start key.
async fn run_in_turn(
    mut owned: watch::Receiver<Vec<ShardId>>,
    schedules: Schedules,
    store: Arc<dyn Store>,
    sagas: Arc<WeakHost>,
) {
    let has_turn = |owned: &Vec<ShardId>| owned.contains(&ShardId::LEADER);
    while owned.wait_for(has_turn).await.is_ok() {
        let firings: Arc<dyn Firings> = Arc::<WeakHost>::clone(&sagas);
        match Runner::open(schedules.clone(), Arc::clone(&store), firings, now()).await {
            Ok(runner) => {
                tokio::select! {
                    () = runner.run() => return,
                    is_over = async { owned.wait_for(|owned| !has_turn(owned)).await.is_ok() } => {
                        if !is_over {
                            return;
                        }
                    }
                }
            }
            Err(StoreError::Closed | StoreError::Fatal(_)) => return,
            Err(error) => {
                tracing::warn!(%error, "the schedules cannot be read now");
                tokio::time::sleep(SCHEDULE_RETRY_PAUSE).await;
            }
        }
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
