//! The effects of calls.

use super::{Result, Stage};
use crate::sim::memory::Memory;
use crate::{Call, Direction, Failure, Input, Outcome, Payload};

impl Stage<'_> {
    /// Lets a call have its effect: once for each key, however often the call is repeated.
    pub(in crate::sim) fn do_call(
        &mut self,
        step: usize,
        (direction, generation): (Direction, u32),
    ) -> Result<Outcome> {
        let effect = &mut self.ledger.steps[step];
        match direction {
            Direction::Execute if effect.stands && effect.generation != generation => {
                let name = self.units.name(step);
                Err(self.violation(format!("{name} is done again, with another key")))
            }
            Direction::Execute => {
                effect.times += u32::from(!effect.stands);
                (effect.stands, effect.generation) = (true, generation);
                Ok(Outcome::Succeeded(output_of(step)))
            }
            Direction::Compensate => {
                effect.is_closed = true;
                Ok(if std::mem::take(&mut effect.stands) {
                    Outcome::Succeeded(Payload::null())
                } else {
                    Outcome::NothingToUndo
                })
            }
        }
    }

    /// Returns the answer of a component that is asked what became of a call. It is about the
    /// idempotency key, and so about every attempt with that key.
    pub(in crate::sim) fn happened(&self, step: usize, direction: Direction) -> bool {
        let effect = &self.ledger.steps[step];
        match direction {
            Direction::Execute => effect.stands,
            Direction::Compensate => effect.is_closed,
        }
    }

    /// Notes that a call was cut off with its host and that nobody can tell what became of it.
    /// Returns what the host decides on.
    pub(in crate::sim) fn cut_off(&self, memory: &mut Memory, call: &Call) -> Input {
        let stopped = Outcome::Unknown(Failure::new("host_stopped", "a simulated crash"));
        memory.answers[self.index(call)] = Some(stopped.clone());
        Input::Outcome {
            step: call.step.clone(),
            direction: call.direction,
            attempt: call.attempt,
            outcome: stopped,
            probe: None,
            emitted: Vec::new(),
        }
    }
}

/// Returns the output of a step.
pub(in crate::sim) fn output_of(step: usize) -> Payload {
    Payload::from_value(&serde_json::json!({ "n": step })).unwrap_or_else(|_| Payload::null())
}
