//! The simulator on the engine as it is, and on engines that are broken on purpose.
//! Longer runs: `examples/simulate.rs`.
#![cfg(feature = "sim")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
#![allow(clippy::unnecessary_box_returns, reason = "a violation is large")]

use std::sync::Arc;

use amends_engine::sim::{
    Budget, ClusterFigures, Engine, Figures, Machine, Protection, Variants, Violation, exhaustive,
    graphs, hosts, seeded,
};
use amends_engine::{
    Command, Definition, Direction, Event, FailureClass, Fate, Impossible, Input, OperatorEvent,
    Saga, SagaCompensated, SagaEvent, SagaId, SagaStatus, StepEvent, StepFailed, StepStatus,
    StepSucceeded, StepUnknown, Timestamp, UndoEvent, commands, decide, replay,
};

const BUDGET: Budget = Budget {
    faults: 2,
    crashes: 1,
    cancels: 1,
    orders: 0,
    delays: 0,
    looks: true,
    clock: false,
    admissions: true,
};

#[test]
fn every_schedule_of_every_graph_of_two_steps_keeps_the_rules() {
    let mut figures = Figures::default();
    for steps in 1..=2 {
        for definition in graphs(steps, Variants::All) {
            figures.add(exhaustive(&Engine, &definition, BUDGET).unwrap());
        }
    }
    println!("{figures}");
    // Every end was reached, in many ways: a search that finds nothing proves nothing.
    assert!(figures.ends.iter().all(|end| *end > 100), "{figures}");
    assert!(figures.schedules > 100_000 && figures.crashes > 10_000, "{figures}");
}

/// The engine, watched: a saga whose status is `waiting` is moved by the clock, a signal or an order
/// alone, and its row says when by the clock. A host forgets such a saga until then.
#[derive(Debug, Default)]
struct Watched(std::sync::atomic::AtomicU64);

