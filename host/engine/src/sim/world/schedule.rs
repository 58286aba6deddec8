//! Actions one after the other, and the way to a rest.

use std::time::Duration;

use super::World;
use crate::sim::action::{Action, OrderKind, Reply};
use crate::sim::figures::Figures;
use crate::sim::ledger::{Ledger, PendingRequest};
use crate::sim::stage::Result;
use crate::{Direction, Failure, Input, Payload, SagaStatus, Timestamp, Verb};

/// The most appends of a run. A run with more counts as one that never ends.
const APPENDS_MAX: u64 = 20_000;

/// How far a wrong clock is ahead: more than any simulated pause.
const CLOCK_AHEAD: Duration = Duration::from_hours(1);

impl World<'_> {
    /// Does one action.
    pub(in crate::sim) fn act(&mut self, action: Action) -> Result<()> {
        self.actions.push(action);
        self.act_once(action).map_err(|violation| violation.after(&self.actions))?;
        let Ledger { steps, on_their_way } = &mut self.stage.ledger;
        on_their_way.retain(|request| request.may_land(&steps[request.step], self.now));
        Ok(())
    }

    /// Does one action, without discarding requests that can no longer arrive.
    fn act_once(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Admit { step } => {
                let name = self.stage.units.name(step);
                let Some(due) = self.due().into_iter().find(|due| due.step == *name) else {
                    return Ok(());
                };
                let mut draft = self.memory.draft(self.now);
                self.stage.admit(&mut draft, due);
                self.append(draft)
            }
            Action::Reply { step, reply } => self.reply(step, reply),
            Action::Wait => {
                if let Some(at) = self.wake_at() {
                    self.now = at;
                }
                self.feed(Input::Tick)
            }
            Action::Late => {
                self.now = self.wake_at().unwrap_or(self.now);
                Ok(())
            }
            Action::SetClock { ahead } => self.set_clock(ahead),
            Action::Land { request } => {
                let PendingRequest { step, generation, .. } =
                    self.stage.ledger.on_their_way.remove(request);
                self.stage.do_call(step, (Direction::Execute, generation)).map(drop)
            }
            Action::Crash { landed } => self.crash(landed),
            Action::Cancel => self.operate(&Verb::Cancel),
            Action::Refuse { step } => {
                self.memory.answers[step] = None;
                let step = self.stage.units.name(step).clone();
                let error = Failure::new("breaker_open", "a simulated refusal");
                self.feed(Input::Refuse { step, error })
            }
            Action::Signal => {
                let Some(name) = self.stage.definition.signals().next().cloned() else {
                    return Ok(());
                };
                let id = Some(self.stage.record.signals.to_string());
                let signal = |payload| Input::Signal {
                    name: name.clone(),
                    id: id.clone(),
                    payload,
                    who: None,
                };
                self.feed_and_hear(signal(Payload::null()), "signal.received", None)?;
                // The same signal again, with the same id.
                self.figures.repeats += 1;
                let (machine, saga) = (self.stage.machine, &self.memory.saga);
                let again = machine.decide(saga, self.now, signal(Payload::null()));
                if again.is_empty() {
                    return Ok(());
                }
                Err(self.violation("a signal is taken twice".to_owned()))
            }
            Action::Order { order, step } => self.order(order, step),
        }
    }

    /// Sets the clock ahead or right, and lets the host notice.
    fn set_clock(&mut self, ahead: bool) -> Result<()> {
        if ahead {
            self.ahead = CLOCK_AHEAD;
            self.now = self.now.after(CLOCK_AHEAD);
            // A wrong clock says nothing about how long requests take.
            self.stage.ledger.on_their_way.clear();
        } else {
            let back = std::mem::take(&mut self.ahead);
            let earlier = |at: Timestamp| {
                let millis = i64::try_from(back.as_millis()).unwrap_or_default();
                Timestamp::from_millis(at.as_millis() - millis)
            };
            self.now = earlier(self.now);
            for request in &mut self.stage.ledger.on_their_way {
                request.until = earlier(request.until);
            }
        }
        self.feed(Input::Tick)
    }

    /// Goes on without any fault until nothing moves, and checks that rest.
    pub(in crate::sim) fn finish(&mut self) -> Result<()> {
        loop {
            if self.figures.appends > APPENDS_MAX {
                let rule = format!("no end after {APPENDS_MAX} appends");
                return Err(self.violation(rule).after(&self.actions));
            }
            if !self.ahead.is_zero() {
                self.act(Action::SetClock { ahead: false })?;
            } else if let Some(call) = self.memory.in_flight.first() {
                let step = self.index(call);
                self.act(Action::Reply { step, reply: Reply::Done })?;
            } else if let Some(due) = self.due().first() {
                let step = self.stage.units.index_of(&due.step).unwrap_or_default();
                self.act(Action::Admit { step })?;
            } else if self.wake_at().is_some() && !self.stage.record.is_paused {
                self.act(Action::Wait)?;
            } else if self.may(OrderKind::Resume, 0) {
                self.act(Action::Order { order: OrderKind::Resume, step: 0 })?;
            } else if self.waits_for_signal() {
                self.act(Action::Signal)?;
            } else {
                return self.rest();
            }
        }
    }

    /// Checks a state in which nothing can happen any more, and counts it.
    pub(in crate::sim) fn rest(&mut self) -> Result<()> {
        self.stage.at_rest(self.now).map_err(|violation| violation.after(&self.actions))?;
        let end = match self.memory.saga.status() {
            SagaStatus::Completed => 0,
            SagaStatus::Compensated => 1,
            SagaStatus::Running
            | SagaStatus::Waiting
            | SagaStatus::Paused
            | SagaStatus::Compensating
            | SagaStatus::Blocked
            | SagaStatus::Abandoned => 2,
        };
        self.figures.ends[end] += 1;
        Ok(())
    }

    /// Recovers a host whose log ends after `events` events, and runs it to its end.
    pub(in crate::sim) fn recover_prefix(&self, events: usize, ledger: Ledger) -> Result<Figures> {
        let stage = self.stage.cut(events, ledger);
        let now = stage.log.last().map_or(self.now, |(at, _)| *at);
        let mut world = Self { stage, now, figures: Figures::default(), ..self.clone() };
        world.memory.in_flight.clear();
        world.act(Action::Crash { landed: 0 })?;
        world.finish()?;
        Ok(Figures {
            prefixes: 1,
            crashes: 1,
            appends: world.figures.appends,
            ..Figures::default()
        })
    }
}
