//! The orders of operators about sagas, and signals.

use amends_engine::{Input, Order, Payload, SagaId, SignalName, Verb};
use amends_store::StoreError;
use tokio::sync::oneshot;

use super::Host;
use crate::action::{Action, authorize};
use crate::budget::HeldBytes;
use crate::error::{OperateError, RuntimeError};
use crate::limits::{LIVE_BYTES_EACH, ORDER_BYTES_FREE};
use crate::message::Message;
use crate::principal::Principal;
use crate::saga_state::SagaState;
use crate::serving::{may_choose, may_edit, may_resolve};

/// How often a saga is asked for one order or signal. Each further time means that it left memory
/// before its turn came, because it ended for one, and that happens seldom.
const FEED_TRIES_MAX: u32 = 10;

impl Host {
    /// Carries out an operator's order. Returns the saga after it once the order is durable. An order
    /// that was carried out already changes nothing and gets the same answer.
    ///
    /// # Errors
    /// When there is no such saga, it does not permit that now, or nothing can be done to it.
    pub async fn operate(
        &self,
        principal: &Principal,
        id: SagaId,
        verb: Verb,
        reason: String,
    ) -> Result<SagaState, OperateError> {
        authorize(principal, &Action::Operate { saga: id, verb: &verb });
        let order = Order { who: principal.subject.clone(), reason, verb };
        if let Verb::Resume = order.verb
            && let Some(state) = self.take_up(id, &order).await?
        {
            return Ok(state);
        }
        self.check(id, &order).await?;
        self.feed(id, Input::Operate(order)).await
    }

    /// Returns the saga as it is, if it permits an order now. Nothing is changed.
    ///
    /// # Errors
    /// As [`Self::operate`].
    pub async fn would_operate(
        &self,
        principal: &Principal,
        id: SagaId,
        verb: Verb,
        reason: String,
    ) -> Result<SagaState, OperateError> {
        let order = Order { who: principal.subject.clone(), reason, verb };
        if let Some(reason) = self.inner.quarantine.reason(id) {
            let remedy = if matches!(order.verb, Verb::Resume) {
                // Whether it can be read is found out by reading it.
                "what a resume would do is known when it is done"
            } else {
                "only `amends resume` takes it up again"
            };
            return Err(OperateError::Quarantined(amends_engine::Refusal {
                message: format!("the saga is quarantined: {reason}"),
                remedy: remedy.to_owned(),
            }));
        }
        self.check(id, &order).await?;
        let state = self.state(id).await?.ok_or(OperateError::NotFound(id))?;
        if state.is_archived {
            return Err(self.archived_refusal(id).await);
        }
        amends_engine::permits(&state.saga, state.now, &order)?;
        Ok(state)
    }

    /// Whether the components of a saga go with an order. Whether the saga does, is decided when the
    /// order's turn comes.
    async fn check(&self, id: SagaId, order: &Order) -> Result<(), OperateError> {
        let looks = match &order.verb {
            Verb::Retry { step, input, digest } => {
                input.is_some() || step.is_some() && digest.is_some()
            }
            Verb::Resolve { output, .. } => output.is_some(),
            Verb::Cancel
            | Verb::Compensate
            | Verb::CompensateWithParent
            | Verb::Pause
            | Verb::Resume
            | Verb::Skip { .. }
            | Verb::Abandon
            | Verb::Note => false,
        };
        if !looks {
            return Ok(());
        }
        let state = self.state(id).await?.ok_or(OperateError::NotFound(id))?;
        if state.is_archived {
            return Err(self.archived_refusal(id).await);
        }
        let (plugins, saga) = (&self.inner.plugins, &state.saga);
        if let Verb::Retry { step: Some(step), digest: Some(digest), .. } = &order.verb {
            may_choose(plugins, saga, step, *digest).await?;
        }
        may_edit(plugins, &state, order).await?;
        may_resolve(plugins, &state, order).await?;
        Ok(())
    }

    /// Sends a signal to a saga. Returns the saga after it once the signal is durable. A signal whose
    /// id came before is discarded.
    ///
    /// # Errors
    /// When there is no such saga, or it takes no such signal now.
    pub async fn signal(
        &self,
        principal: &Principal,
        id: SagaId,
        name: SignalName,
        signal_id: Option<String>,
        payload: Payload,
    ) -> Result<SagaState, OperateError> {
        authorize(principal, &Action::Signal { saga: id, name: &name });
        let who = Some(principal.subject.clone());
        self.feed(id, Input::Signal { name, id: signal_id, payload, who }).await
    }

