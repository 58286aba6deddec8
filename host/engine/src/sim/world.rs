//! One simulated host and the world around it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::record::{Effect, Ledger, OnItsWay, Record, Waits, emitted_by};
use super::rules::Rules;
use super::units::Units;
use super::{Figures, Machine, Violation};
use crate::{
    BackoffSpec, CLOCK_TOLERANCE, Call, Command, Definition, Direction, Due, Event, Failure, Fate,
    Input, Order, Outcome, Payload, RetrySpec, Saga, SagaId, SagaStatus, Start, StepKind, Target,
    Timestamp, Verb, arguments, decide_on, permits,
};

/// A run that takes more appends than this does not end.
const APPENDS_MAX: u64 = 20_000;

/// By how much a clock is wrong that is: more than any pause that is simulated.
const CLOCK_AHEAD: Duration = Duration::from_hours(1);

/// What can happen next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// The host has room for a call that is due.
    Admit { step: usize },
    /// A call ends.
    Reply { step: usize, reply: Reply },
    /// The clock goes on to the next time that the saga waits for.
    Wait,
    /// The same, and the host has not noticed yet: it is busy, or was stopped.
    Late,
    /// The host's clock is set an hour ahead, or right again.
    SetClock { ahead: bool },
    /// A request comes that was on its way when its call ended.
    Land { request: usize },
    /// The host dies and starts again. `landed`: steps whose call in flight had its effect.
    Crash { landed: u128 },
    /// An operator cancels.
    Cancel,
    /// A call that is due is refused.
    Refuse { step: usize },
    /// Somebody sends the signal that steps wait for.
    Signal,
    /// An operator does what is permitted; of a step, where the verb is about one.
    Order { order: Ordered, step: usize },
}

/// What an operator does. Who resolves says what is true, after undoing by hand what is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ordered {
    Retry,
    /// A retry with another input.
    Edit,
    Skip,
    Resolve,
    Pause,
    Resume,
    Compensate,
    Note,
    Abandon,
}

impl Ordered {
    pub(super) const ALL: [Self; 9] = [
        Self::Retry,
        Self::Edit,
        Self::Skip,
        Self::Resolve,
        Self::Pause,
        Self::Resume,
        Self::Compensate,
        Self::Note,
        Self::Abandon,
    ];

    pub(super) const fn is_about_a_step(self) -> bool {
        match self {
            Self::Retry | Self::Edit | Self::Skip | Self::Resolve => true,
            Self::Pause | Self::Resume | Self::Compensate | Self::Note | Self::Abandon => false,
        }
    }
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Done,
    Permanent,
    Retryable,
    /// Nobody hears of it.
    Lost {
        landed: bool,
    },
    /// Nobody hears of it in time, and the component can tell when it is asked.
    Probed {
        landed: bool,
    },
    /// The host asks the component while the request is still on its way: it looks, finds nothing
    /// and says so.
    Looked,
}

#[derive(Clone)]
pub(super) struct World<'m> {
    machine: &'m dyn Machine,
    pub(super) definition: Arc<Definition>,
    pub(super) units: Arc<Units>,
    pub(super) now: Timestamp,
    /// As the host has it in memory.
    pub(super) saga: Saga,
    /// What is durable.
    pub(super) log: Vec<(Timestamp, Arc<Event>)>,
    pub(super) record: Record,
    pub(super) ledger: Ledger,
    pub(super) in_flight: Vec<Call>,
    /// The input of each step's calls, from the first one on, and how often it was edited by then.
    inputs: Vec<Option<(u32, Payload)>>,
    /// The input that went with each idempotency key.
    keys: BTreeMap<(usize, Direction, u32), Payload>,
    /// How much the host's clock is ahead.
    pub(super) ahead: Duration,
    /// The longest pause of the definition.
    pause_max: Duration,
    /// Whether what is due is admitted in the append that makes it due.
    admits_at_once: bool,
    pub(super) figures: Figures,
    actions: Vec<Action>,
    /// Where the last append begins in the log.
    pub(super) appended_from: usize,
}

pub(super) type Result<T> = std::result::Result<T, Box<Violation>>;

