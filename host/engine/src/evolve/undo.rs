//! Applies facts about the undo of a step.

use std::sync::Arc;

use super::precondition::{index_of, require};
use crate::event::UndoEvent;
use crate::ids::Timestamp;
use crate::saga::{Phase, Progress, Saga, UndoProgress};

/// Applies a fact about the undo of a step.
pub(super) fn apply_undo(saga: &mut Saga, at: Timestamp, event: &UndoEvent) -> Result<(), String> {
    require(matches!(saga.phase, Phase::Compensating(_)), "the saga is not being undone")?;
    let index = index_of(saga, event.step())?;
    let step = &mut saga.steps[index];
    let undoing = |attempt: u32| {
        let is_running = step.progress == Progress::Undo(UndoProgress::Running);
        require(is_running && attempt == step.undo_attempts, "that attempt is not running")
    };
    match event {
        UndoEvent::Started(event) => {
            let backs_off =
                matches!(step.progress, Progress::Undo(UndoProgress::BackingOff { .. }));
            require(step.progress.may_stand() || backs_off, "nothing of the step is to be undone")?;
            require(event.attempt == step.undo_attempts + 1, "attempts count one by one")?;
            step.progress = Progress::Undo(UndoProgress::Running);
            step.by_hand = None;
            step.undo_attempts = event.attempt;
            step.earlier_undo_began_at = step.undo_began_at.replace(at);
            step.undo_attempts_before += u32::from(event.trial);
            step.undo_digest = Some(event.digest);
        }
        UndoEvent::Succeeded(event) => {
            undoing(event.attempt)?;
            step.undid_nothing = event.nothing;
            step.undone(at);
        }
        UndoEvent::Failed(event) => {
            undoing(event.attempt)?;
            step.error = Some(Arc::new(event.error.clone()));
            step.undo_failed(event.class, event.probe);
            let undo = UndoProgress::BackingOff { since: at, retry_at: event.retry_at };
            step.progress = Progress::Undo(undo);
        }
        UndoEvent::Blocked(event) => {
            undoing(event.attempt)?;
            step.error = Some(Arc::new(event.error.clone()));
            step.undo_failed(event.class, event.probe);
            step.progress = Progress::Undo(UndoProgress::Blocked);
            step.ended_at = Some(at);
        }
    }
    Ok(())
}