    async fn feed(&self, id: SagaId, input: Input) -> Result<SagaState, OperateError> {
        for _ in 0..FEED_TRIES_MAX {
            if let Some(reason) = self.inner.quarantine.reason(id) {
                return Err(OperateError::Quarantined(amends_engine::Refusal {
                    message: format!("the saga is quarantined: {reason}"),
                    remedy: "mend what the reason names, then `amends resume` takes it up again"
                        .to_owned(),
                }));
            }
            let (reply, answer) = oneshot::channel();
            let held = self.hold_input(&input)?;
            let input = Box::new(input.clone());
            self.send(id, Message::Feed { id, input, held, reply })?;
            match answer.await {
                Ok(Err(OperateError::NotFound(_))) => {
                    let tombstone = self.tombstone(id).await.map_err(RuntimeError::from)?;
                    if tombstone.is_some() {
                        return Err(self.archived_refusal(id).await);
                    }
                    // It may have been brought back between the two looks.
                    if self.saga(id).await.map_err(RuntimeError::from)?.is_none() {
                        return Err(OperateError::NotFound(id));
                    }
                }
                Ok(result) => return result,
                // It moved or left meanwhile.
                Err(_) => {}
            }
            if self.is_stopping() {
                return Err(RuntimeError::Stopping.into());
            }
        }
        Err(RuntimeError::Busy(id).into())
    }

    /// Takes up a saga that is quarantined: it is read anew and goes on as after a start of the
    /// host. None when it is not quarantined.
    async fn take_up(&self, id: SagaId, order: &Order) -> Result<Option<SagaState>, OperateError> {
        let quarantine = &self.inner.quarantine;
        if quarantine.reason(id).is_none() {
            return Ok(None);
        }
        let found = self.load(id).await.and_then(|loaded| {
            loaded.ok_or_else(|| {
                let message = "it has no row in the store's list of sagas".to_owned();
                RuntimeError::Unreadable { saga: id, message }
            })
        });
        let loaded = match found {
            Ok(loaded) => loaded,
            Err(
                error @ (RuntimeError::Unreadable { .. }
                | RuntimeError::DefinitionLost { .. }
                | RuntimeError::Store(StoreError::Damaged { .. })),
            ) => {
                return Err(OperateError::Quarantined(amends_engine::Refusal {
                    message: format!("the saga stays quarantined: {error}"),
                    remedy: "restore what cannot be read, or run the version that wrote it"
                        .to_owned(),
                }));
            }
            Err(error) => return Err(error.into()),
        };
        let state = SagaState::from(loaded.clone());
        let saga = Box::new(loaded);
        // Whoever is refused as long as it is quarantined must not come before its recovery.
        let is_released = quarantine.release(id, || {
            let held = self.inner.live_bytes.hold(LIVE_BYTES_EACH + saga.saga.memory_bytes());
            let _ = self.send(id, Message::Recover { saga, held });
        });
        if is_released {
            let Order { who, reason, .. } = order;
            tracing::info!(saga_id = %id, who, reason, "a quarantined saga is taken up again");
        }
        Ok(Some(state))
    }

    /// Room for what a signal or a large order brings, until it is decided on.
    fn hold_input(&self, input: &Input) -> Result<Option<HeldBytes>, OperateError> {
        let bytes = input.memory_bytes();
        let (budget, refusal) = match input {
            Input::Signal { .. } => {
                (&self.inner.signal_bytes, "too many signals wait to be recorded")
            }
            Input::Operate(_) if bytes >= ORDER_BYTES_FREE => {
                (&self.inner.order_bytes, "too many orders wait to be recorded")
            }
            Input::Operate(_)
            | Input::Admit { .. }
            | Input::Outcome { .. }
            | Input::Refuse { .. }
            | Input::Mark { .. }
            | Input::Tick => return Ok(None),
        };
        // What it takes in a queue, beside its payload, is less than what a saga does.
        let held = budget.try_hold(LIVE_BYTES_EACH + bytes);
        held.map(Some).ok_or(OperateError::Overloaded(refusal))
    }
}
