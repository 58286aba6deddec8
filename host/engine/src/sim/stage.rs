//! One saga: its log, and the world that its calls change.
//!
//! A host plays on a stage with a [`Memory`] of its own: it decides ([`Draft`]), has the draft appended, and begins the
//! calls that follow. Each append is checked against the rules when it is stored, because a draft that is refused is no
//! fact. `calls` has the effects of calls, `orders` the operator.

pub(super) mod calls;
pub(super) mod orders;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ledger::{Ledger, StepEffect};
use super::machine::Machine;
use super::memory::{Draft, Memory};
use super::record::Record;
use super::rules::Rules;
use super::units::Units;
use super::violation::Violation;
use crate::{
    BackoffSpec, CLOCK_TOLERANCE, Call, Command, Definition, Direction, Due, Event, Input, Outcome,
    Payload, RetrySpec, Saga, SagaId, Start, StepKind, Timestamp, arguments,
};

/// The result of an action: it may break a rule.
pub(super) type Result<T> = std::result::Result<T, Box<Violation>>;

/// One saga: its log, and the world that its calls change.
#[derive(Clone)]
pub(super) struct Stage<'m> {
    pub(super) machine: &'m dyn Machine,
    pub(super) id: SagaId,
    pub(super) definition: Arc<Definition>,
    pub(super) units: Arc<Units>,
    /// The durable log.
    pub(super) log: Vec<(Timestamp, Arc<Event>)>,
    pub(super) record: Record,
    pub(super) ledger: Ledger,
    /// The input of each step's calls, and how often it was edited by then.
    pub(super) inputs: Vec<Option<(u32, Payload)>>,
    /// The input that each idempotency key was sent with.
    pub(super) keys: BTreeMap<(usize, Direction, u32), Payload>,
    /// How long the first steps wait for their start.
    delay: Duration,
    /// The longest pause of the definition.
    pause_max: Duration,
}

impl<'m> Stage<'m> {
    /// Makes the stage of a saga that is not started. Its first steps may begin after a delay.
    pub(super) fn new(
        machine: &'m dyn Machine,
        definition: Arc<Definition>,
        id: SagaId,
        delay: Duration,
    ) -> Self {
        let units = Arc::new(Units::of(&definition));
        Self {
            machine,
            id,
            log: Vec::new(),
            record: Record::new(&units),
            ledger: Ledger {
                steps: vec![StepEffect::default(); units.len()],
                on_their_way: Vec::new(),
            },
            inputs: vec![None; units.len()],
            keys: BTreeMap::new(),
            delay,
            pause_max: pause_max(&definition) + delay,
            definition,
            units,
        }
    }

    /// Decides on the start of the saga.
    pub(super) fn start(&self, at: Timestamp, input: Payload) -> Draft {
        let what = Start {
            id: self.id,
            definition: Arc::clone(&self.definition),
            input,
            key: None,
            tags: BTreeMap::new(),
            traceparent: None,
            start_at: (!self.delay.is_zero()).then(|| at.after(self.delay)),
            parent: None,
            sealed_key: None,
            who: None,
            personal: Vec::new(),
        };
        let (saga, events) = self.machine.start(at, what);
        Draft { at, saga, events, impossible: None }
    }

    /// Decides on an input, and adds what follows to a draft.
    pub(super) fn decide(&self, draft: &mut Draft, input: Input) {
        if draft.impossible.is_some() {
            return;
        }
        for event in self.machine.decide(&draft.saga, draft.at, input) {
            let applied = crate::evolve(&mut draft.saga, draft.at, &event);
            draft.events.push(event);
            if let Err(error) = applied {
                draft.impossible = Some(error);
                return;
            }
        }
    }

    /// Adds the admission of a call to a draft.
    pub(super) fn admit(&self, draft: &mut Draft, due: Due) {
        let digest = crate::Digest::from_bytes([7; 32]);
        let Due { step, direction, .. } = due;
        self.decide(draft, Input::Admit { step, direction, digest, note: None, is_trial: false });
    }

    /// Adds the admissions of all calls that are due.
    pub(super) fn admit_due(&self, draft: &mut Draft) {
        for due in self.due(&draft.saga, draft.at) {
            self.admit(draft, due);
        }
    }

    /// Returns the calls that are due and not admitted.
    pub(super) fn due(&self, saga: &Saga, at: Timestamp) -> Vec<Due> {
        let due = self.machine.commands(saga).into_iter().filter_map(|command| match command {
            Command::Start(due) => Some(due),
            Command::Run(_) | Command::Wake(_) | Command::CancelChild(_) => None,
        });
        due.filter(|due| due.at.is_none_or(|due| due <= at)).collect()
    }

