//! Calls that something outside the events of their sagas holds back, and that are tried again when
//! that may have changed.

use std::collections::{BTreeMap, HashSet};

use amends_engine::{Direction, SagaId, ServiceName};
use amends_store::StoreHealth;
use tokio::time::Instant;

use super::{STALL_PAUSE, Worker};
use crate::message::Message;
use crate::room_key::RoomKey;
use crate::stall::{Line, Place, Stall, StallReason};

/// Sagas that go on at once when the store works again; others of the worker take turns with them.
const WOKEN_AT_ONCE: usize = 256;

impl Worker {
    /// Has each call of a saga wait in the line for what it lacks, or the saga look again after a
    /// while. A call that lacks the same thing as before keeps its place.
    pub(super) fn remember_stalls(&mut self, id: SagaId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        // Nobody says when these are there; of the last somebody does, unless the search broke off.
        let is_silent = |stall: &Stall| match stall.reason {
            StallReason::PluginMissing { .. }
            | StallReason::Machine(_)
            | StallReason::ComponentSought(_) => true,
            StallReason::NoRoom(_) | StallReason::BreakerOpen { .. } => false,
        };
        let looks_again = live.stalls.iter().any(is_silent);
        let mut left = std::mem::take(&mut live.places);
        for stall in &live.stalls {
            let Some(wanted) = stall.line() else { continue };
            let key = (stall.step.clone(), stall.direction);
            let place = if left.get(&key).is_some_and(|place| place.line == wanted) {
                left.remove(&key)
            } else {
                self.places += 1;
                self.lines.entry(wanted.clone()).or_default().insert(self.places, id);
                Some(Place { line: wanted, number: self.places })
            };
            live.places.extend(place.map(|place| (key, place)));
        }
        for place in left.values() {
            self.leave_line(place);
        }
        if looks_again {
            self.stall(id);
        }
    }

    pub(super) fn stall(&mut self, id: SagaId) {
        self.stalled.insert(id);
        self.stalled_until.get_or_insert(Instant::now() + STALL_PAUSE);
    }

    /// Has a saga wait until the store takes writes again. Nobody need try meanwhile: the store
    /// looks by itself.
    pub(super) fn await_store(&mut self, id: SagaId) {
        let is_well = matches!(*self.config.health.borrow(), StoreHealth::Well);
        if is_well {
            // It may have said so before this saga came.
            self.stall(id);
        } else {
            self.await_store.insert(id);
        }
    }

    /// The store takes writes again: who could not append goes on, some at a time.
    pub(super) fn store_works(&mut self) {
        if !matches!(*self.config.health.borrow(), StoreHealth::Well) {
            return;
        }
        let some: Vec<_> = self.await_store.iter().copied().take(WOKEN_AT_ONCE).collect();
        for id in some {
            self.await_store.remove(&id);
            self.advance(id);
        }
        if !self.await_store.is_empty()
            && let Some(inbox) = self.config.inbox.upgrade()
        {
            let _ = inbox.send(Message::StoreWorks);
        }
    }

    pub(super) fn leave_line(&mut self, place: &Place) {
        if let Some(line) = self.lines.get_mut(&place.line) {
            line.remove(&place.number);
            if line.is_empty() {
                self.lines.remove(&place.line);
            }
        }
    }

    /// There is room: undos first, and no more of each than find some.
    pub(super) fn room(&mut self, key: &RoomKey) {
        for direction in [Direction::Compensate, Direction::Execute] {
            self.wake_some(&Line::Room(key.clone(), direction));
        }
    }

    /// Of the calls in a line, as many go on as find what they wait for.
    pub(super) fn wake_some(&mut self, line: &Line) {
        let mut after = 0;
        while let Some((number, id)) = self.next_in_line(line, after) {
            after = number;
            // It tries again by itself when its append is durable, and keeps its place until then.
            if self.live.get(&id).is_some_and(|live| live.pending.is_some()) {
                continue;
            }
            self.advance(id);
            let Some(saga) = self.live.get(&id) else { continue };
            // One that waits for the store has not been decided on: it says what it lacks when
            // its turn comes.
            let lacks = |stall: &Stall| stall.line().as_ref() == Some(line);
            if !saga.waits_for_store && saga.stalls.iter().any(lacks) {
                break;
            }
        }
    }

    pub(super) fn breaker_has_changed(&mut self, service: ServiceName) {
        let waiting =
            self.lines.get(&Line::Breaker(service)).into_iter().flat_map(BTreeMap::values);
        let mut seen = HashSet::new();
        let sagas: Vec<_> = waiting.copied().filter(|id| seen.insert(*id)).collect();
        for id in sagas {
            self.advance(id);
        }
    }

    /// Returns the first place of a line after a number, and whose it is.
    fn next_in_line(&self, line: &Line, after: u64) -> Option<(u64, SagaId)> {
        let mut places = self.lines.get(line)?.range(after + 1..);
        places.next().map(|(number, id)| (*number, *id))
    }
}
