//! Sagas that something outside their events holds back, and that look again when that may have
//! changed.

use amends_engine::{Command, Direction, SagaId, ServiceName, commands};
use tokio::time::Instant;

use super::{STALL_PAUSE, Shard};
use crate::live::{Line, Live, StallReason};
use crate::rooms::RoomKey;

impl Shard {
    /// Has a saga wait in line, or look again after a while.
    pub(super) fn remember_stall(&mut self, id: SagaId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let wanted = match &live.stall {
            Some(StallReason::NoRoom(key)) => Some(Line::Room(key.clone(), direction(live))),
            Some(StallReason::BreakerOpen { service, .. }) => Some(Line::Breaker(service.clone())),
            Some(StallReason::PluginMissing(_) | StallReason::Machine(_)) | None => None,
        };
        let looks_again =
            matches!(live.stall, Some(StallReason::PluginMissing(_) | StallReason::Machine(_)));
        if live.in_line != wanted {
            let before = std::mem::replace(&mut live.in_line, wanted.clone());
            self.leave_line(id, before.as_ref());
            if let Some(wanted) = wanted {
                self.lines.entry(wanted).or_default().push_back(id);
            }
        }
        if looks_again {
            self.stall(id);
        }
    }

    pub(super) fn stall(&mut self, id: SagaId) {
        self.stalled.insert(id);
        self.stalled_until.get_or_insert(Instant::now() + STALL_PAUSE);
    }

    pub(super) fn leave_line(&mut self, id: SagaId, line: Option<&Line>) {
        if let Some(line) = line
            && let Some(waiting) = self.lines.get_mut(line)
        {
            waiting.retain(|other| *other != id);
            if waiting.is_empty() {
                self.lines.remove(line);
            }
        }
    }

    /// There is room: undos first, and no more of each than find some.
    pub(super) async fn room(&mut self, key: &RoomKey) {
        for direction in [Direction::Compensate, Direction::Execute] {
            let line = Line::Room(key.clone(), direction);
            while let Some(id) = self.next_in_line(&line) {
                // It tries again by itself when its append is durable.
                if self.live.get(&id).is_some_and(|live| live.pending.is_some()) {
                    continue;
                }
                self.advance(id).await;
                let stall = self.live.get(&id).and_then(|live| live.stall.as_ref());
                if stall == Some(&StallReason::NoRoom(key.clone())) {
                    break;
                }
            }
        }
    }

    pub(super) async fn service_is_back(&mut self, service: ServiceName) {
        let line = Line::Breaker(service);
        let waiting = self.lines.get(&line).map_or(0, std::collections::VecDeque::len);
        for _ in 0..waiting {
            let Some(id) = self.next_in_line(&line) else { return };
            self.advance(id).await;
        }
    }

    fn next_in_line(&mut self, line: &Line) -> Option<SagaId> {
        let waiting = self.lines.get_mut(line)?;
        let id = waiting.pop_front();
        if waiting.is_empty() {
            self.lines.remove(line);
        }
        if let Some(live) = id.and_then(|id| self.live.get_mut(&id)) {
            live.in_line = None;
        }
        id
    }
}

/// Which way the call goes that waits: an undo, if one does.
fn direction(live: &Live) -> Direction {
    let is_undo = commands(&live.saga).any(|command| match command {
        Command::Start(due) => due.direction == Direction::Compensate,
        Command::Run(_) | Command::CancelChild(_) | Command::Wake(_) => false,
    });
    let is_undo = is_undo || live.unbegun.keys().any(|(_, way)| *way == Direction::Compensate);
    if is_undo { Direction::Compensate } else { Direction::Execute }
}