    /// Returns the next time that the saga waits for.
    pub(super) fn wake_at(&self, saga: &Saga, at: Timestamp) -> Option<Timestamp> {
        let times = self.machine.commands(saga).into_iter().filter_map(|it| match it {
            Command::Start(due) => due.at.filter(|due| *due > at),
            // A time that the host has not noticed yet counts as now.
            Command::Wake(wake) => Some(wake.max(at)),
            Command::Run(_) | Command::CancelChild(_) => None,
        });
        times.min()
    }

    /// Returns the calls that must be running.
    pub(super) fn running(&self, saga: &Saga) -> Vec<Call> {
        let running = self.machine.commands(saga).into_iter().filter_map(|command| match command {
            Command::Run(call) => Some(call),
            Command::Start(_) | Command::Wake(_) | Command::CancelChild(_) => None,
        });
        running.collect()
    }

    /// Returns the index of the step of a call.
    pub(super) fn index(&self, call: &Call) -> usize {
        self.units.index_of(&call.step).unwrap_or_default()
    }

    /// Makes a violation of a rule. Whoever plays adds the actions.
    #[expect(clippy::unnecessary_box_returns, reason = "it is large, and every caller boxes it")]
    pub(super) fn violation(&self, rule: String) -> Box<Violation> {
        Box::new(Violation {
            rule,
            definition: Arc::clone(&self.definition),
            actions: Vec::new(),
            log: self.log.clone(),
        })
    }

    /// Appends a draft. `answers` are the outcomes of calls that the host had heard when it decided, `now` is the time
    /// of the world.
    pub(super) fn commit(
        &mut self,
        draft: &Draft,
        answers: &[Option<Outcome>],
        now: Timestamp,
    ) -> Result<()> {
        for (index, event) in draft.events.iter().enumerate() {
            // Of a start, the first event is what the others are checked against.
            if index > 0 || !self.log.is_empty() {
                self.rules((draft.at, now), answers)
                    .check(event)
                    .map_err(|rule| self.violation(format!("`{}`: {rule}", event.kind())))?;
            }
            self.record.apply((&self.definition, &self.units), draft.at, event);
        }
        if let Some(error) = &draft.impossible {
            return Err(self.violation(error.to_string()));
        }
        for event in &draft.events {
            let read = Event::decode(&event.kind(), &event.data());
            if read.as_ref() != Ok(event) {
                return Err(self.violation(format!("`{}` is read as {read:?}", event.kind())));
            }
            self.log.push((draft.at, Arc::new(event.clone())));
        }
        Ok(())
    }

    /// Checks what a host has in memory after an append that it decided at `at`.
    pub(super) fn check_memory(&self, saga: &Saga, at: Timestamp) -> Result<()> {
        let events = usize::try_from(saga.version().0).unwrap_or(usize::MAX);
        if !self.replay(&self.log[..events.min(self.log.len())])?.is_same(saga) {
            return Err(self.violation("the log does not lead to the state in memory".to_owned()));
        }
        if let Some(event) = self.machine.decide(saga, at, Input::Tick).first() {
            let rule = format!("an append left `{}` undecided", event.kind());
            return Err(self.violation(rule));
        }
        for command in self.machine.commands(saga) {
            let (wake, is_timer) = match command {
                Command::Wake(wake) => (wake, true),
                Command::Start(Due { at: Some(wake), .. }) => (wake, false),
                Command::Start(_) | Command::Run(_) | Command::CancelChild(_) => continue,
            };
            if is_timer && wake <= at {
                return Err(self.violation("it wants to be woken in the past".to_owned()));
            }
            if wake.since(at) > self.pause_max + CLOCK_TOLERANCE {
                let rule = format!("it waits until {wake}, which is further than any pause of it");
                return Err(self.violation(rule));
            }
        }
        Ok(())
    }

    /// Begins the calls that must run and are not in flight, and checks them. Returns those that it began.
    pub(super) fn dispatch(&mut self, memory: &mut Memory) -> Result<Vec<Call>> {
        let calls = self.running(&memory.saga);
        if self.record.is_given_up {
            memory.in_flight.clear();
        }
        if let Some(gone) = memory.in_flight.iter().find(|call| !calls.contains(call)) {
            return Err(self.violation(format!("the call of {} is forgotten", gone.step)));
        }
        let mut begun = Vec::new();
        for call in calls {
            if memory.in_flight.contains(&call) {
                continue;
            }
            let step = self.index(&call);
            self.check_call(&memory.saga, step, &call)?;
            memory.answers[step] = None;
            memory.in_flight.push(call.clone());
            begun.push(call);
        }
        Ok(begun)
    }

