//! From facts to what they lead to, once they are durable.

use amends_engine::{
    Call, Direction, Event, Failure, Input, LOG_EVENTS_LONG, OperatorEvent, Outcome, SEALED_REASON,
    Saga, SagaId, Timestamp, Version,
};
use amends_failpoint::failpoint;
use amends_store::{
    Append, AppendReply, Appended, Epoch, SagaRow, Shard, StartKey, StoreError, Stream, failures,
};

use super::{CALL_IN_WORKER_MAX, Worker, counted, next_number, not_owned};
use crate::dispatch::Begun;
use crate::error::{RuntimeError, StartError};
use crate::live::{InFlight, Pass, Pending, Queued, Unbegun};
use crate::message::{Message, Returned};
use crate::saga_state::{Started, rests};
use crate::stored_form::StoredForm;
use crate::traces::Durable;
use amends_registry::now;

/// How often a call is run again in a row because the state that it saw has changed, before that
/// counts as an attempt.
const RERUNS_MAX: u32 = 100;

impl Worker {
    /// The append of these events to the saga that `draft` is. `before` is the saga before them.
    pub(super) fn append_of(
        before: Option<&Saga>,
        at: Timestamp,
        events: StoredForm<'_>,
        row: Option<SagaRow>,
        draft: &Saga,
        start_key: Option<StartKey>,
    ) -> Append {
        let failures = failures(&events.decoded, |step, direction| {
            let step = before?.step(step)?;
            match direction {
                Direction::Execute => step.digest,
                Direction::Compensate => step.undo_digest,
            }
        });
        let events = events.new;
        Append {
            stream: Stream::Saga(draft.id()),
            expected: before.map_or(Version(0), Saga::version),
            at,
            events,
            row,
            failures,
            start_key,
            state: Vec::new(),
        }
    }

    pub(super) fn append(&mut self, id: SagaId, append: Append) {
        // The worker takes messages for as long as something is under way: see `is_stopped`.
        let inbox = self.config.inbox.upgrade();
        let bytes = append.bytes();
        self.appends += 1;
        self.append_bytes += bytes;
        let shard = self.owned.of(id);
        let epoch = shard.map(Shard::epoch);
        let reply = AppendReply::new(move |result| {
            if let Some(inbox) = inbox {
                let _ = inbox.send(Message::Appended { id, epoch, bytes, result });
            }
        });
        match shard {
            Some(shard) => shard.append_then(append, reply),
            None => reply.send(Err(not_owned(id))),
        }
    }

    pub(super) fn appended(
        &mut self,
        id: SagaId,
        epoch: Option<Epoch>,
        result: Result<Appended, StoreError>,
    ) {
        if let Some(epoch) = epoch
            && let Some(pending) = self.left.remove(&(id, epoch))
        {
            return moved(id, pending, &result);
        }
        let Some(live) = self.live.get_mut(&id) else { return };
        let Some(pending) = live.pending.take() else { return };
        match result {
            Ok(Appended::Done { .. }) => self.durable(id, pending),
            Ok(Appended::Duplicate(earlier)) => {
                self.forget(id, pending, Ok(Started { id: earlier, created: false }));
            }
            Ok(Appended::KeyReused(earlier)) => {
                self.forget(id, pending, Err(StartError::KeyReused(earlier)));
            }
            Ok(Appended::StateChanged(index)) => {
                self.state_refused(id, pending, index, false);
            }
            Ok(Appended::StateFull(index)) => self.state_refused(id, pending, index, true),
            Err(error) => self.append_failed(id, pending, error),
        }
    }

