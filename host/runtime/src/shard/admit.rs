//! Which calls may begin: the component is there, and there is room.

use amends_engine::{Command, Direction, Event, Input, Saga, Timestamp, commands};

use super::{Shard, try_decide};
use crate::dispatch::component;
use crate::limits::{CALLS_KEPT_FOR_UNDO, CALLS_MAX};
use crate::live::StallReason;

impl Shard {
    /// Admits every call of `draft` that is due: adds the facts to `events` and takes the room.
    /// Answers how many, and what holds the rest back.
    pub(super) async fn admit(
        &mut self,
        draft: &mut Saga,
        events: &mut Vec<Event>,
        at: Timestamp,
    ) -> (usize, Option<StallReason>) {
        let (mut admitted, mut stall) = (0, None);
        if self.stop.is_some() {
            return (0, None);
        }
        let due: Vec<_> = commands(draft)
            .filter_map(|command| match command {
                Command::Start(due) => Some(due),
                Command::Run(_) | Command::Wake(_) => None,
            })
            .filter(|due| due.at.is_none_or(|due| due <= at))
            .collect();
        for due in due {
            if !self.has_room(due.direction) {
                stall = Some(StallReason::NoRoom);
                continue;
            }
            let Some((digest, note)) = component(&self.config.plugins, draft, &due).await else {
                stall = Some(StallReason::PluginMissing(due.plugin));
                continue;
            };
            let (step, direction) = (due.step, due.direction);
            let input = Input::Admit { step, direction, digest, note };
            let before = events.len();
            if try_decide(draft, at, &input, events).is_ok() && events.len() > before {
                admitted += 1;
                self.calls_in_flight += 1;
            }
        }
        (admitted, stall)
    }

    pub(super) fn has_room_for_undo(&self) -> bool {
        self.has_room(Direction::Compensate)
    }

    fn has_room(&self, direction: Direction) -> bool {
        let all = CALLS_MAX / self.config.shards;
        let kept = match direction {
            Direction::Execute => CALLS_KEPT_FOR_UNDO / self.config.shards,
            Direction::Compensate => 0,
        };
        self.calls_in_flight < all.saturating_sub(kept).max(1)
    }
}
