//! One simulated host and the world around it.
//!
//! This file has the loop of the host. `calls` has the world that answers calls, `operator` the
//! operator, `schedule` the actions and the way to a rest.

mod calls;
mod operator;
mod schedule;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::action::Action;
use super::figures::Figures;
use super::ledger::{Ledger, StepEffect};
use super::machine::Machine;
use super::record::{Record, Wait};
use super::rules::Rules;
use super::units::Units;
use super::violation::Violation;
use crate::{
    BackoffSpec, CLOCK_TOLERANCE, Call, Command, Definition, Direction, Due, Event, Input, Payload,
    RetrySpec, Saga, SagaId, Start, StepKind, Timestamp, arguments,
};

/// One simulated host and the world around it.
#[derive(Clone)]
pub(super) struct World<'m> {
    pub(super) machine: &'m dyn Machine,
    pub(super) definition: Arc<Definition>,
    pub(super) units: Arc<Units>,
    pub(super) now: Timestamp,
    /// The saga as the host has it in memory.
    pub(super) saga: Saga,
    /// The durable log.
    pub(super) log: Vec<(Timestamp, Arc<Event>)>,
    pub(super) record: Record,
    pub(super) ledger: Ledger,
    pub(super) in_flight: Vec<Call>,
    /// The input of each step's calls, and how often it was edited by then.
    pub(super) inputs: Vec<Option<(u32, Payload)>>,
    /// The input that each idempotency key was sent with.
    pub(super) keys: BTreeMap<(usize, Direction, u32), Payload>,
    /// How far the clock of the host is ahead.
    pub(super) ahead: Duration,
    /// The longest pause of the definition.
    pause_max: Duration,
    /// True when calls are admitted in the append that makes them due.
    admits_at_once: bool,
    pub(super) figures: Figures,
    /// The actions so far.
    pub(super) actions: Vec<Action>,
    /// Where the last append begins in the log.
    pub(super) appended_from: usize,
}

/// The result of an action: it may break a rule.
pub(super) type Result<T> = std::result::Result<T, Box<Violation>>;

impl<'m> World<'m> {
    /// Starts a saga of a definition whose first steps may begin after a delay.
    pub(super) fn start(
        machine: &'m dyn Machine,
        definition: Arc<Definition>,
        input: Payload,
        id: SagaId,
        admits_at_once: bool,
        delay: Duration,
    ) -> Result<Self> {
        let now = Timestamp::from_millis(0);
        let what = Start {
            id,
            definition: Arc::clone(&definition),
            input,
            key: None,
            tags: BTreeMap::new(),
            traceparent: None,
            start_at: (!delay.is_zero()).then(|| now.after(delay)),
            parent: None,
            sealed_key: None,
            personal: Vec::new(),
        };
        let (saga, events) = machine.start(now, what);
        let units = Arc::new(Units::of(&definition));
        let mut world = Self {
            machine,
            now,
            saga,
            log: Vec::new(),
            record: Record::new(&units),
            ledger: Ledger {
                steps: vec![StepEffect::default(); units.len()],
                on_their_way: Vec::new(),
            },
            in_flight: Vec::new(),
            inputs: vec![None; units.len()],
            keys: BTreeMap::new(),
            ahead: Duration::ZERO,
            pause_max: pause_max(&definition) + delay,
            admits_at_once,
            figures: Figures { definitions: 1, ..Figures::default() },
            actions: Vec::new(),
            appended_from: 0,
            definition,
            units,
        };
        // The start was decided and applied already. Its events are checked like all others.
        for (index, event) in events.iter().enumerate() {
            if index > 0 {
                world.check(event)?;
            }
            world.record.apply((&world.definition, &world.units), now, event);
        }
        world.log = events.into_iter().map(|event| (now, Arc::new(event))).collect();
        let draft = world.saga.clone();
        world.admit_due_and_append(draft, Vec::new())?;
        Ok(world)
    }