impl Machine for Watched {
    fn commands(&self, saga: &Saga) -> Vec<Command> {
        let all: Vec<_> = commands(saga).collect();
        if saga.status() == SagaStatus::Waiting {
            let wakes = all.iter().map(|command| match command {
                Command::Start(due) => due.at,
                Command::Wake(at) => Some(*at),
                Command::Run(_) | Command::CancelChild(_) => None,
            });
            let wakes: Vec<_> = wakes.map(|at| at.expect("it does not only wait")).collect();
            assert_eq!(wakes.into_iter().min(), saga.wake_at(), "{all:?}");
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        all
    }
}

#[test]
fn a_saga_that_waits_is_moved_by_the_clock_alone() {
    let watched = Watched::default();
    let budget = Budget { orders: 1, delays: 1, clock: true, admissions: false, ..BUDGET };
    for definition in graphs(1, Variants::All) {
        exhaustive(&watched, &definition, budget).unwrap();
    }
    for definition in graphs(2, Variants::All) {
        exhaustive(&watched, &definition, Budget { crashes: 0, ..BUDGET }).unwrap();
    }
    let mut figures = Figures::default();
    for seed in 0..300 {
        figures.add(seeded(&watched, seed).unwrap());
    }
    assert!(watched.0.into_inner() > 10_000, "few sagas waited");
}

#[test]
fn every_schedule_of_every_graph_of_two_steps_with_an_operator_keeps_the_rules() {
    let budget = Budget {
        faults: 2,
        crashes: 1,
        cancels: 1,
        orders: 1,
        admissions: false,
        looks: false,
        ..BUDGET
    };
    let mut figures = Figures::default();
    for steps in 1..=2 {
        for definition in graphs(steps, Variants::All) {
            figures.add(exhaustive(&Engine, &definition, budget).unwrap());
        }
    }
    println!("{figures}");
    assert!(figures.ends.iter().all(|end| *end > 100), "{figures}");
}

/// The host notices late that a time has come, and what comes first finds the saga unsettled.
#[test]
fn every_schedule_of_every_graph_of_two_steps_on_a_slow_host_keeps_the_rules() {
    let budget = Budget { faults: 1, crashes: 0, cancels: 1, orders: 1, delays: 1, ..BUDGET };
    let mut figures = Figures::default();
    for steps in 1..=2 {
        for definition in graphs(steps, Variants::All) {
            let budget = Budget { admissions: false, ..budget };
            figures.add(exhaustive(&Engine, &definition, budget).unwrap());
        }
    }
    println!("{figures}");
    assert!(figures.ends.iter().all(|end| *end > 100), "{figures}");
}

/// The clock is an hour ahead for a while.
#[test]
fn every_schedule_of_every_graph_of_two_steps_on_a_wrong_clock_keeps_the_rules() {
    let budget = Budget { faults: 1, crashes: 1, cancels: 1, clock: true, ..BUDGET };
    let mut figures = Figures::default();
    for steps in 1..=2 {
        for definition in graphs(steps, Variants::All) {
            let budget = Budget { admissions: false, ..budget };
            figures.add(exhaustive(&Engine, &definition, budget).unwrap());
        }
    }
    println!("{figures}");
    assert!(figures.ends.iter().all(|end| *end > 100), "{figures}");
}

#[test]
fn every_schedule_of_every_graph_of_two_steps_over_lists_keeps_the_rules() {
    let mut figures = Figures::default();
    for definition in graphs(1, Variants::Lists) {
        for (faults, orders) in [(2, 0), (1, 1)] {
            let budget = Budget { faults, orders, looks: false, ..BUDGET };
            figures.add(exhaustive(&Engine, &definition, budget).unwrap());
        }
    }
    let budget = Budget {
        faults: 1,
        crashes: 1,
        cancels: 1,
        orders: 1,
        admissions: false,
        looks: false,
        ..BUDGET
    };
    for definition in graphs(2, Variants::Lists) {
        figures.add(exhaustive(&Engine, &definition, budget).unwrap());
    }
    println!("{figures}");
    assert!(figures.ends.iter().all(|end| *end > 100), "{figures}");
}

#[test]
fn every_schedule_of_every_graph_of_three_steps_with_one_fault_keeps_the_rules() {
    let budget = Budget {
        faults: 1,
        crashes: 1,
        cancels: 1,
        orders: 0,
        admissions: false,
        looks: false,
        ..BUDGET
    };
    let mut figures = Figures::default();
    for definition in graphs(3, Variants::All) {
        figures.add(exhaustive(&Engine, &definition, budget).unwrap());
    }
    println!("{figures}");
    assert!(figures.ends.iter().all(|end| *end > 100), "{figures}");
}

#[test]
fn five_hundred_large_sagas_by_seed_keep_the_rules() {
    let mut figures = Figures::default();
    for seed in 0..500 {
        figures.add(seeded(&Engine, seed).unwrap_or_else(|error| panic!("seed {seed}: {error}")));
    }
    println!("{figures}");
    assert!(figures.ends.iter().all(|end| *end > 10), "{figures}");
    assert!(figures.prefixes > 5_000, "{figures}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(seeded(&Engine, 42).unwrap(), seeded(&Engine, 42).unwrap());
    assert_eq!(hosts(&Engine, None, 42).unwrap(), hosts(&Engine, None, 42).unwrap());
}

#[test]
fn five_thousand_schedules_of_several_hosts_by_seed_keep_the_rules() {
    let mut figures = ClusterFigures::default();
    for seed in 0..5_000 {
        let run = hosts(&Engine, None, seed);
        figures.add(run.unwrap_or_else(|error| panic!("seed {seed}: {error}")));
    }
    println!("{figures}");
    // Each thing that may go wrong between hosts did so often.
    let ClusterFigures { takeovers, handovers, kills, late_wakes, fenced, lost, .. } = figures;
    let ClusterFigures { late_answers, late_replies, acknowledged, ends, .. } = figures;
    for count in [takeovers, handovers, kills, late_wakes, late_answers, late_replies] {
        assert!(count > 3_000, "{figures}");
    }
    assert!(lost.iter().chain(&ends).all(|count| *count > 1_000), "{figures}");
    assert!(fenced > 1_000 && acknowledged > 10_000, "{figures}");
}

/// Hosts that do without a protection break a rule, and soon.
#[test]
fn each_protection_between_hosts_is_needed() {
    for (protection, rules) in [
        (Protection::Fence, ["a host with the fence appends after", "an append is stored that"]),
        (Protection::Question, ["a host with the fence appends after", "an append is "]),
        (Protection::Raise, ["a host with the fence appends after", "an append is "]),
        (Protection::AnswerOfEpoch, ["does not lead to the state in memory", "with the fence"]),
        (Protection::CallOfReading, ["said that it succeeded", "did not answer that output"]),
        (Protection::SagaClock, ["the time of the saga goes back"; 2]),
        (Protection::Forgetting, ["a host with the fence appends after", "is called before that"]),
        (Protection::Lease, ["is called before that is durable", "acknowledged and not recorded"]),
    ] {
        let violation = (0..1_000).find_map(|seed| hosts(&Engine, Some(protection), seed).err());
        let violation = violation.unwrap_or_else(|| panic!("{protection:?} is not missed"));
        assert!(
            rules.iter().any(|rule| violation.rule.contains(rule)),
            "{protection:?}: {violation}"
        );
    }
}

/// The rules for one host judge several hosts as well.
#[test]
fn a_broken_engine_is_caught_on_several_hosts() {
    let machines: [(&dyn Machine, &str); 4] = [
        (&UndoForgotten, "`saga.compensated`: compensated, and"),
        (&EventLost, "an append left"),
        (&EventLostInTheLog, "the log does not lead to the state in memory"),
        (&UnknownForgotten, "is said to have failed, and"),
    ];
    for (machine, rule) in machines {
        let violation = (0..1_000).find_map(|seed| hosts(machine, None, seed).err());
        let violation = violation.unwrap_or_else(|| panic!("not caught: {rule}"));
        assert!(violation.rule.contains(rule), "{rule}: {violation}");
    }
}

/// Runs small graphs until a rule breaks.
fn caught(machine: &dyn Machine) -> Box<Violation> {
    let all: Vec<Arc<Definition>> =
        (1..=3).flat_map(|steps| graphs(steps, Variants::Plain)).collect();
    for definition in all {
        if let Err(violation) = exhaustive(machine, &definition, BUDGET) {
            return violation;
        }
    }
    panic!("the mutation was not caught");
}

/// And by seed alone, which is another way to find it.
fn caught_by_seed(machine: &dyn Machine) -> Box<Violation> {
    (0..1_000).find_map(|seed| seeded(machine, seed).err()).expect("the mutation was not caught")
}

/// Forgets that the clock was set back.
struct ClockBelieved;

impl Machine for ClockBelieved {
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        let mut events = decide(saga, at, input);
        events.retain(|event| !matches!(event, Event::Saga(SagaEvent::Retimed(_))));
        events
    }
}

#[test]
fn a_clock_that_is_believed_is_caught() {
    let budget = Budget { faults: 1, clock: true, admissions: false, ..BUDGET };
    let mut all = graphs(1, Variants::All).into_iter();
    let violation = all.find_map(|graph| exhaustive(&ClockBelieved, &graph, budget).err());
    let violation = violation.expect("the mutation was not caught");
    assert!(violation.rule.contains("further than any pause of it"), "{violation}");
}

/// Believes at once that a call did not happen when its component says so.
struct LookBelieved;

impl Machine for LookBelieved {
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        let events = decide(saga, at, input).into_iter();
        let events = events.map(|event| {
            let Event::Step(StepEvent::Unknown(unknown)) = event else { return event };
            let StepUnknown { step, attempt, error, retry_at, probe } = unknown;
            if probe == Some(Fate::DidNotHappen) {
                let class = FailureClass::Retryable;
                StepFailed { step, attempt, class, error, retry_at, probe }.into()
            } else {
                StepUnknown { step, attempt, error, retry_at, probe }.into()
            }
        });
        events.collect()
    }
}

