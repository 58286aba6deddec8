//! The ends of calls, and crashes of the host.

use super::World;
use crate::sim::action::Reply;
use crate::sim::ledger::PendingRequest;
use crate::sim::record::emitted_by;
use crate::sim::stage::Result;
use crate::{Call, Direction, Failure, Fate, Input, Outcome, Payload, Target};

impl World<'_> {
    /// Ends the call of a step, and checks that repeated and late results change nothing.
    pub(super) fn reply(&mut self, step: usize, reply: Reply) -> Result<()> {
        let found = self.memory.in_flight.iter().position(|call| self.index(call) == step);
        let Some(position) = found else { return Ok(()) };
        let call = self.memory.in_flight.remove(position);
        let (outcome, probe) = self.end(step, &call, reply)?;
        self.memory.answers[step] = Some(outcome.clone());
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
            let events = self.stage.machine.decide(&self.memory.saga, self.now, input);
            if let Some(event) = events.first() {
                let rule = format!("a repeated or late result led to `{}`", event.kind());
                return Err(self.violation(rule));
            }
        }
        Ok(())
    }

    /// Lets a call end, and returns what the host hears of it.
    fn end(&mut self, step: usize, call: &Call, reply: Reply) -> Result<(Outcome, Option<Fate>)> {
        let this = (call.direction, call.generation);
        if matches!(reply, Reply::Probed { .. }) {
            self.now = self.now.after(call.timeout);
        }
        let failure = || Failure::new("simulated", "a simulated failure");
        let mut probe = None;
        let outcome = match reply {
            Reply::Done => self.stage.do_call(step, this)?,
            Reply::Permanent => Outcome::Permanent(failure()),
            Reply::Retryable => Outcome::Retryable(failure()),
            Reply::Lost { landed } => {
                if landed {
                    self.stage.do_call(step, this)?;
                }
                Outcome::Unknown(failure())
            }
            Reply::Looked => {
                if call.direction == Direction::Execute {
                    // A clock that was ahead when the call began says nothing about its duration.
                    let began_at = self.stage.record.steps[step].began_at.min(self.now);
                    let (generation, until) = (call.generation, began_at.after(call.timeout));
                    let request = PendingRequest { call: 0, step, generation, until };
                    self.stage.ledger.on_their_way.push(request);
                }
                let happened = self.stage.happened(step, call.direction);
                probe = Some(if happened { Fate::Unclear } else { Fate::DidNotHappen });
                if happened { Outcome::Unknown(failure()) } else { Outcome::Retryable(failure()) }
            }
            Reply::Probed { landed } => {
                if landed {
                    self.stage.do_call(step, this)?;
                }
                if self.stage.happened(step, call.direction) {
                    probe = Some(Fate::Happened);
                    self.stage.do_call(step, this)?
                } else {
                    probe = Some(Fate::DidNotHappen);
                    Outcome::Retryable(failure())
                }
            }
        };
        Ok((outcome, probe))
    }

    /// Stops the host, and recovers it from its log.
    pub(super) fn crash(&mut self, landed: u128) -> Result<()> {
        self.figures.crashes += 1;
        for call in std::mem::take(&mut self.memory.in_flight) {
            let step = self.index(&call);
            // A child saga goes on without its parent, and is found again.
            if landed >> step & 1 == 1 && matches!(call.target, Target::Plugin(_)) {
                self.stage.do_call(step, (call.direction, call.generation))?;
            }
        }
        self.memory = self.stage.recover()?;
        let mut draft = self.memory.draft(self.now);
        self.stage.decide(&mut draft, Input::Tick);
        for call in self.stage.running(&self.memory.saga) {
            if matches!(call.target, Target::Plugin(_)) {
                let cut_off = self.stage.cut_off(&mut self.memory, &call);
                self.stage.decide(&mut draft, cut_off);
            }
        }
        self.admit_due_and_append(draft)
    }
}