    /// Returns the calls that are due and not admitted.
    pub(super) fn due(&self) -> Vec<Due> {
        due(self.machine, &self.saga, self.now)
    }

    /// Returns the next time that something waits for.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let times = self.machine.commands(&self.saga).into_iter().filter_map(|it| match it {
            Command::Start(due) => due.at.filter(|at| *at > self.now),
            // A time that the host has not noticed yet counts as now.
            Command::Wake(at) => Some(at.max(self.now)),
            Command::Run(_) | Command::CancelChild(_) => None,
        });
        times.min()
    }

    /// Returns true when something waits for a time that is yet to come.
    pub(super) fn may_be_late(&self) -> bool {
        self.wake_at().is_some_and(|at| at > self.now)
    }

    /// Returns the index of the step of a call.
    pub(super) fn index(&self, call: &Call) -> usize {
        self.units.index_of(&call.step).unwrap_or_default()
    }

    /// Returns true when a step waits for a signal without an end.
    pub(super) fn waits_for_signal(&self) -> bool {
        !self.record.has_ended && self.record.steps.iter().any(|step| step.waits == Wait::ForEver)
    }

    /// Returns true when a step waits for a signal for some time only.
    pub(super) fn may_signal(&self) -> bool {
        let waits = self.record.steps.iter().any(|step| matches!(step.waits, Wait::Until { .. }));
        !self.record.has_ended && waits && self.definition.signals().next().is_some()
    }

    /// Makes a violation of a rule.
    #[expect(clippy::unnecessary_box_returns, reason = "it is large, and every caller boxes it")]
    pub(super) fn violation(&self, rule: String) -> Box<Violation> {
        Box::new(Violation {
            rule,
            definition: Arc::clone(&self.definition),
            actions: self.actions.iter().map(|action| format!("{action:?}")).collect(),
            log: self.log.clone(),
        })
    }

    /// Decides on an input, and appends what follows.
    pub(super) fn feed(&mut self, input: Input) -> Result<()> {
        let mut draft = self.saga.clone();
        let mut events = Vec::new();
        self.draft(&mut draft, &mut events, input)?;
        self.admit_due_and_append(draft, events)
    }

    /// Appends events, and the admissions of calls that they make due.
    pub(super) fn admit_due_and_append(
        &mut self,
        mut draft: Saga,
        mut events: Vec<Event>,
    ) -> Result<()> {
        if self.admits_at_once {
            for due in due(self.machine, &draft, self.now) {
                self.admit(&mut draft, &mut events, due)?;
            }
        }
        self.append(draft, events)
    }

    /// Adds the admission of a call to a draft.
    pub(super) fn admit(
        &mut self,
        draft: &mut Saga,
        events: &mut Vec<Event>,
        due: Due,
    ) -> Result<()> {
        let digest = crate::Digest::from_bytes([7; 32]);
        let Due { step, direction, .. } = due;
        self.draft(
            draft,
            events,
            Input::Admit { step, direction, digest, note: None, is_trial: false },
        )
    }

    /// Decides on an input, and adds what follows to a draft. Every event is checked against the
    /// rules.
    pub(super) fn draft(
        &mut self,
        draft: &mut Saga,
        events: &mut Vec<Event>,
        input: Input,
    ) -> Result<()> {
        for event in self.machine.decide(draft, self.now, input) {
            self.check(&event)?;
            self.record.apply((&self.definition, &self.units), self.now, &event);
            if let Err(error) = crate::evolve(draft, self.now, &event) {
                return Err(self.violation(error.to_string()));
            }
            events.push(event);
        }
        Ok(())
    }

    /// Appends events, and checks the state after them.
    pub(super) fn append(&mut self, draft: Saga, events: Vec<Event>) -> Result<()> {
        self.appended_from = self.log.len();
        if !events.is_empty() {
            self.figures.appends += 1;
        }
        for event in events {
            let read = Event::decode(&event.kind(), &event.data());
            if read.as_ref() != Ok(&event) {
                return Err(self.violation(format!("`{}` is read as {read:?}", event.kind())));
            }
            self.log.push((self.now, Arc::new(event)));
        }
        self.saga = draft;
        let replayed = self.replay()?;
        if !replayed.is_same(&self.saga) {
            return Err(self.violation("the log does not lead to the state in memory".to_owned()));
        }
        if let Some(event) = self.machine.decide(&self.saga, self.now, Input::Tick).first() {
            let rule = format!("an append left `{}` undecided", event.kind());
            return Err(self.violation(rule));
        }
        for command in self.machine.commands(&self.saga) {
            let (at, wakes) = match command {
                Command::Wake(at) => (at, true),
                Command::Start(Due { at: Some(at), .. }) => (at, false),
                Command::Start(_) | Command::Run(_) | Command::CancelChild(_) => continue,
            };
            if wakes && at <= self.now {
                return Err(self.violation("it wants to be woken in the past".to_owned()));
            }
            if at.since(self.now) > self.pause_max + CLOCK_TOLERANCE {
                let rule = format!("it waits until {at}, which is further than any pause of it");
                return Err(self.violation(rule));
            }
        }
        self.dispatch()
    }

    /// Begins the calls that must run, and checks them.
    fn dispatch(&mut self) -> Result<()> {
        let calls: Vec<_> =
            self.machine.commands(&self.saga).into_iter().filter_map(running).collect();
        if self.record.is_given_up {
            self.in_flight.clear();
        }
        if let Some(gone) = self.in_flight.iter().find(|call| !calls.contains(call)) {
            return Err(self.violation(format!("the call of {} is forgotten", gone.step)));
        }
        for call in calls {
            if self.in_flight.contains(&call) {
                continue;
            }
            let step = self.index(&call);
            let record = &self.record.steps[step];
            let is_durable = match call.direction {
                Direction::Execute => record.is_executing && record.attempts == call.attempt,
                Direction::Compensate => record.is_undoing && record.undo_attempts == call.attempt,
            };
            if !is_durable {
                let rule = format!("{} is called before that is durable", call.step);
                return Err(self.violation(rule));
            }
            let (input, output) =
                arguments(&self.saga, &call).map_err(|error| self.violation(error))?;
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
            if with_key.is_some_and(|before| before != input) && !is_unclear {
                let rule = format!("{} is called with a key that had another input", call.step);
                return Err(self.violation(rule));
            }
            self.ledger.steps[step].answer = None;
            self.in_flight.push(call);
        }
        Ok(())
    }

    /// Recovers the saga from its log.
    pub(super) fn replay(&self) -> Result<Saga> {
        let definition = Arc::clone(self.saga.definition());
        self.machine
            .replay(self.saga.id(), definition, &self.log)
            .map_err(|error| self.violation(error.to_string()))
    }

    /// Checks an event against the rules.
    fn check(&self, event: &Event) -> Result<()> {
        self.rules()
            .check(event)
            .map_err(|rule| self.violation(format!("`{}`: {rule}", event.kind())))
    }

    /// Returns the rules with what they need to know.
    pub(super) fn rules(&self) -> Rules<'_> {
        Rules {
            definition: &self.definition,
            units: &self.units,
            record: &self.record,
            ledger: &self.ledger,
            now: self.now,
        }
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

/// Returns the calls that are due now.
fn due(machine: &dyn Machine, saga: &Saga, now: Timestamp) -> Vec<Due> {
    let due = machine.commands(saga).into_iter().filter_map(|command| match command {
        Command::Start(due) => Some(due),
        Command::Run(_) | Command::Wake(_) | Command::CancelChild(_) => None,
    });
    due.filter(|due| due.at.is_none_or(|at| at <= now)).collect()
}

/// Returns the call of a command that says that it must be running.
fn running(command: Command) -> Option<Call> {
    match command {
        Command::Run(call) => Some(call),
        Command::Start(_) | Command::Wake(_) | Command::CancelChild(_) => None,
    }
}
