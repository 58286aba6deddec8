//! Sagas that something outside their events holds back, and that look again when that may have
//! changed.

use amends_engine::{Direction, SagaId, ServiceName};
use amends_store::StoreHealth;
use tokio::time::Instant;

use super::{STALL_PAUSE, Shard};
use crate::message::Message;
use crate::room_key::RoomKey;
use crate::stall::{Line, Stall, StallReason};

/// Sagas that go on at once when the store works again; others of the shard take turns with them.
const WOKEN_AT_ONCE: usize = 256;

impl Shard {
    /// Has a saga wait in a line for each thing that it lacks, or look again after a while.
    pub(super) fn remember_stalls(&mut self, id: SagaId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let mut wanted: Vec<Line> = Vec::new();
        for line in live.stalls.iter().filter_map(Stall::line) {
            if !wanted.contains(&line) {
                wanted.push(line);
            }
        }
        // Nobody says when these are there; of the last somebody does, unless the search broke off.
        let is_silent = |stall: &Stall| match stall.reason {
            StallReason::PluginMissing { .. }
            | StallReason::Machine(_)
            | StallReason::ComponentSought(_) => true,
            StallReason::NoRoom(_)
            | StallReason::BreakerOpen { .. }
            | StallReason::StoreFailed(_) => false,
        };
        let looks_again = live.stalls.iter().any(is_silent);
        let before = std::mem::replace(&mut live.in_lines, wanted.clone());
        for line in before.iter().filter(|line| !wanted.contains(line)) {
            self.leave_line(id, line);
        }
        for line in wanted.into_iter().filter(|line| !before.contains(line)) {
            self.lines.entry(line).or_default().push_back(id);
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

    pub(super) fn leave_line(&mut self, id: SagaId, line: &Line) {
        if let Some(waiting) = self.lines.get_mut(line) {
            waiting.retain(|other| *other != id);
            if waiting.is_empty() {
                self.lines.remove(line);
            }
        }
    }

    /// There is room: undos first, and no more of each than find some.
    pub(super) fn room(&mut self, key: &RoomKey) {
        for direction in [Direction::Compensate, Direction::Execute] {
            self.wake_some(&Line::Room(key.clone(), direction));
        }
    }

    /// Of the sagas in a line, as many go on as find what they wait for.
    pub(super) fn wake_some(&mut self, line: &Line) {
        while let Some(id) = self.next_in_line(line) {
            // It tries again by itself when its append is durable.
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
        let line = Line::Breaker(service);
        let waiting = self.lines.get(&line).map_or(0, std::collections::VecDeque::len);
        for _ in 0..waiting {
            let Some(id) = self.next_in_line(&line) else { return };
            self.advance(id);
        }
    }

    fn next_in_line(&mut self, line: &Line) -> Option<SagaId> {
        let waiting = self.lines.get_mut(line)?;
        let id = waiting.pop_front();
        if waiting.is_empty() {
            self.lines.remove(line);
        }
        if let Some(live) = id.and_then(|id| self.live.get_mut(&id)) {
            live.in_lines.retain(|other| other != line);
        }
        id
    }
}
