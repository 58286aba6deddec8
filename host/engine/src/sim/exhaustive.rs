//! Every schedule of one definition, within a budget of faults.
//!
//! A state is everything that the future depends on: the saga, the effects outside, the faults that
//! are left. So the schedules behind a state that was seen before are the same. They are counted
//! and not repeated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, OrderKind, Reply};
use super::figures::Figures;
use super::machine::Machine;
use super::stage::Result;
use super::violation::Violation;
use super::world::World;
use crate::saga::{Progress, StepOutcome, StepState, UndoProgress};
use crate::{CLOCK_TOLERANCE, Definition, Direction, Payload, SagaId, Target, Timestamp};

/// How many faults and orders one schedule may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// The most calls that fail or are lost.
    pub faults: u8,
    /// The most crashes of the host.
    pub crashes: u8,
    /// The most cancellations.
    pub cancels: u8,
    /// The most other orders of an operator.
    pub orders: u8,
    /// The most times that the host notices late, after something else.
    pub delays: u8,
    /// True when components are asked what became of a call: after it, and while its request is
    /// still on its way.
    pub looks: bool,
    /// True when the clock may be set ahead, once, and right again.
    pub clock: bool,
    /// True when every order is tried in which due calls get room.
    pub admissions: bool,
}

/// Runs every schedule of a definition.
///
/// # Errors
/// The first rule that was broken.
pub fn exhaustive(
    machine: &dyn Machine,
    definition: &Arc<Definition>,
    budget: Budget,
) -> std::result::Result<Figures, Box<Violation>> {
    let id = SagaId::from_parts(Timestamp::from_millis(0), &[1; 10]);
    let definition = Arc::clone(definition);
    let (input, at_once) = (Payload::null(), !budget.admissions);
    let world = World::start(machine, definition, input, id, at_once, Duration::ZERO)?;
    let mut search = Search { seen: BTreeMap::new(), figures: world.figures };
    search.figures.schedules = search.explore(&world, budget)?;
    search.figures.states = search.seen.len() as u64;
    Ok(search.figures)
}

/// The state of the search.
struct Search {
    /// The number of schedules from each state on.
    seen: BTreeMap<Vec<u8>, u64>,
    figures: Figures,
}

impl Search {
    /// Returns the number of schedules from a state on, after running all that are new.
    fn explore(&mut self, world: &World<'_>, left: Budget) -> Result<u64> {
        let key = key(world, left);
        if let Some(schedules) = self.seen.get(&key) {
            return Ok(*schedules);
        }
        for events in world.appended_from.max(1)..world.stage.log.len() {
            self.figures.add(world.recover_prefix(events, world.stage.ledger.clone())?);
        }
        let mut schedules = 0_u64;
        for (action, left) in actions(world, left) {
            let mut next = world.clone();
            next.figures = Figures::default();
            next.act(action)?;
            self.figures.add(next.figures);
            schedules = schedules.saturating_add(self.explore(&next, left)?);
        }
        // In a rest nothing can happen but crashes and orders of an operator.
        let rests = world.memory.in_flight.is_empty()
            && world.due().is_empty()
            && world.wake_at().is_none();
        if rests {
            let mut world = world.clone();
            world.figures = Figures::default();
            world.rest()?;
            self.figures.add(world.figures);
            schedules = schedules.saturating_add(1);
        }
        self.seen.insert(key, schedules);
        Ok(schedules)
    }
}