#[test]
fn a_look_that_is_believed_at_once_is_caught() {
    for violation in [caught(&LookBelieved), caught_by_seed(&LookBelieved)] {
        assert!(violation.rule.contains("and a request is on its way"), "{violation}");
    }
}

/// Says `saga.compensated` as soon as one undo succeeded.
struct UndoForgotten;

impl Machine for UndoForgotten {
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        let mut events = decide(saga, at, input);
        if let Some(undone) = events.iter().position(|event| event.kind() == "undo.succeeded") {
            events.truncate(undone + 1);
            events.push(SagaCompensated {}.into());
        }
        events
    }
}

#[test]
fn an_undo_forgotten_is_caught() {
    for violation in [caught(&UndoForgotten), caught_by_seed(&UndoForgotten)] {
        assert!(violation.rule.starts_with("`saga.compensated`: compensated, and"), "{violation}");
    }
}

/// Says that a step over a list is done when its first element is.
struct ElementForgotten;

impl Machine for ElementForgotten {
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        let mut events = decide(saga, at, input);
        let first = events.iter().find_map(|event| {
            let Event::Step(StepEvent::Succeeded(event)) = event else { return None };
            (event.step.as_str() == "s0[0]").then(|| event.clone())
        });
        if let Some(event) = first {
            let step = "s0".parse().unwrap();
            events.push(StepSucceeded { step, attempt: 0, ..event }.into());
        }
        events
    }
}