    /// The facts are durable: now they are true, and are acted upon.
    fn durable(&mut self, id: SagaId, mut pending: Pending) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if let Some(traces) = &self.config.traces {
            let calls = pending.inputs.iter().filter_map(Queued::traced).collect();
            let (before, at, events) = (&live.saga, pending.clock.at, &pending.events);
            traces.tell(&self.config.plugins, &Durable { before, at, events, calls });
        }
        live.forget_reruns(&pending.inputs);
        let before = live.saga.version().0;
        live.saga = pending.draft;
        if before < LOG_EVENTS_LONG && live.saga.version().0 >= LOG_EVENTS_LONG {
            let events = live.saga.version().0;
            tracing::warn!(saga_id = %id, events, "the log of the saga is long");
        }
        live.clock = pending.clock;
        live.row = pending.row;
        // Notes change nothing.
        let is_noted_only = pending
            .events
            .iter()
            .all(|event| matches!(event, Event::Operator(OperatorEvent::Noted(_))));
        if !is_noted_only {
            // By the clock of the host, which the time of a saga may be ahead of.
            live.moved_at = pending.clock.at.min(now());
        }
        crate::gauges::count(&live.saga, &pending.events);
        if let Some(reply) = pending.start {
            failpoint("runtime.start.durable");
            let _ = reply.send(Ok(Started { id, created: true }));
            failpoint("runtime.start.answered");
        }
        for queued in pending.inputs {
            failpoint(match &queued.input {
                Input::Outcome { .. } => "runtime.outcome.durable",
                Input::Operate(_) => "runtime.order.durable",
                Input::Signal { .. } => "runtime.signal.durable",
                Input::Tick | Input::Admit { .. } | Input::Refuse { .. } | Input::Mark { .. } => {
                    "runtime.tick.durable"
                }
            });
            queued.reply(&live.saga, &live.stalls, live.clock);
        }
        if rests(live.saga.status()) && !is_noted_only {
            failpoint("runtime.rest.durable");
            log_rest(&live.saga);
        }
        live.tell_waiters();
        if live.saga.has_ended() {
            self.remove(id);
            return;
        }
        let mut over = Vec::new();
        let due = live.due();
        // The answer may have come late: another host may have the saga by now, and take the call for one that was
        // cut off.
        let has_lease = self.has_lease(id);
        for call in due.calls {
            let key = (call.step.clone(), call.direction);
            let pass = pending.passes.remove(&key).unwrap_or_default();
            if !has_lease {
                drop(pass);
                self.hold(id, &call);
                continue;
            }
            failpoint("runtime.dispatch.before");
            over.extend(self.dispatch(id, call, pass));
        }
        if let Some(live) = self.live.get(&id) {
            live.cancel(&due.children);
        }
        for returned in over {
            self.hear(returned);
        }
        let Some(live) = self.live.get_mut(&id) else { return };
        // What was held back tries again: what it waits for may have come meanwhile, and whoever
        // gives it must learn that this one waits.
        let goes_on =
            !live.inputs.is_empty() || !live.stalls.is_empty() || !live.unbegun.is_empty();
        if goes_on {
            self.advance(id);
        } else {
            self.set_timer(id, pending.clock.at);
            self.remember_stalls(id);
            self.let_go(id);
        }
    }

    /// Has a call run; what came of it, if it is over at once.
    pub(super) fn dispatch(&mut self, id: SagaId, call: Call, pass: Pass) -> Option<Returned> {
        let live = self.live.get_mut(&id)?;
        self.calls_in_flight += counted(&call.target);
        let in_worker =
            !self.slow.contains(&call.digest) && self.time_in_calls < CALL_IN_WORKER_MAX;
        let key = (call.step.clone(), call.direction);
        let number = next_number(&mut self.calls_made);
        match self.dispatcher.run(&live.saga, (number, call), pass, in_worker) {
            Begun::Over(returned) => {
                self.time_in_calls = self.time_in_calls.saturating_add(returned.took);
                Some(returned)
            }
            Begun::Runs(child) => {
                live.in_flight.insert(key, InFlight { number: Some(number), child });
                None
            }
        }
    }

    /// What one call saw of its plugin's state is no more so, or what it writes is too much:
    /// nothing of the append is true. The call is run again, as the same attempt, because nothing
    /// of it was done; all else that happened is decided on anew.
    fn state_refused(&mut self, id: SagaId, pending: Pending, index: usize, is_full: bool) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let position = pending.with_state.get(index).copied();
        let mut refused = None;
        for (at, queued) in pending.inputs.into_iter().enumerate().rev() {
            if Some(at) == position {
                refused = Some(queued);
            } else {
                live.inputs.push_front(queued);
            }
        }
        // Rooms that the append took are given back, and taken again by what it is followed by.
        drop(pending.passes);
        let has_sent = refused.as_ref().is_some_and(|queued| queued.has_sent);
        match refused.map(|queued| queued.input) {
            Some(Input::Outcome { step, direction, attempt, .. }) => {
                let reran = live.reran.entry((step.clone(), direction)).or_default();
                reran.times += 1;
                reran.has_sent |= has_sent;
                let failed = if is_full {
                    let message = "the plugin's state would be larger than its state_max allows; \
                                   raise state_max in [plugin.NAME] or have it keep less";
                    Some(Outcome::Unknown(Failure::new("state_full", message)))
                } else if reran.times > RERUNS_MAX {
                    let message = format!(
                        "the state that the call saw was changed by others {RERUNS_MAX} times in a row"
                    );
                    // What it did outside may stand.
                    Some(Outcome::Unknown(Failure::new("state_conflict", message)))
                } else {
                    None
                };
                if let Some(outcome) = failed {
                    live.inputs.push_back(Queued::from(Input::Outcome {
                        step,
                        direction,
                        attempt,
                        outcome,
                        probe: None,
                        emitted: Vec::new(),
                    }));
                } else {
                    live.wait_to_begin((step, direction), Unbegun::default());
                }
            }
            // Only a call that came back has state.
            Some(
                Input::Admit { .. }
                | Input::Refuse { .. }
                | Input::Mark { .. }
                | Input::Signal { .. }
                | Input::Operate(_)
                | Input::Tick,
            )
            | None => {}
        }
        self.advance(id);
    }

    /// A start that was not one: the key was known.
    fn forget(&mut self, id: SagaId, pending: Pending, answer: Result<Started, StartError>) {
        self.remove(id);
        if let Some(reply) = pending.start {
            let _ = reply.send(answer);
        }
    }

    /// Nothing of the append is true. A start is refused; for a live saga what happened is kept
    /// and tried again, because a result that was had must not be lost.
    fn append_failed(&mut self, id: SagaId, pending: Pending, error: StoreError) {
        let is_conflict = matches!(error, StoreError::Conflict { .. });
        if let StoreError::LostOwnership(shard) = error {
            self.lose(shard);
            return moved(id, pending, &Err(error));
        }
        if let Some(reply) = pending.start {
            self.remove(id);
            // A saga that another one started, before the host was started again.
            let answer =
                if is_conflict { Ok(Started { id, created: false }) } else { Err(error.into()) };
            let _ = reply.send(answer);
            return;
        }
        if is_conflict && self.live.get(&id).is_some_and(|live| live.saga.has_ended()) {
            // It went to the archive. Whoever asked is not answered, and asks again.
            self.remove(id);
            return;
        }
        tracing::debug!(saga_id = %id, %error, "append failed");
        let reason = match &error {
            StoreError::Conflict { .. } => {
                Some(format!("its log was changed by someone else: {error}"))
            }
            // It would be refused the same the next time.
            StoreError::Invalid(_) | StoreError::Damaged { .. } => Some(error.to_string()),
            StoreError::LostOwnership(_)
            | StoreError::Unavailable { .. }
            | StoreError::Closed
            | StoreError::Fatal(_) => None,
        };
        let Some(live) = self.live.get_mut(&id) else { return };
        for queued in pending.inputs.into_iter().rev() {
            // Whoever ordered it hears at once that it is not done, and it is not done later.
            if queued.reply.is_some() {
                queued.refuse(RuntimeError::Store(error.clone()).into());
            } else {
                live.inputs.push_front(queued);
            }
        }
        if let Some(reason) = reason {
            self.quarantine(id, &reason);
            return;
        }
        live.unrecorded = Some(format!("what happened to it cannot be recorded: {error}"));
        self.await_store(id);
    }
}

