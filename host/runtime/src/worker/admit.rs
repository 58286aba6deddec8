//! Which calls may begin: the component is there, its service may be called, and there is room.

use std::collections::HashMap;

use amends_engine::{
    Command, Definition, Digest, Direction, Due, Event, Failure, Input, PluginName, Saga, StepName,
    Target, Timestamp, commands,
};
use amends_failpoint::failpoint;

use super::begin::Barred;
use super::{Worker, WorkerConfig, try_decide};
use crate::breakers::permit::Permit;
use crate::live::{Pass, Search, Sought};
use crate::message::Message;
use crate::serving::{Basis, Served, Serving, Undo, serving};
use crate::stall::{Stall, StallReason};
use amends_registry::now;

/// What became of the calls that were due.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    pub(super) passes: HashMap<(StepName, Direction), Pass>,
    /// What holds the rest back: one for each call.
    pub(super) stalls: Vec<Stall>,
}

/// What becomes of one.
enum Answer {
    Admit { digest: Digest, note: Option<String>, pass: Pass },
    Refuse(Failure),
    Stall(StallReason),
}

impl Worker {
    /// Admits every call of `draft` that is due: adds the facts to `events` and takes the room.
    ///
    /// # Errors
    /// When the engine broke an invariant of its own; the draft is worth nothing then.
    pub(super) fn admit(
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
        while self.admit_due(draft, events, at, &mut admitted)? {}
        Ok(admitted)
    }

    /// Whether a call was refused.
    fn admit_due(
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
            let (input, pass) = match self.answer(draft, &due) {
                Answer::Admit { digest, note, pass } => {
                    let step = step.clone();
                    let is_trial = pass.permit.as_ref().is_some_and(Permit::is_trial);
                    (Input::Admit { step, direction, digest, note, is_trial }, pass)
                }
                Answer::Refuse(error) => {
                    (Input::Refuse { step: step.clone(), error }, Pass::default())
                }
                Answer::Stall(reason) => {
                    admitted.stalls.push(Stall { step, direction, reason });
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
                if let (Direction::Compensate, Some(live)) =
                    (direction, self.live.get_mut(&draft.id()))
                {
                    live.sought.remove(&step);
                }
                if !refuses {
                    admitted.passes.insert((step, direction), pass);
                }
                is_refused |= refuses;
            }
        }
        Ok(is_refused)
    }
}

impl Worker {
    fn answer(&mut self, draft: &Saga, due: &Due) -> Answer {
        let plugin = match &due.target {
            Target::Plugin(plugin) => plugin,
            Target::Saga { definition, .. } => {
                let digest = match self.config.sagas.definition(definition) {
                    Some(definition) => Definition::digest(&definition),
                    // The call says so; an undo finds its saga by the id alone.
                    None => Digest::of(definition.as_str().as_bytes()),
                };
                return Answer::Admit { digest, note: None, pass: Pass::default() };
            }
        };
        let (digest, note) = match self.served(draft, due, plugin) {
            Ok(served) => served,
            Err(reason) => return Answer::Stall(reason),
        };
        // Breakers keep the time of the host, which the time of a saga may be ahead of.
        match self.config.pass(due.direction, plugin, due.service.as_ref(), now()) {
            Ok(pass) => Answer::Admit { digest, note, pass },
            Err(Barred::Waits(reason)) => Answer::Stall(reason),
            Err(Barred::Fails(failure, _)) => Answer::Refuse(*failure),
        }
    }

    /// Which component serves a call. What takes long to say is found out beside the worker, which
    /// comes back to the saga then.
    ///
    /// # Errors
    /// What the call waits for.
    fn served(
        &mut self,
        draft: &Saga,
        due: &Due,
        plugin: &PluginName,
    ) -> Result<Served, StallReason> {
        let basis = match serving(&self.config.plugins, draft, due, plugin) {
            Serving::Known(served) => return Ok(served),
            Serving::Nobody => {
                let why = self.config.plugins.why_missing(plugin);
                return Err(StallReason::PluginMissing { plugin: plugin.clone(), why });
            }
            Serving::Unclear(basis) => basis,
        };
        // A saga that is being started has nothing to undo.
        if let Some(live) = self.live.get_mut(&draft.id()) {
            let known = live.sought.get(&due.step).filter(|sought| sought.basis == basis);
            match known.map(|sought| (&sought.found, sought.search.0.is_finished())) {
                Some((Some(served), _)) => return Ok(served.clone()),
                Some((None, false)) => {}
                Some((None, true)) | None => {
                    let undo = Undo::of(draft, &due.step, plugin, due.executed_by);
                    let search = seek(&self.config, undo, due.step.clone(), basis);
                    let sought = Sought { basis, found: None, search };
                    live.sought.insert(due.step.clone(), sought);
                }
            }
        }
        Err(StallReason::ComponentSought(plugin.clone()))
    }
}

/// Looks for the component of an undo, in a task of its own.
fn seek(config: &WorkerConfig, undo: Undo, step: StepName, basis: Basis) -> Search {
    let (id, plugins, inbox) = (undo.saga(), config.plugins.clone(), config.inbox.clone());
    Search(tokio::spawn(async move {
        // When it cannot be told, it is looked for again when the stall is.
        if let Some(served) = undo.served(&plugins).await
            && let Some(inbox) = inbox.upgrade()
        {
            let _ = inbox.send(Message::Found { id, step, basis, served });
        }
    }))
}
