//! Which calls may begin: the component is there, its service may be called, and there is room.

use std::collections::HashMap;

use amends_engine::{
    Command, Definition, Digest, Direction, Due, Event, Failure, Input, Saga, StepName, Target,
    Timestamp, commands,
};
use amends_store::failpoint;

use super::begin::Barred;
use super::{Shard, ShardConfig, try_decide};
use crate::breakers::Permit;
use crate::live::{Pass, Stall, StallReason};
use crate::serving::component;

/// What became of the calls that were due.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    pub(super) passes: HashMap<(StepName, Direction), Pass>,
    /// What holds the rest back.
    pub(super) stalls: Vec<Stall>,
}

impl Admitted {
    /// Of calls that wait for the same thing, one says so; of a breaker each: its step shows it.
    fn stalled(&mut self, stall: Stall) {
        let is_said = |other: &Stall| match (&other.reason, &stall.reason) {
            (StallReason::NoRoom(one), StallReason::NoRoom(other_one)) => {
                one == other_one && other.direction == stall.direction
            }
            (StallReason::PluginMissing(one), StallReason::PluginMissing(other)) => one == other,
            (
                StallReason::NoRoom(_)
                | StallReason::PluginMissing(_)
                | StallReason::BreakerOpen { .. }
                | StallReason::Machine(_)
                | StallReason::StoreFailed(_),
                _,
            ) => false,
        };
        if !self.stalls.iter().any(is_said) {
            self.stalls.push(stall);
        }
    }
}

/// What becomes of one.
enum Answer {
    Admit { digest: Digest, note: Option<String>, pass: Pass },
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
        admitted.stalls.clear();
        let mut is_refused = false;
        for due in due {
            let (step, direction) = (due.step.clone(), due.direction);
            let (input, pass) = match answer(&self.config, draft, &due, at).await {
                Answer::Admit { digest, note, pass } => {
                    let step = step.clone();
                    let is_trial = pass.permit.as_ref().is_some_and(Permit::is_trial);
                    (Input::Admit { step, direction, digest, note, is_trial }, pass)
                }
                Answer::Refuse(error) => {
                    (Input::Refuse { step: step.clone(), error }, Pass::default())
                }
                Answer::Stall(reason) => {
                    admitted.stalled(Stall { reason, direction });
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
                if !refuses {
                    admitted.passes.insert((step, direction), pass);
                }
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
            return Answer::Admit { digest, note: None, pass: Pass::default() };
        }
    };
    let served = component(&config.plugins, draft, due, plugin).await;
    let Some((digest, note)) = served else {
        return Answer::Stall(StallReason::PluginMissing(plugin.clone()));
    };
    match config.pass((&due.step, due.direction), plugin, due.service.as_ref(), at) {
        Ok(pass) => Answer::Admit { digest, note, pass },
        Err(Barred::Waits(reason)) => Answer::Stall(reason),
        Err(Barred::Fails(failure, _)) => Answer::Refuse(failure),
    }
}
