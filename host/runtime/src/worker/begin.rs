//! Calls that are durable and did not begin, because the host lacked something: they begin, as the same
//! attempt, when it is there. Nothing of them has left the sandbox, so no attempt is used.

use amends_engine::{
    Call, Command, Direction, Failure, Input, Outcome, PluginName, SagaId, SagaStatus, ServiceName,
    StepName, Target, Timestamp, commands,
};
use amends_sandbox::Lacks;
use amends_store::Shard;
use tokio::time::Instant;

use super::{STALL_PAUSE, Worker, WorkerConfig, counted, next_number};
use crate::breakers::permit::Permit;
use crate::breakers::settings::Admission;
use crate::live::{Pass, Queued, Unbegun};
use crate::message::Returned;
use crate::rooms::{OfPlugin, Taken};
use crate::stall::{Stall, StallReason};
use amends_registry::now;

/// Why a call may not begin now.
pub(super) enum Barred {
    /// It is woken when that changes.
    Waits(StallReason),
    /// The step is not to wait for its service, and fails; a call that has to be made waits.
    Fails(Box<Failure>, StallReason),
}

impl WorkerConfig {
    /// Takes room for a call, or says whose room is full; then the worker is woken when there is some.
    fn take(
        &self,
        direction: Direction,
        plugin: &PluginName,
        service: Option<&ServiceName>,
    ) -> Result<Taken, StallReason> {
        let memory = self.plugins.memory(plugin);
        let of_plugin = OfPlugin {
            name: plugin,
            concurrency: self.plugins.concurrency(plugin),
            memory: &memory,
        };
        let taken = self.rooms.take(self.number, direction, &of_plugin, service);
        taken.map_err(StallReason::NoRoom)
    }

    /// What a call begins with: room, and the leave of its service's breaker.
    ///
    /// # Errors
    /// Which of them it does not get.
    pub(super) fn pass(
        &self,
        direction: Direction,
        plugin: &PluginName,
        service: Option<&ServiceName>,
        at: Timestamp,
    ) -> Result<Pass, Barred> {
        let room = Some(self.take(direction, plugin, service).map_err(Barred::Waits)?);
        let Some(service) = service else { return Ok(Pass { room, permit: None }) };
        // Last, because a breaker that is half open lets a few calls through, and those must run.
        let is_undo = direction == Direction::Compensate;
        let open = |until| StallReason::BreakerOpen { service: service.clone(), until };
        match self.breakers.admit(service, is_undo, at) {
            Admission::Go(ticket) => {
                let permit = Some(Permit::new(&self.breakers, service, ticket));
                Ok(Pass { room, permit })
            }
            Admission::Wait { until } => Err(Barred::Waits(open(until))),
            Admission::Fail { until } => {
                let time = until
                    .map_or_else(|| "an operator closes it".to_owned(), |until| until.to_string());
                let message = format!("the breaker of service `{service}` is open until {time}");
                let failure = Failure::new("breaker_open", message);
                Err(Barred::Fails(Box::new(failure), open(until)))
            }
        }
    }
}

/// What a host lacks whose lease is over, as words for people.
const NO_LEASE: &str = "its lease is over, so another host may have the saga; the calls of this one \
                        begin when the lease is renewed";

impl Worker {
    /// Whether no other host can have a saga of this one.
    pub(super) fn has_lease(&self, id: SagaId) -> bool {
        self.owned.of(id).is_some_and(Shard::has_lease)
    }

    /// Keeps a call back that is durable, because the lease is over.
    pub(super) fn hold(&mut self, id: SagaId, call: &Call) {
        if let Some(live) = self.live.get_mut(&id) {
            let lacked = Some((NO_LEASE.to_owned(), Instant::now() + STALL_PAUSE));
            let key = (call.step.clone(), call.direction);
            live.wait_to_begin(key, Unbegun { cut_off: None, lacked });
        }
    }

