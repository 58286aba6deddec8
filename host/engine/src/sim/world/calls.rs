//! The world that answers calls, and crashes of the host.

use super::{Result, World, running};
use crate::sim::action::Reply;
use crate::sim::ledger::PendingRequest;
use crate::sim::record::emitted_by;
use crate::{Call, Direction, Failure, Fate, Input, Outcome, Payload, Target};

impl World<'_> {
    /// Ends the call of a step, and checks that repeated and late results change nothing.
    pub(super) fn reply(&mut self, step: usize, reply: Reply) -> Result<()> {
        let found = self.in_flight.iter().position(|call| self.index(call) == step);
        let Some(position) = found else { return Ok(()) };
        let call = self.in_flight.remove(position);
        let this = (call.direction, call.generation);
        if matches!(reply, Reply::Probed { .. }) {
            self.now = self.now.after(call.timeout);
        }
        let failure = || Failure::new("simulated", "a simulated failure");
        let mut probe = None;
        let outcome = match reply {
            Reply::Done => self.do_call(step, this)?,
            Reply::Permanent => Outcome::Permanent(failure()),
            Reply::Retryable => Outcome::Retryable(failure()),
            Reply::Lost { landed } => {
                if landed {
                    self.do_call(step, this)?;
                }
                Outcome::Unknown(failure())
            }
            Reply::Looked => {
                if call.direction == Direction::Execute {
                    // A clock that was ahead when the call began says nothing about its duration.
                    let began_at = self.record.steps[step].began_at.min(self.now);
                    let (generation, until) = (call.generation, began_at.after(call.timeout));
                    self.ledger.on_their_way.push(PendingRequest { step, generation, until });
                }
                let happened =
                    self.ledger.steps[step].stands == (call.direction == Direction::Execute);
                probe = Some(if happened { Fate::Unclear } else { Fate::DidNotHappen });
                if happened { Outcome::Unknown(failure()) } else { Outcome::Retryable(failure()) }
            }
            Reply::Probed { landed } => {
                if landed {
                    self.do_call(step, this)?;
                }
                // The answer of the component is about the key, and so about any attempt with it.
                let happened =
                    self.ledger.steps[step].stands == (call.direction == Direction::Execute);
                if happened {
                    probe = Some(Fate::Happened);
                    self.do_call(step, this)?
                } else {
                    probe = Some(Fate::DidNotHappen);
                    Outcome::Retryable(failure())
                }
            }
        };
        self.ledger.steps[step].answer = Some(outcome.clone());
        let Call { step: name, direction, attempt, .. } = call;
        let result = |attempt, outcome| Input::Outcome {
            step: name.clone(),
            direction,
            attempt,
            outcome,
            probe,
            emitted: emitted_by(step),
        };
        self.feed(result(attempt, outcome.clone()))?;
        // The result again, and late successes of this attempt and of the one before.
        let late = Outcome::Succeeded(Payload::null());
        for input in [
            result(attempt, outcome),
            result(attempt, late.clone()),
            result(attempt.saturating_sub(1), late),
        ] {
            self.figures.repeats += 1;
            let events = self.machine.decide(&self.saga, self.now, input);
            if let Some(event) = events.first() {
                let rule = format!("a repeated or late result led to `{}`", event.kind());
                return Err(self.violation(rule));
            }
        }
        Ok(())
    }

    /// Lets a call have its effect: once for each key, however often the call is repeated.
    pub(super) fn do_call(
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

    /// Stops the host, and recovers it from its log.
    pub(super) fn crash(&mut self, landed: u128) -> Result<()> {
        self.figures.crashes += 1;
        for call in std::mem::take(&mut self.in_flight) {
            let step = self.index(&call);
            // A child saga goes on without its parent, and is found again.
            if landed >> step & 1 == 1 && matches!(call.target, Target::Plugin(_)) {
                self.do_call(step, (call.direction, call.generation))?;
            }
        }
        self.saga = self.replay()?;
        let stopped = || Outcome::Unknown(Failure::new("host_stopped", "a simulated crash"));
        let cut_off: Vec<_> =
            self.machine.commands(&self.saga).into_iter().filter_map(running).collect();
        let cut_off: Vec<_> =
            cut_off.into_iter().filter(|call| matches!(call.target, Target::Plugin(_))).collect();
        for call in &cut_off {
            let step = self.index(call);
            self.ledger.steps[step].answer = Some(stopped());
        }
        let inputs = cut_off.into_iter().map(|call| Input::Outcome {
            step: call.step,
            direction: call.direction,
            attempt: call.attempt,
            outcome: stopped(),
            probe: None,
            emitted: Vec::new(),
        });
        let inputs: Vec<_> = std::iter::once(Input::Tick).chain(inputs).collect();
        let mut draft = self.saga.clone();
        let mut events = Vec::new();
        for input in inputs {
            self.draft(&mut draft, &mut events, input)?;
        }
        self.admit_due_and_append(draft, events)
    }
}

/// Returns the output of a step.
pub(super) fn output_of(step: usize) -> Payload {
    Payload::from_value(&serde_json::json!({ "n": step })).unwrap_or_else(|_| Payload::null())
}
