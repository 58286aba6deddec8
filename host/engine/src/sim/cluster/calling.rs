//! The way of a call: begun, landed at its service, and heard of. Each of them may be late, and may
//! be lost.

use super::flight::Flight;
use super::live::{Live, Queued, SagaClock};
use super::{Cluster, Ending};
use crate::sim::ledger::PendingRequest;
use crate::sim::protection::Protection;
use crate::sim::record::emitted_by;
use crate::sim::stage::Result;
use crate::{Call, Direction, Failure, Fate, Input, Outcome, Target};

impl Cluster<'_> {
    /// Goes on with a saga from its log. What was in flight was cut off with another host.
    pub(super) fn recover(&mut self, host: usize, saga: usize, asks: bool) -> Result<()> {
        if self.hosts[host].live.contains_key(&saga) {
            return Ok(());
        }
        let (reading, now) = (self.number(), self.now);
        let stage = &self.sagas[saga].stage;
        let mut memory = stage.recover()?;
        let mut inputs = Vec::new();
        let mut calls = Vec::new();
        for call in stage.running(&memory.saga) {
            // A child saga went on, and the call finds it again.
            let runs_saga = matches!(call.target, Target::Saga { .. });
            if asks || runs_saga {
                memory.in_flight.push(call.clone());
                calls.push(call);
            } else {
                inputs.push(Queued::new(stage.cut_off(&mut memory, &call)));
            }
        }
        let at = stage.log.last().map_or(now, |(at, _)| *at);
        let clock = SagaClock { at, seen: now };
        let live = Live {
            reading,
            memory,
            clock,
            pending: None,
            inputs,
            has_unbegun: false,
            may_tick: true,
        };
        self.hosts[host].live.insert(saga, live);
        for call in calls {
            self.fly(host, (saga, reading), call, false);
        }
        Ok(())
    }

    /// Begins a call, with a request or without.
    pub(super) fn fly(
        &mut self,
        host: usize,
        (saga, reading): (usize, u64),
        call: Call,
        has_request: bool,
    ) {
        let number = self.number();
        let until = self.now.after(call.timeout);
        let is_on_its_way = has_request && matches!(call.target, Target::Plugin(_));
        if is_on_its_way && call.direction == Direction::Execute {
            let stage = &mut self.sagas[saga].stage;
            let (step, generation) = (stage.index(&call), call.generation);
            let request = PendingRequest { call: number, step, generation, until };
            stage.ledger.on_their_way.push(request);
        }
        let process = self.hosts[host].process;
        self.flights.push(Flight {
            number,
            host,
            process,
            reading,
            saga,
            call,
            until,
            is_on_its_way,
            answer: None,
        });
    }

    /// A request reaches its service, which answers. One that comes after the undo has no effect.
    pub(super) fn land(&mut self, flight: usize, ending: Ending) -> Result<()> {
        let Flight { number, saga, ref call, is_on_its_way, .. } = self.flights[flight];
        if !is_on_its_way {
            return Ok(());
        }
        let stage = &mut self.sagas[saga].stage;
        let step = stage.index(call);
        let is_closed = call.direction == Direction::Execute && stage.ledger.steps[step].is_closed;
        let failure = || Failure::new("simulated", "a simulated failure");
        let answer = match ending {
            Ending::Done if !is_closed => stage.do_call(step, (call.direction, call.generation))?,
            Ending::Done | Ending::Permanent => Outcome::Permanent(failure()),
            Ending::Retryable => Outcome::Retryable(failure()),
        };
        stage.ledger.on_their_way.retain(|request| request.call != number);
        let flight = &mut self.flights[flight];
        (flight.is_on_its_way, flight.answer) = (false, Some(answer));
        Ok(())
    }

    /// A host hears of the end of a call: its answer, or that none came.
    pub(super) fn reply(&mut self, flight: usize, tells: bool) -> Result<()> {
        let Flight { host, reading, saga, ref call, .. } = self.flights[flight];
        let mut call = call.clone();
        let takes_any = self.lacks(Protection::CallOfReading);
        let waiting = self.hosts[host].live.get(&saga).and_then(|live| {
            let is_its = live.reading == reading || takes_any;
            let mut calls = live.memory.in_flight.iter();
            let call = calls.find(|other| {
                let is_same =
                    takes_any && (&other.step, other.direction) == (&call.step, call.direction);
                is_same || **other == call
            });
            call.filter(|_| is_its).cloned()
        });
        let Some(waiting) = waiting else {
            self.figures.late_replies += 1;
            self.flights[flight].answer = None;
            if !self.flights[flight].is_on_its_way {
                self.flights.swap_remove(flight);
            }
            return Ok(());
        };
        // Without the protection, an older call ends the present attempt.
        call.attempt = waiting.attempt;
        let (outcome, probe) = self.end(flight, tells)?;
        // Its request may still arrive.
        if self.flights[flight].is_on_its_way {
            self.flights[flight].reading = 0;
        } else {
            self.flights.swap_remove(flight);
        }
        let step = self.sagas[saga].stage.index(&call);
        let input = Input::Outcome {
            step: call.step,
            direction: call.direction,
            attempt: call.attempt,
            outcome: outcome.clone(),
            probe,
            emitted: emitted_by(step),
        };
        if let Some(live) = self.hosts[host].live.get_mut(&saga) {
            let answer = Some((step, outcome));
            live.inputs.push(Queued { input, answer, request: None });
        }
        Ok(())
    }

    /// Returns what a host hears of the end of a call. When no answer came, it asks the component
    /// if that can tell. "It did not happen" counts once no request can be on its way, see
    /// `sandbox/src/call/probe.rs`.
    fn end(&mut self, flight: usize, tells: bool) -> Result<(Outcome, Option<Fate>)> {
        let flight = &self.flights[flight];
        let (call, play) = (&flight.call, &mut self.sagas[flight.saga]);
        let stage = &mut play.stage;
        let step = stage.index(call);
        let this = (call.direction, call.generation);
        let failure = || Failure::new("simulated", "a simulated failure");
        if let Target::Saga { id: Some(child), .. } = &call.target {
            // A child ends once, whoever hears of it and however often.
            let mut has_completed = || *play.children.entry(*child).or_insert(tells);
            let is_done = match call.direction {
                Direction::Execute => !stage.ledger.steps[step].is_closed && has_completed(),
                Direction::Compensate => tells || stage.happened(step, call.direction),
            };
            return if is_done {
                Ok((stage.do_call(step, this)?, None))
            } else {
                Ok((Outcome::Permanent(failure()), None))
            };
        }
        if let Some(answer) = &flight.answer {
            return Ok((answer.clone(), None));
        }
        Ok(match (tells, stage.happened(step, call.direction)) {
            (false, _) => (Outcome::Unknown(failure()), None),
            (true, true) => (stage.do_call(step, this)?, Some(Fate::Happened)),
            (true, false) if self.now < flight.until => {
                (Outcome::Unknown(failure()), Some(Fate::Unclear))
            }
            (true, false) => (Outcome::Retryable(failure()), Some(Fate::DidNotHappen)),
        })
    }

    /// Discards requests that can no longer arrive, and calls of which nobody will hear.
    pub(super) fn expire(&mut self) {
        let now = self.now;
        for play in &mut self.sagas {
            play.stage.ledger.on_their_way.retain(|request| now < request.until);
        }
        for flight in &mut self.flights {
            flight.is_on_its_way &= now < flight.until;
        }
        let hosts = &self.hosts;
        self.flights
            .retain(|flight| flight.is_on_its_way || hosts[flight.host].process == flight.process);
    }
}