#[test]
fn an_element_forgotten_is_caught() {
    let mut lists = graphs(1, Variants::Lists).into_iter();
    let violation = lists.find_map(|list| exhaustive(&ElementForgotten, &list, BUDGET).err());
    let violation = violation.expect("the mutation was not caught");
    assert!(violation.rule.contains("s0 is done before its elements are"), "{violation}");
}

/// Never asks for the undo of the first step.
struct UndoNeverDue;

impl Machine for UndoNeverDue {
    fn commands(&self, saga: &Saga) -> Vec<Command> {
        let first = saga.definition().steps()[0].name.clone();
        let forgotten = |command: &Command| {
            matches!(command, Command::Start(due)
                if due.direction == Direction::Compensate && due.step == first)
        };
        commands(saga).filter(|command| !forgotten(command)).collect()
    }
}

#[test]
fn an_undo_that_is_never_due_is_caught() {
    for violation in [caught(&UndoNeverDue), caught_by_seed(&UndoNeverDue)] {
        let rules = ["it rests, and has neither ended nor", "nothing keeps its undo back"];
        assert!(rules.iter().any(|rule| violation.rule.contains(rule)), "{violation}");
    }
}

/// Undoes in the order of the steps, not in reverse.
struct OrderSwapped;

impl Machine for OrderSwapped {
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        let first = saga.steps().find(|step| step.status == StepStatus::Succeeded);
        let mut events = decide(saga, at, input);
        for event in &mut events {
            if let (Event::Undo(UndoEvent::Started(undo)), Some(first)) = (event, &first) {
                undo.step = first.name.clone();
                undo.attempt = 1;
            }
        }
        events
    }
}

#[test]
fn an_order_swapped_is_caught() {
    let violation = caught(&OrderSwapped);
    assert!(violation.rule.contains("is undone before"), "{violation}");
    caught_by_seed(&OrderSwapped);
}

/// Loses the last event of an append that has several.
struct EventLost;

impl Machine for EventLost {
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        let mut events = decide(saga, at, input);
        if events.len() > 1 {
            events.pop();
        }
        events
    }
}

#[test]
fn an_event_lost_in_a_decision_is_caught() {
    for violation in [caught(&EventLost), caught_by_seed(&EventLost)] {
        assert!(violation.rule.starts_with("an append left"), "{violation}");
    }
}

/// A log that is read back without its last event.
struct EventLostInTheLog;