/// The shard was lost while the append was under way. What came of it is told to whoever waits for
/// that; the saga goes on as its log has it, with the next owner of the shard.
fn moved(id: SagaId, pending: Pending, result: &Result<Appended, StoreError>) {
    let started = match result {
        Ok(Appended::Done { .. }) => Ok(Started { id, created: true }),
        Ok(Appended::Duplicate(earlier)) => Ok(Started { id: *earlier, created: false }),
        Ok(Appended::KeyReused(earlier)) => Err(StartError::KeyReused(*earlier)),
        Ok(Appended::StateChanged(_) | Appended::StateFull(_)) => Err(not_owned(id).into()),
        Err(error) => Err(error.clone().into()),
    };
    if let Some(reply) = pending.start {
        let _ = reply.send(started);
    }
    for queued in pending.inputs {
        match result {
            Ok(Appended::Done { .. }) => queued.reply(&pending.draft, &[], pending.clock),
            Ok(_) => queued.refuse(RuntimeError::Store(not_owned(id)).into()),
            Err(error) => queued.refuse(RuntimeError::Store(error.clone()).into()),
        }
    }
}

fn log_rest(saga: &Saga) {
    let (saga_id, definition) = (saga.id(), saga.definition().name());
    let status = saga.status().as_str();
    // The log is not sealed.
    let reason = match saga.started().sealed_key {
        Some(_) => SEALED_REASON,
        None => saga.reason().unwrap_or_default(),
    };
    if status == "blocked" {
        tracing::error!(%saga_id, %definition, status, reason, "saga needs an operator");
    } else {
        tracing::debug!(%saga_id, %definition, status, reason, "saga ended");
    }
}