    /// Checks a call before it begins: it is durable, and has the arguments that its key and its step had before.
    fn check_call(&mut self, saga: &Saga, step: usize, call: &Call) -> Result<()> {
        let record = &self.record.steps[step];
        let is_durable = match call.direction {
            Direction::Execute => record.is_executing && record.attempts == call.attempt,
            Direction::Compensate => record.is_undoing && record.undo_attempts == call.attempt,
        };
        if !is_durable {
            let rule = format!("{} is called before that is durable", call.step);
            return Err(self.violation(rule));
        }
        let (input, output) = arguments(saga, call).map_err(|error| self.violation(error))?;
        let (edits, executes) = (record.edits, call.direction == Direction::Execute);
        let before = self.inputs[step].replace((edits, input.clone()));
        let same = before.is_none_or(|before| before.0 != edits || before.1 == input);
        let knows = executes || output.is_some() == record.output.is_some();
        if !same || !knows {
            let rule = format!("{} is called with other arguments than before", call.step);
            return Err(self.violation(rule));
        }
        let is_unclear = if executes { record.is_unclear } else { record.is_undo_unclear };
        let key = (step, call.direction, call.generation);
        let with_key = self.keys.insert(key, input.clone());
        // A host may have recorded the first attempt with an edited input, and not made it.
        let may_differ = is_unclear || record.was_unclear_when_edited;
        if with_key.is_some_and(|before| before != input) && !may_differ {
            let rule = format!("{} is called with a key that had another input", call.step);
            return Err(self.violation(rule));
        }
        Ok(())
    }

    /// Folds a log of the saga.
    fn replay(&self, log: &[(Timestamp, Arc<Event>)]) -> Result<Saga> {
        self.machine
            .replay(self.id, Arc::clone(&self.definition), log)
            .map_err(|error| self.violation(error.to_string()))
    }

    /// Recovers the saga from its log, for a host that knows nothing of it.
    pub(super) fn recover(&self) -> Result<Memory> {
        Ok(Memory {
            saga: self.replay(&self.log)?,
            in_flight: Vec::new(),
            answers: vec![None; self.units.len()],
        })
    }

    /// Returns the stage with a log that ends after `events` events, in the world of that time.
    pub(super) fn cut(&self, events: usize, ledger: Ledger) -> Self {
        let log = self.log[..events].to_vec();
        let facts = log.iter().map(|(at, event)| (*at, &**event));
        let record = Record::of((&self.definition, &self.units), facts);
        // A step that had not begun by then may see other outputs.
        let begun = |(index, input): (usize, &Option<(u32, Payload)>)| {
            let step = &record.steps[index];
            input.clone().filter(|(edits, _)| step.attempts > 0 && *edits == step.edits)
        };
        let inputs: Vec<_> = self.inputs.iter().enumerate().map(begun).collect();
        // Edits that are made again may differ, too.
        let mut keys = self.keys.clone();
        keys.retain(|(step, ..), _| inputs[*step].is_some() && record.steps[*step].edits == 0);
        Self { log, record, ledger, inputs, keys, ..self.clone() }
    }

    /// Returns the rules with what they need to know: the time of the decision, and that of the world.
    fn rules<'a>(
        &'a self,
        (at, now): (Timestamp, Timestamp),
        answers: &'a [Option<Outcome>],
    ) -> Rules<'a> {
        let Self { definition, units, record, ledger, .. } = self;
        Rules { definition, units, record, ledger, answers, at, now }
    }

    /// Checks a saga for which nothing is in flight, due or timed.
    pub(super) fn at_rest(&self, now: Timestamp) -> Result<()> {
        self.rules((now, now), &[]).at_rest().map_err(|rule| self.violation(rule))
    }
}

/// Returns the longest time that a saga may wait for by the clock alone.
fn pause_max(definition: &Definition) -> Duration {
    let longest = |retry: &RetrySpec| match &retry.backoff {
        BackoffSpec::Listed(pauses) => pauses.iter().max().copied().unwrap_or_default(),
        BackoffSpec::Exponential { max, .. } => *max,
    };
    let steps = definition.steps().iter().flat_map(|spec| {
        let waits = match &spec.kind {
            StepKind::Wait { wait } => wait.timeout,
            StepKind::Sleep { sleep } => Some(*sleep),
            StepKind::Call { .. } | StepKind::Saga { .. } => None,
        };
        let undo = spec.undo.as_ref().map(|undo| longest(&undo.retry));
        [Some(longest(&spec.retry)), undo, waits]
    });
    steps.chain([definition.spec().deadline]).flatten().max().unwrap_or_default()
}
