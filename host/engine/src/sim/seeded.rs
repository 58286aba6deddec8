//! One long random run.

use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, OrderKind, Reply};
use super::figures::Figures;
use super::generate::{Random, random};
use super::machine::Machine;
use super::violation::Violation;
use super::world::World;
use crate::{Direction, Payload, SagaId, Target, Timestamp};

/// The number of actions after which faults stop, so that a run ends.
const ACTIONS_WITH_FAULTS_MAX: usize = 300;

/// Runs a random definition with random faults, then recovers every prefix of its log.
/// The same seed gives the same run.
///
/// # Errors
/// The rule that was broken.
pub fn seeded(machine: &dyn Machine, seed: u64) -> Result<Figures, Box<Violation>> {
    let mut chance = Random::new(seed);
    let definition = Arc::new(random(&mut chance));
    let input = Payload::parse(r#"{"yes":true}"#).unwrap_or_else(|_| Payload::null());
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&chance.next().to_be_bytes());
    let id = SagaId::from_parts(Timestamp::from_millis(0), &bytes);
    let admits_at_once = chance.chance(50);
    let delay = if chance.chance(20) { 1 + chance.below(20_000) as u64 } else { 0 };
    let delay = Duration::from_millis(delay);
    let mut world = World::start(machine, definition, input, id, admits_at_once, delay)?;
    let faults = Faults {
        call: chance.below(40),
        permanent: chance.below(30),
        crash: chance.below(15),
        cancel: chance.below(3),
        order: chance.below(10),
        delay: chance.below(10),
        clock: chance.below(3),
    };
    let mut appends = vec![(world.stage.log.len(), world.stage.ledger.clone())];
    for _ in 0..ACTIONS_WITH_FAULTS_MAX {
        let Some(action) = faults.choose(&world, &mut chance) else { break };
        world.act(action)?;
        appends.push((world.stage.log.len(), world.stage.ledger.clone()));
    }
    world.finish()?;
    let mut figures = Figures { schedules: 1, ..world.figures };
    let mut from = 1;
    for (until, ledger) in appends {
        for events in from..=until {
            figures.add(world.recover_prefix(events, ledger.clone())?);
        }
        from = until + 1;
    }
    Ok(figures)
}

/// The chances of faults and orders, in percent.
struct Faults {
    call: usize,
    permanent: usize,
    crash: usize,
    cancel: usize,
    order: usize,
    delay: usize,
    clock: usize,
}

impl Faults {
    /// Chooses the next action; none when nothing can happen.
    fn choose(&self, world: &World<'_>, chance: &mut Random) -> Option<Action> {
        if chance.chance(self.order) {
            let step = chance.below(world.stage.units.len());
            // Abandoning ends the saga, so it is rare.
            let orders = OrderKind::ALL.len() - usize::from(!chance.chance(3));
            return Some(Action::Order { order: OrderKind::ALL[chance.below(orders)], step });
        }
        if world.memory.saga.has_ended() {
            return None;
        }
        if world.waits_for_signal() && chance.chance(20) || world.may_signal() && chance.chance(5) {
            return Some(Action::Signal);
        }
        if world.may_be_late() && chance.chance(self.delay) {
            return Some(Action::Late);
        }
        if chance.chance(self.clock) {
            return Some(Action::SetClock { ahead: world.ahead.is_zero() });
        }
        let requests = &world.stage.ledger.on_their_way;
        let request = chance.below(requests.len());
        if request < requests.len() && chance.chance(20) {
            return Some(Action::Land { request });
        }
        if chance.chance(self.crash) {
            let landed = u128::from(chance.next()) << 64 | u128::from(chance.next());
            return Some(Action::Crash { landed });
        }
        if chance.chance(self.cancel) {
            return Some(Action::Cancel);
        }
        let (calls, due) = (world.memory.in_flight.len(), world.due());
        let waits = usize::from(world.wake_at().is_some());
        let choice = chance.below(calls + due.len() + waits);
        if let Some(call) = world.memory.in_flight.get(choice) {
            let step = world.index(call);
            let is_saga = matches!(call.target, Target::Saga { .. });
            let reply = self.reply(chance);
            let fits = !is_saga || matches!(reply, Reply::Done | Reply::Permanent);
            return Some(Action::Reply { step, reply: if fits { reply } else { Reply::Done } });
        }
        if let Some(due) = due.get(choice.saturating_sub(calls)) {
            let step = world.stage.units.index_of(&due.step)?;
            let is_refused = due.direction == Direction::Execute && chance.chance(self.call / 8);
            return Some(if is_refused { Action::Refuse { step } } else { Action::Admit { step } });
        }
        (waits > 0).then_some(Action::Wait)
    }

    /// Chooses how a call ends.
    fn reply(&self, chance: &mut Random) -> Reply {
        if !chance.chance(self.call) {
            return Reply::Done;
        }
        if chance.chance(self.permanent) {
            return Reply::Permanent;
        }
        let landed = chance.chance(50);
        match chance.below(4) {
            0 => Reply::Retryable,
            1 => Reply::Probed { landed },
            2 => Reply::Looked,
            _ => Reply::Lost { landed },
        }
    }
}