/// Returns everything that can happen next, and the budget after it.
fn actions(world: &World<'_>, left: Budget) -> Vec<(Action, Budget)> {
    let mut actions = Vec::new();
    // Orders are possible after an end, too: a completed saga can be compensated.
    if let Some(orders) = left.orders.checked_sub(1) {
        let left = Budget { orders, ..left };
        // A note changes nothing, and would double the number of schedules.
        for order in OrderKind::ALL.into_iter().filter(|order| *order != OrderKind::Note) {
            let steps = if order.is_about_a_step() { world.stage.units.len() } else { 1 };
            let may = (0..steps).filter(|step| world.may(order, *step));
            actions.extend(may.map(|step| (Action::Order { order, step }, left)));
        }
    }
    if world.memory.saga.has_ended() {
        return actions;
    }
    if world.waits_for_signal() || world.may_signal() {
        actions.push((Action::Signal, left));
    }
    if left.clock {
        actions.push((Action::SetClock { ahead: true }, Budget { clock: false, ..left }));
    } else if !world.ahead.is_zero() {
        actions.push((Action::SetClock { ahead: false }, left));
    }
    for request in 0..world.stage.ledger.on_their_way.len() {
        actions.push((Action::Land { request }, left));
    }
    for due in world.due() {
        let step = world.stage.units.index_of(&due.step).unwrap_or_default();
        actions.push((Action::Admit { step }, left));
        if let Some(faults) = left.faults.checked_sub(1)
            && due.direction == Direction::Execute
        {
            actions.push((Action::Refuse { step }, Budget { faults, ..left }));
        }
    }
    for call in &world.memory.in_flight {
        let step = world.index(call);
        actions.push((Action::Reply { step, reply: Reply::Done }, left));
        let Some(faults) = left.faults.checked_sub(1) else { continue };
        let left = Budget { faults, ..left };
        actions.push((Action::Reply { step, reply: Reply::Permanent }, left));
        if matches!(call.target, Target::Saga { .. }) {
            continue;
        }
        actions.push((Action::Reply { step, reply: Reply::Retryable }, left));
        for landed in [false, true] {
            actions.push((Action::Reply { step, reply: Reply::Lost { landed } }, left));
            if left.looks {
                actions.push((Action::Reply { step, reply: Reply::Probed { landed } }, left));
            }
        }
        if left.looks {
            actions.push((Action::Reply { step, reply: Reply::Looked }, left));
        }
    }
    if world.wake_at().is_some() {
        actions.push((Action::Wait, left));
    }
    if let Some(delays) = left.delays.checked_sub(1)
        && world.may_be_late()
    {
        actions.push((Action::Late, Budget { delays, ..left }));
    }
    if let Some(crashes) = left.crashes.checked_sub(1) {
        let left = Budget { crashes, ..left };
        for landed in subsets(world) {
            actions.push((Action::Crash { landed }, left));
        }
    }
    if let Some(cancels) = left.cancels.checked_sub(1) {
        actions.push((Action::Cancel, Budget { cancels, ..left }));
    }
    actions
}

/// Returns every set of the steps that are in flight.
fn subsets(world: &World<'_>) -> Vec<u128> {
    let steps = world.memory.in_flight.iter().map(|call| 1_u128 << world.index(call));
    steps.fold(vec![0], |sets, step| {
        let with: Vec<_> = sets.iter().map(|set| set | step).collect();
        sets.into_iter().chain(with).collect()
    })
}