impl<'m> World<'m> {
    pub(super) fn start(
        machine: &'m dyn Machine,
        definition: Arc<Definition>,
        input: Payload,
        id: SagaId,
        admits_at_once: bool,
    ) -> Result<Self> {
        let now = Timestamp::from_millis(0);
        let what = Start {
            id,
            definition: Arc::clone(&definition),
            input,
            key: None,
            tags: BTreeMap::new(),
            traceparent: None,
            parent: None,
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
                steps: vec![Effect::default(); units.len()],
                on_their_way: Vec::new(),
            },
            in_flight: Vec::new(),
            inputs: vec![None; units.len()],
            keys: BTreeMap::new(),
            ahead: Duration::ZERO,
            pause_max: pause_max(&definition),
            admits_at_once,
            figures: Figures { definitions: 1, ..Figures::default() },
            actions: Vec::new(),
            appended_from: 0,
            definition,
            units,
        };
        // The start is decided and evolved already; what it says is checked like the rest.
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

    /// Calls that are due and not admitted.
    pub(super) fn due(&self) -> Vec<Due> {
        due(self.machine, &self.saga, self.now)
    }

    /// The next time that something waits for.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let times = self.machine.commands(&self.saga).into_iter().filter_map(|it| match it {
            Command::Start(due) => due.at.filter(|at| *at > self.now),
            // One that the host has not noticed is now.
            Command::Wake(at) => Some(at.max(self.now)),
            Command::Run(_) | Command::CancelChild(_) => None,
        });
        times.min()
    }

    /// The next time that something waits for, if that is yet to come.
    pub(super) fn may_be_late(&self) -> bool {
        self.wake_at().is_some_and(|at| at > self.now)
    }

    pub(super) fn index(&self, call: &Call) -> usize {
        self.units.index_of(&call.step).unwrap_or_default()
    }

    pub(super) fn act(&mut self, action: Action) -> Result<()> {
        self.actions.push(action);
        self.act_once(action)?;
        let (steps, now) = (&self.ledger.steps, self.now);
        self.ledger.on_their_way.retain(|request| request.may_land(&steps[request.step], now));
        Ok(())
    }

    fn act_once(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Admit { step } => {
                let name = self.units.name(step);
                let Some(due) = self.due().into_iter().find(|due| due.step == *name) else {
                    return Ok(());
                };
                let mut draft = self.saga.clone();
                let mut events = Vec::new();
                self.admit(&mut draft, &mut events, due)?;
                self.append(draft, events)
            }
            Action::Reply { step, reply } => self.reply(step, reply),
            Action::Wait => {
                if let Some(at) = self.wake_at() {
                    self.now = at;
                }
                self.feed(Input::Tick)
            }
            Action::Late => {
                self.now = self.wake_at().unwrap_or(self.now);
                Ok(())
            }
            Action::SetClock { ahead } => self.set_clock(ahead),
            Action::Land { request } => {
                let OnItsWay { step, generation, .. } = self.ledger.on_their_way.remove(request);
                self.do_call(step, (Direction::Execute, generation)).map(drop)
            }
            Action::Crash { landed } => self.crash(landed),
            Action::Cancel => self.operate(Verb::Cancel, |_| false),
            Action::Refuse { step } => {
                self.ledger.steps[step].answer = None;
                let step = self.units.name(step).clone();
                let error = Failure::new("breaker_open", "a simulated refusal");
                self.feed(Input::Refuse { step, error })
            }
            Action::Signal => {
                let Some(name) = self.definition.signals().next().cloned() else { return Ok(()) };
                let id = Some(self.record.signals.to_string());
                let signal = |payload| Input::Signal {
                    name: name.clone(),
                    id: id.clone(),
                    payload,
                    who: None,
                };
                self.feed_and_hear(signal(Payload::null()), "signal.received", |_| false)?;
                // Sent again, with the same id.
                self.figures.repeats += 1;
                let again = self.machine.decide(&self.saga, self.now, signal(Payload::null()));
                if again.is_empty() {
                    return Ok(());
                }
                Err(self.violation("a signal is taken twice".to_owned()))
            }
            Action::Order { order, step } => self.order(order, step),
        }
    }

    /// Whether an operator may do that now, as far as the host has noticed.
    pub(super) fn may(&self, ordered: Ordered, step: usize) -> bool {
        let knows = match ordered {
            // Who says that it did not happen has made sure that it will not.
            Ordered::Resolve => !self.ledger.may_land(step, self.now),
            Ordered::Edit => self.units.has_effect(&self.definition, step),
            Ordered::Retry
            | Ordered::Skip
            | Ordered::Pause
            | Ordered::Resume
            | Ordered::Compensate
            | Ordered::Note
            | Ordered::Abandon => true,
        };
        knows && permits(&self.saga, self.now, &order(self.verb(ordered, step))).is_ok()
    }

    fn verb(&self, ordered: Ordered, step: usize) -> Verb {
        let named = Some(self.units.name(step).clone());
        match ordered {
            Ordered::Retry => Verb::Retry { step: named, input: None, digest: None },
            Ordered::Edit => {
                let edited = serde_json::json!({"edited": self.record.steps[step].edits + 1});
                let input = Payload::from_value(&edited).ok();
                Verb::Retry { step: named, input, digest: None }
            }
            Ordered::Skip => Verb::Skip { step: named, undo: self.is_undone_by_hand(step) },
            Ordered::Resolve => {
                let effect = &self.ledger.steps[step];
                let waits = self.record.steps[step].waits != Waits::No;
                // Not everybody can tell what it gave.
                let undo = self.is_undone_by_hand(step);
                let is_known = !undo && effect.stands && step.is_multiple_of(2);
                let output = is_known.then(|| output_of(step));
                let (happened, evidence) = (effect.stands || waits, "seen".to_owned());
                Verb::Resolve { step: named, happened, output, evidence, undo }
            }
            Ordered::Pause => Verb::Pause,
            Ordered::Resume => Verb::Resume,
            Ordered::Compensate => Verb::Compensate,
            Ordered::Note => Verb::Note,
            Ordered::Abandon => Verb::Abandon,
        }
    }

    /// Whether an order about a step is about its undo.
    fn is_undone_by_hand(&self, step: usize) -> bool {
        let has_undo = self.definition.steps()[self.units.step(step)].undo.is_some();
        self.record.is_compensating && has_undo
    }

    fn order(&mut self, ordered: Ordered, step: usize) -> Result<()> {
        if !self.may(ordered, step) {
            return Ok(());
        }
        let verb = self.verb(ordered, step);
        if ordered == Ordered::Resolve && self.is_undone_by_hand(step) {
            self.ledger.steps[step].stands = false;
        }
        self.operate(verb, |record| ordered == Ordered::Pause && record.is_paused)
    }

    fn operate(&mut self, verb: Verb, is_done: impl Fn(&Record) -> bool) -> Result<()> {
        let undoes = matches!(verb, Verb::Cancel | Verb::Compensate);
        self.feed_and_hear(Input::Operate(order(verb)), "operator.", |record| {
            let is_undone = record.is_cancelled || record.is_compensating;
            let ended = record.has_ended && !record.is_completed;
            undoes && is_undone || ended || is_done(record)
        })
    }

    /// What is acknowledged has its fact in the log, unless it was done already; what is refused
    /// has none. `fact`: how its type begins.
    fn feed_and_hear(
        &mut self,
        input: Input,
        fact: &str,
        is_done: impl Fn(&Record) -> bool,
    ) -> Result<()> {
        let refused = decide_on(&mut self.saga.clone(), self.now, input.clone()).refused;
        let from = self.log.len();
        self.feed(input)?;
        let is_in_log = self.log[from..].iter().any(|(_, event)| event.kind().starts_with(fact));
        if refused.is_some() == is_in_log && !(refused.is_none() && is_done(&self.record)) {
            let answer = if refused.is_some() { "refused" } else { "acknowledged" };
            let so = if is_in_log { "recorded" } else { "not recorded" };
            return Err(self.violation(format!("an order or a signal is {answer} and {so}")));
        }
        Ok(())
    }

    /// A clock that is set right is noticed by the host.
    fn set_clock(&mut self, ahead: bool) -> Result<()> {
        if ahead {
            self.ahead = CLOCK_AHEAD;
            self.now = self.now.after(CLOCK_AHEAD);
            // How long they take is not told by this clock.
            self.ledger.on_their_way.clear();
        } else {
            let back = std::mem::take(&mut self.ahead);
            let earlier = |at: Timestamp| {
                let millis = i64::try_from(back.as_millis()).unwrap_or_default();
                Timestamp::from_millis(at.as_millis() - millis)
            };
            self.now = earlier(self.now);
            for request in &mut self.ledger.on_their_way {
                request.until = earlier(request.until);
            }
        }
        self.feed(Input::Tick)
    }

    /// Goes on without any fault until nothing moves, and checks that rest.
    pub(super) fn finish(&mut self) -> Result<()> {
        loop {
            if self.figures.appends > APPENDS_MAX {
                return Err(self.violation(format!("no end after {APPENDS_MAX} appends")));
            }
            if !self.ahead.is_zero() {
                self.act(Action::SetClock { ahead: false })?;
            } else if let Some(call) = self.in_flight.first() {
                let step = self.index(call);
                self.act(Action::Reply { step, reply: Reply::Done })?;
            } else if let Some(due) = self.due().first() {
                let step = self.units.index_of(&due.step).unwrap_or_default();
                self.act(Action::Admit { step })?;
            } else if self.wake_at().is_some() && !self.record.is_paused {
                self.act(Action::Wait)?;
            } else if self.may(Ordered::Resume, 0) {
                self.act(Action::Order { order: Ordered::Resume, step: 0 })?;
            } else if self.waits_for_signal() {
                self.act(Action::Signal)?;
            } else {
                return self.rest();
            }
        }
    }

    pub(super) fn waits_for_signal(&self) -> bool {
        !self.record.has_ended && self.record.steps.iter().any(|step| step.waits == Waits::ForEver)
    }

    /// Whether a step waits for a signal for some time only.
    pub(super) fn may_signal(&self) -> bool {
        let waits = self.record.steps.iter().any(|step| matches!(step.waits, Waits::Until { .. }));
        !self.record.has_ended && waits && self.definition.signals().next().is_some()
    }

    /// Checks a state in which nothing can happen any more, and counts it.
    pub(super) fn rest(&mut self) -> Result<()> {
        self.rules().at_rest().map_err(|rule| self.violation(rule))?;
        let end = match self.saga.status() {
            SagaStatus::Completed => 0,
            SagaStatus::Compensated => 1,
            SagaStatus::Running
            | SagaStatus::Waiting
            | SagaStatus::Paused
            | SagaStatus::Compensating
            | SagaStatus::Blocked
            | SagaStatus::Abandoned => 2,
        };
        self.figures.ends[end] += 1;
        Ok(())
    }

    /// The host as it would be, had the log ended after `events`: recovered, run to its end.
    pub(super) fn recover_prefix(&self, events: usize, ledger: Ledger) -> Result<Figures> {
        let log = self.log[..events].to_vec();
        let events = log.iter().map(|(at, event)| (*at, &**event));
        let record = Record::of((&self.definition, &self.units), events);
        let now = log.last().map_or(self.now, |(at, _)| *at);
        // A step that had not begun by then may come to see other outputs.
        let begun = |(index, input): (usize, &Option<(u32, Payload)>)| {
            let step = &record.steps[index];
            input.clone().filter(|(edits, _)| step.attempts > 0 && *edits == step.edits)
        };
        let inputs: Vec<_> = self.inputs.iter().enumerate().map(begun).collect();
        // Nor are edits the same that are made again.
        let mut keys = self.keys.clone();
        keys.retain(|(step, ..), _| inputs[*step].is_some() && record.steps[*step].edits == 0);
        let mut world = Self {
            log,
            record,
            ledger,
            inputs,
            keys,
            now,
            figures: Figures::default(),
            in_flight: Vec::new(),
            ..self.clone()
        };
        world.act(Action::Crash { landed: 0 })?;
        world.finish()?;
        Ok(Figures {
            prefixes: 1,
            crashes: 1,
            appends: world.figures.appends,
            ..Figures::default()
        })
    }

    #[expect(clippy::unnecessary_box_returns, reason = "it is large, and every caller boxes it")]
    pub(super) fn violation(&self, rule: String) -> Box<Violation> {
        Box::new(Violation {
            rule,
            definition: Arc::clone(&self.definition),
            actions: self.actions.iter().map(|action| format!("{action:?}")).collect(),
            log: self.log.clone(),
        })
    }

    fn reply(&mut self, step: usize, reply: Reply) -> Result<()> {
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
                    // A clock that was ahead when it began tells nothing of how long it takes.
                    let began_at = self.record.steps[step].began_at.min(self.now);
                    let (generation, until) = (call.generation, began_at.after(call.timeout));
                    self.ledger.on_their_way.push(OnItsWay { step, generation, until });
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
                // What the component can tell is about the key: any attempt of it.
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
        // Again, and as a late success of this attempt and of the one before.
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

    /// A call has its effect, once for its key however often it is repeated.
    fn do_call(
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

    fn crash(&mut self, landed: u128) -> Result<()> {
        self.figures.crashes += 1;
        for call in std::mem::take(&mut self.in_flight) {
            let step = self.index(&call);
            // A saga that a step started goes on without its parent, and is found again.
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

    fn feed(&mut self, input: Input) -> Result<()> {
        let mut draft = self.saga.clone();
        let mut events = Vec::new();
        self.draft(&mut draft, &mut events, input)?;
        self.admit_due_and_append(draft, events)
    }

    fn admit_due_and_append(&mut self, mut draft: Saga, mut events: Vec<Event>) -> Result<()> {
        if self.admits_at_once {
            for due in due(self.machine, &draft, self.now) {
                self.admit(&mut draft, &mut events, due)?;
            }
        }
        self.append(draft, events)
    }

    fn admit(&mut self, draft: &mut Saga, events: &mut Vec<Event>, due: Due) -> Result<()> {
        let digest = crate::Digest::from_bytes([7; 32]);
        let Due { step, direction, .. } = due;
        self.draft(
            draft,
            events,
            Input::Admit { step, direction, digest, note: None, is_trial: false },
        )
    }

    fn draft(&mut self, draft: &mut Saga, events: &mut Vec<Event>, input: Input) -> Result<()> {
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

    fn append(&mut self, draft: Saga, events: Vec<Event>) -> Result<()> {
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

    fn replay(&self) -> Result<Saga> {
        let definition = Arc::clone(self.saga.definition());
        self.machine
            .replay(self.saga.id(), definition, &self.log)
            .map_err(|error| self.violation(error.to_string()))
    }

    fn check(&self, event: &Event) -> Result<()> {
        self.rules()
            .check(event)
            .map_err(|rule| self.violation(format!("`{}`: {rule}", event.kind())))
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            definition: &self.definition,
            units: &self.units,
            record: &self.record,
            ledger: &self.ledger,
            now: self.now,
        }
    }
}

/// The longest time that a saga may wait for by the clock alone.
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

fn due(machine: &dyn Machine, saga: &Saga, now: Timestamp) -> Vec<Due> {
    let due = machine.commands(saga).into_iter().filter_map(|command| match command {
        Command::Start(due) => Some(due),
        Command::Run(_) | Command::Wake(_) | Command::CancelChild(_) => None,
    });
    due.filter(|due| due.at.is_none_or(|at| at <= now)).collect()
}

fn running(command: Command) -> Option<Call> {
    match command {
        Command::Run(call) => Some(call),
        Command::Start(_) | Command::Wake(_) | Command::CancelChild(_) => None,
    }
}

fn order(verb: Verb) -> Order {
    Order { who: "sim".to_owned(), reason: "a test".to_owned(), verb }
}

/// What a step answers.
fn output_of(step: usize) -> Payload {
    Payload::from_value(&serde_json::json!({ "n": step })).unwrap_or_else(|_| Payload::null())
}