    /// Takes down that a call did not begin. It is tried again when its saga is next.
    pub(super) fn did_not_begin(
        &mut self,
        id: SagaId,
        key: (StepName, Direction),
        cut_off: Option<std::time::Instant>,
        lacks: Lacks,
    ) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let lacked = match lacks {
            // It now takes as much as it wanted, and so waits until there is.
            Lacks::Memory => None,
            // Nobody says when there is some.
            Lacks::Machine(words) => Some((words, Instant::now() + STALL_PAUSE)),
        };
        live.wait_to_begin(key, Unbegun { cut_off, lacked });
    }

    /// Has those calls of a saga run that can begin by now, and says what the others wait for.
    pub(super) fn begin_again(&mut self, id: SagaId) -> Vec<Stall> {
        loop {
            let Some(live) = self.live.get_mut(&id) else { return Vec::new() };
            if live.unbegun.is_empty() {
                return Vec::new();
            }
            let running: Vec<_> = commands(&live.saga)
                .filter_map(|command| match command {
                    Command::Run(call) => Some(call),
                    Command::Start(_) | Command::CancelChild(_) | Command::Wake(_) => None,
                })
                .collect();
            let (mut stalls, mut over) = (Vec::new(), Vec::new());
            for (key, unbegun) in std::mem::take(&mut live.unbegun) {
                let is_it = |call: &&Call| (&call.step, call.direction) == (&key.0, key.1);
                let call = running.iter().find(is_it).cloned();
                match self.begin(id, &key, call, unbegun) {
                    Ok(returned) => over.extend(returned),
                    Err((unbegun, reason)) => {
                        let (step, direction) = key.clone();
                        stalls.extend(reason.map(|reason| Stall { step, direction, reason }));
                        if let Some(live) = self.live.get_mut(&id) {
                            live.wait_to_begin(key, unbegun);
                        }
                    }
                }
            }
            let is_stable = over.iter().all(|returned| returned.not_begun.is_none());
            for returned in over {
                self.hear(returned);
            }
            // One that did not begin again wants more than before, which it gets or waits for.
            if is_stable {
                return stalls;
            }
        }
    }

    /// Has a call run that did not begin; what came of it, if it is over at once.
    ///
    /// # Errors
    /// What it waits for; nothing when an operator holds its saga.
    fn begin(
        &mut self,
        id: SagaId,
        key: &(StepName, Direction),
        call: Option<Call>,
        unbegun: Unbegun,
    ) -> Result<Option<Returned>, (Unbegun, Option<StallReason>)> {
        let has_lease = self.has_lease(id);
        let Some(live) = self.live.get_mut(&id) else { return Ok(None) };
        let Some(call) = call else {
            // Its saga waits for it no more.
            live.in_flight.remove(key);
            live.reran.remove(key);
            return Ok(None);
        };
        let is_undone =
            call.direction == Direction::Execute && live.saga.compensating_since().is_some();
        let may_end = unbegun.cut_off.is_none() && !live.reran.contains_key(key);
        if (is_undone || self.stop.is_some()) && may_end {
            let message =
                "the call had not begun when the host stopped or its saga was to be undone";
            let failed = Outcome::Retryable(Failure::new("not_begun", message));
            live.inputs.push_back(never_began(&call, failed));
            return Ok(None);
        }
        // An operator has paused the saga since. Asking about a call makes none.
        if live.saga.status() == SagaStatus::Paused && unbegun.cut_off.is_none() {
            return Err((unbegun, None));
        }
        if let Some((words, until)) = &unbegun.lacked
            && *until > Instant::now()
        {
            let reason = StallReason::Machine(words.clone());
            return Err((unbegun, Some(reason)));
        }
        if !has_lease {
            let lacked = Some((NO_LEASE.to_owned(), Instant::now() + STALL_PAUSE));
            let reason = StallReason::Machine(NO_LEASE.to_owned());
            return Err((Unbegun { lacked, ..unbegun }, Some(reason)));
        }
        let Target::Plugin(plugin) = &call.target else {
            // One that runs a saga takes no room.
            live.in_flight.remove(key);
            return Ok(self.dispatch(id, call, Pass::default()));
        };
        if let Some(cut_off) = unbegun.cut_off {
            let room = match self.config.take(call.direction, plugin, call.service.as_ref()) {
                Ok(room) => room,
                Err(reason) => return Err((unbegun, Some(reason))),
            };
            self.calls_in_flight += counted(&call.target);
            let number = next_number(&mut self.calls_made);
            let asked = self.dispatcher.recover(&live.saga, (number, call), Some(room), cut_off);
            live.in_flight.insert(key.clone(), asked);
            return Ok(None);
        }
        match self.config.pass(call.direction, plugin, call.service.as_ref(), now()) {
            Ok(pass) => {
                live.in_flight.remove(key);
                Ok(self.dispatch(id, call, pass))
            }
            Err(Barred::Fails(failure, _)) if may_end => {
                live.inputs.push_back(never_began(&call, Outcome::Permanent(*failure)));
                Ok(None)
            }
            // What it did when it ran before may stand, so it has to run again.
            Err(Barred::Waits(reason) | Barred::Fails(_, reason)) => Err((unbegun, Some(reason))),
        }
    }
}

/// What is told of a call that will not begin: nothing of it happened.
fn never_began(call: &Call, failed: Outcome) -> Queued {
    Queued::from(Input::Outcome {
        step: call.step.clone(),
        direction: call.direction,
        attempt: call.attempt,
        outcome: failed,
        probe: None,
        emitted: Vec::new(),
    })
}