/// Returns everything that the future depends on, with times relative to now.
fn key(world: &World<'_>, left: Budget) -> Vec<u8> {
    let saga = &world.memory.saga;
    let mut key = vec![
        left.faults,
        left.crashes,
        left.cancels,
        left.orders,
        left.delays,
        u8::from(left.clock),
        u8::from(world.ahead.is_zero()),
        saga.status() as u8,
        u8::from(saga.wish.is_some()),
        u8::from(saga.paused.is_some()),
        u8::from(saga.given_up.is_some()),
        u8::from(world.stage.record.is_completed),
        u8::try_from(world.stage.record.signals).unwrap_or(u8::MAX),
        u8::try_from(world.stage.record.signals_taken).unwrap_or(u8::MAX),
        u8::from(saga.compensating_since.is_some()),
        u8::from(saga.blocked.is_some()),
    ];
    let relative = |at: Timestamp| at.as_millis().saturating_sub(world.now.as_millis()).max(0);
    let deadline = saga.deadline_in_force().map_or(-1, relative);
    key.extend(deadline.to_be_bytes());
    // Times that were set by a clock that is ahead behave differently once the clock is set right.
    let ahead = i64::try_from(world.ahead.as_millis()).unwrap_or_default();
    let right = Timestamp::from_millis(world.now.as_millis() - ahead);
    let is_ahead = |since: Timestamp| u8::from(since.since(right) > CLOCK_TOLERANCE);
    key.push(saga.deadline.map_or(2, |(_, since)| is_ahead(since)));
    let unborn = StepState::default();
    for (index, effect) in world.stage.ledger.steps.iter().enumerate() {
        let state =
            saga.index_of(world.stage.units.name(index)).map_or(&unborn, |at| &saga.steps[at]);
        let (progress, due) = match state.progress {
            Progress::Pending => (0, -1),
            Progress::Running => (1, -1),
            Progress::BackingOff { retry_at, .. } => (2, relative(retry_at)),
            Progress::Settled(StepOutcome::Succeeded) => (3, -1),
            Progress::Settled(StepOutcome::Failed) => (4, -1),
            Progress::Settled(StepOutcome::Unknown) => (5, -1),
            Progress::Settled(StepOutcome::Skipped) => (6, -1),
            Progress::Undo(UndoProgress::Running) => (7, -1),
            Progress::Undo(UndoProgress::BackingOff { retry_at, .. }) => (8, relative(retry_at)),
            Progress::Undo(UndoProgress::Undone) => (9, -1),
            Progress::Undo(UndoProgress::Blocked) => (10, -1),
            Progress::Undo(UndoProgress::Skipped) => (11, -1),
            Progress::Waiting { until, .. } => (12, until.map_or(-1, relative)),
            Progress::FannedOut => (13, -1),
        };
        let flags = [
            progress,
            u8::from(state.tainted),
            u8::from(state.undo_tainted),
            u8::from(state.output.is_some()),
            u8::from(effect.stands),
            u8::from(effect.is_closed),
            state.timer().map_or(2, |(since, _)| is_ahead(since)),
            u8::from(world.stage.record.steps[index].is_let_go),
        ];
        key.extend(flags);
        let before = [state.attempts_before, state.undo_attempts_before];
        let counts = [state.attempts, state.undo_attempts, effect.times, effect.generation];
        let keys = [state.key_generation, state.undo_key_generation];
        for number in counts.into_iter().chain(keys).chain(before) {
            key.push(u8::try_from(number).unwrap_or(u8::MAX));
        }
        // Until then the answer "it did not happen" does not count. All steps have the same
        // timeout.
        let began_at = match state.progress {
            Progress::Running => state.began_at,
            Progress::Undo(UndoProgress::Running) => state.undo_began_at,
            Progress::Pending
            | Progress::Waiting { .. }
            | Progress::FannedOut
            | Progress::BackingOff { .. }
            | Progress::Settled(_)
            | Progress::Undo(
                UndoProgress::BackingOff { .. }
                | UndoProgress::Blocked
                | UndoProgress::Undone
                | UndoProgress::Skipped,
            ) => None,
        };
        let timeout = saga.definition.steps()[world.stage.units.step(index)].timeout;
        key.extend(began_at.map_or(-1, |at| relative(at.after(timeout))).to_be_bytes());
        key.extend(due.to_be_bytes());
    }
    for request in &world.stage.ledger.on_their_way {
        key.push(u8::try_from(request.step).unwrap_or(u8::MAX));
        key.push(u8::try_from(request.generation).unwrap_or(u8::MAX));
        key.extend(relative(request.until).to_be_bytes());
    }
    key.push(u8::MAX);
    for call in &world.memory.in_flight {
        key.push(u8::try_from(world.index(call)).unwrap_or(u8::MAX));
        key.push(u8::from(call.direction == Direction::Compensate));
    }
    key
}