impl Machine for EventLostInTheLog {
    fn replay(
        &self,
        id: SagaId,
        definition: Arc<Definition>,
        log: &[(Timestamp, Arc<Event>)],
    ) -> Result<Saga, Impossible> {
        let kept = if log.len() > 4 { log.len() - 1 } else { log.len() };
        replay(id, definition, log[..kept].iter().map(|(at, event)| (*at, &**event)))
    }
}

#[test]
fn an_event_lost_in_the_log_is_caught() {
    for violation in [caught(&EventLostInTheLog), caught_by_seed(&EventLostInTheLog)] {
        assert_eq!(violation.rule, "the log does not lead to the state in memory");
    }
}

/// Believes a guest that says "failed" although an earlier attempt may have had its effect.
struct UnknownForgotten;

impl Machine for UnknownForgotten {
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        let says_failed = matches!(&input, Input::Outcome { outcome, .. } if format!("{outcome:?}").starts_with("Permanent"));
        let mut events = decide(saga, at, input);
        for event in &mut events {
            if let Event::Step(StepEvent::Unknown(unknown)) = event
                && says_failed
            {
                let (step, attempt) = (unknown.step.clone(), unknown.attempt);
                let class = amends_engine::FailureClass::Permanent;
                let error = unknown.error.clone();
                *event =
                    StepFailed { step, attempt, class, error, retry_at: None, probe: None }.into();
            }
        }
        events
    }
}

#[test]
fn an_unknown_outcome_that_is_taken_for_a_failure_is_caught() {
    caught(&UnknownForgotten);
    caught_by_seed(&UnknownForgotten);
}

/// Acts on a result that was acted on before.
struct RepeatTaken;

impl Machine for RepeatTaken {
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        let repeated = matches!(input, Input::Outcome { .. });
        let events = decide(saga, at, input);
        if repeated && events.is_empty() && !saga.has_ended() {
            return vec![SagaCompensated {}.into()];
        }
        events
    }
}

#[test]
fn a_repeated_result_that_is_acted_on_is_caught() {
    let violation = caught(&RepeatTaken);
    assert!(violation.rule.contains("a repeated or late result"), "{violation}");
}

/// Calls a saga compensated although an operator let an effect stand.
struct SkipForgotten;

impl Machine for SkipForgotten {
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        let mut events = decide(saga, at, input);
        let skipped = |event: &Event| matches!(event, Event::Operator(OperatorEvent::Skipped(_)));
        let step = saga.steps().any(|step| step.status == StepStatus::UndoSkipped);
        if let Some(event) = events.last_mut()
            && event.kind() == "saga.abandoned"
            && step
            && !skipped(event)
        {
            *event = SagaCompensated {}.into();
        }
        events
    }
}

#[test]
fn an_effect_that_is_let_stand_and_not_told_is_caught() {
    let violation = caught_with(&SkipForgotten, 2);
    assert!(violation.rule.contains("compensated, and the effect of"), "{violation}");
}

/// Begins calls of a saga that an operator holds.
struct PauseForgotten;

impl Machine for PauseForgotten {
    fn decide(&self, saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
        let mut events = decide(saga, at, input);
        events.retain(|event| event.kind() != "operator.paused");
        if let [event] = events.as_slice()
            && event.kind() == "operator.resumed"
        {
            events.clear();
        }
        events
    }
}

#[test]
fn an_order_that_is_not_recorded_is_caught() {
    let violation = caught_with(&PauseForgotten, 1);
    assert!(violation.rule.contains("acknowledged and not recorded"), "{violation}");
}

/// Runs small graphs with so many orders of an operator, until a rule breaks.
fn caught_with(machine: &dyn Machine, orders: u8) -> Box<Violation> {
    let budget = Budget { faults: 2, crashes: 0, cancels: 0, orders, admissions: false, ..BUDGET };
    let all = (1..=2).flat_map(|steps| graphs(steps, Variants::Plain));
    all.into_iter()
        .find_map(|definition| exhaustive(machine, &definition, budget).err())
        .expect("the mutation was not caught")
}
