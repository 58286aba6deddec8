//! Which calls may begin: the component is there, its service may be called, and there is room.

use std::collections::HashMap;

use amends_engine::{
    Command, Definition, Digest, Direction, Due, Event, Failure, Input, Saga, StepName, Target,
    Timestamp, commands,
};
use amends_store::failpoint;

use super::{Shard, ShardConfig, try_decide};
use crate::breakers::Admission;
use crate::dispatch::component;
use crate::live::StallReason;
use crate::rooms::Taken;

/// What became of the calls that were due.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    pub(super) rooms: HashMap<(StepName, Direction), Taken>,
    /// What holds the rest back.
    pub(super) stall: Option<StallReason>,
}

/// What becomes of one.
enum Answer {
    Admit { digest: Digest, note: Option<String>, room: Option<Taken> },
    Refuse(Failure),
    Stall(StallReason),
}

impl Shard {
    /// Admits every call of `draft` that is due: adds the facts to `events` and takes the room.
    ///
    /// # Errors
    /// When the engine broke an invariant of its own; the draft is worth nothing then.
    pub(super) async fn admit(
        &mut self,
        draft: &mut Saga,
        events: &mut Vec<Event>,
        at: Timestamp,
    ) -> Result<Admitted, String> {
        let mut admitted = Admitted::default();
        if self.stop.is_some() {
            return Ok(admitted);
        }
        // A call that is refused fails its step, and what follows from that is due at once.
        while self.admit_due(draft, events, at, &mut admitted).await? {}
        Ok(admitted)
    }

    /// Whether a call was refused.
    async fn admit_due(
        &mut self,
        draft: &mut Saga,
        events: &mut Vec<Event>,
        at: Timestamp,
        admitted: &mut Admitted,
    ) -> Result<bool, String> {
        let due: Vec<_> = commands(draft)
            .filter_map(|command| match command {
                Command::Start(due) => Some(due),
                Command::Run(_) | Command::CancelChild(_) | Command::Wake(_) => None,
            })
            .filter(|due| due.at.is_none_or(|due| due <= at))
            .collect();
        admitted.stall = None;
        let mut is_refused = false;
        for due in due {
            let (step, direction) = (due.step.clone(), due.direction);
            let (input, room) = match answer(&self.config, draft, &due, at).await {
                Answer::Admit { digest, note, room } => {
                    let step = step.clone();
                    (Input::Admit { step, direction, digest, note }, room)
                }
                Answer::Refuse(error) => (Input::Refuse { step: step.clone(), error }, None),
                Answer::Stall(stall) => {
                    admitted.stall = Some(stall);
                    continue;
                }
            };
            let (before, refuses) = (events.len(), matches!(input, Input::Refuse { .. }));
            try_decide(draft, at, input, events)?;
            if events.len() > before {
                failpoint(match direction {
                    Direction::Execute => "runtime.step.admitted",
                    Direction::Compensate => "runtime.undo.admitted",
                });
                admitted.rooms.extend(room.map(|room| ((step, direction), room)));
                is_refused |= refuses;
            }
        }
        Ok(is_refused)
    }
}

async fn answer(config: &ShardConfig, draft: &Saga, due: &Due, at: Timestamp) -> Answer {
    let plugin = match &due.target {
        Target::Plugin(plugin) => plugin,
        Target::Saga { definition, .. } => {
            let digest = match config.sagas.definition(definition) {
                Some(definition) => Definition::digest(&definition),
                // The call says so; an undo finds its saga by the id alone.
                None => Digest::of(definition.as_str().as_bytes()),
            };
            return Answer::Admit { digest, note: None, room: None };
        }
    };
    let served = component(&config.plugins, draft, due, plugin).await;
    let Some((digest, note)) = served else {
        return Answer::Stall(StallReason::PluginMissing(plugin.clone()));
    };
    let room = config.take(due.direction, plugin, due.service.as_ref());
    let room = match room {
        Ok(room) => room,
        Err(key) => return Answer::Stall(StallReason::NoRoom(key)),
    };
    // Last, because a breaker that is half open lets a few calls through, and those must run.
    let is_undo = due.direction == Direction::Compensate;
    let admission =
        due.service.as_ref().map(|service| (service, config.breakers.admit(service, is_undo, at)));
    match admission {
        None | Some((_, Admission::Go)) => Answer::Admit { digest, note, room: Some(room) },
        Some((service, Admission::Wait { until })) => {
            let (service, step) = (service.clone(), due.step.clone());
            Answer::Stall(StallReason::BreakerOpen { service, step, until })
        }
        Some((service, Admission::Fail { until })) => {
            let message = format!("the breaker of service `{service}` is open until {until}");
            Answer::Refuse(Failure::new("breaker_open", message))
        }
    }
}
