//! Judges one cell: the effects, and what the host says of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::cell::{CHILD_STEP, Cell, Direction, Layout, Rest, Step, Trouble};
use super::witness::{Line, Told, Witness};

/// Everything that is wrong with the cell whose saga is `id`; nothing, if all is well.
pub(super) fn check(witness: &Witness, cell: &Cell, id: &str) -> Vec<String> {
    let mut judge = Judge { witness, cell, id, wrong: Vec::new() };
    judge.order();
    for step in cell.shape.steps {
        judge.effects(step);
        judge.status(step);
    }
    judge.attempts();
    judge.rest();
    match cell.shape.layout {
        Layout::Graph | Layout::List => {}
        Layout::Child => judge.child(),
    }
    judge.wrong
}

/// Effects of different calls that have the same key: none.
pub(super) fn check_keys(witness: &Witness) -> Vec<String> {
    let (mut owners, mut wrong) = (BTreeMap::new(), Vec::new());
    for (call, lines) in &witness.lines {
        for line in lines {
            let owner = owners.entry(&line.key).or_insert((call, line.direction));
            if *owner != (call, line.direction) {
                let call = (call, line.direction);
                wrong.push(format!("two calls have key {}: {owner:?}, {call:?}", line.key));
            }
        }
    }
    wrong
}

struct Judge<'a> {
    witness: &'a Witness,
    cell: &'a Cell,
    id: &'a str,
    wrong: Vec<String>,
}

impl<'a> Judge<'a> {
    fn must(&mut self, holds: bool, else_: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(format!("{} ({}): {}", self.cell.name(), self.id, else_()));
        }
    }

    fn lines(&self, step: &str) -> &'a [Line] {
        self.witness.lines(self.witness.saga(self.cell, self.id, step), step)
    }

    /// What the host says of a saga.
    fn told(&self, id: &str) -> &'a Told {
        &self.witness.sagas[id]
    }

    /// A step is undone when everything after it is.
    fn order(&mut self) {
        let shape = self.cell.shape;
        let undos = |step: &str| {
            let undos = self.lines(step).iter().filter(|line| line.direction == UNDO);
            undos.map(|line| line.position).collect::<Vec<_>>()
        };
        let mut early = Vec::new();
        for first in shape.steps {
            for then in shape.steps.iter().filter(|then| shape.is_before(first.name, then.name)) {
                if let (Some(begun), Some(over)) =
                    (undos(first.name).first(), undos(then.name).last())
                    && over > begun
                {
                    early.push(format!("{} was undone before {}", first.name, then.name));
                }
            }
        }
        self.must(early.is_empty(), || early.join(", "));
    }

    /// The effect of a step: once and undone once, or once and standing, as the cell wants it.
    fn effects(&mut self, step: &Step) {
        let (cell, witness) = (self.cell, self.witness);
        let saga = witness.saga(cell, self.id, step.name);
        let lines = self.lines(step.name);
        let told = |what: &str| format!("step {}: {what}: {lines:?}", step.name);
        let mut keys: BTreeMap<Direction, &str> = BTreeMap::new();
        let mut made = BTreeSet::new();
        for line in lines {
            let key = *keys.entry(line.direction).or_insert(&line.key);
            self.must(key == line.key, || told("two effects"));
            let is_new = made.insert((line.direction, line.attempt));
            self.must(is_new, || told("an attempt was made twice"));
            let recorded = saga.map_or(0, |saga| witness.attempts(saga, step.name, line.direction));
            self.must(line.attempt <= recorded, || told("an attempt is not recorded"));
        }
        let turns = lines.windows(2).filter(|pair| pair[0].direction != pair[1].direction).count();
        self.must(turns <= 1, || told("done after it was undone"));
        let happened = |direction| lines.iter().any(|line| line.direction == direction);
        let found = (happened(DO), happened(UNDO));
        let expected = self.expected(step, found.0);
        self.must(found == expected, || told(&format!("done and undone should be {expected:?}")));
        for direction in Direction::ALL {
            let in_direction = lines.iter().filter(|line| line.direction == direction);
            let attempts: Vec<_> = in_direction.map(|line| line.attempt).collect();
            if let Some(expected) = self.expected_attempts(step, direction)
                && !attempts.is_empty()
            {
                self.must(attempts == expected, || {
                    told(&format!("{} in attempts {expected:?}", direction.word()))
                });
            }
        }
    }

    /// Whether the effect of a step must have happened, and must have been undone. `done`: whether
    /// it has happened, for a step of which that is left open.
    fn expected(&self, step: &Step, done: bool) -> (bool, bool) {
        let Cell { shape, direction, trouble, step: target, .. } = *self.cell;
        let is_target = step.name == target;
        match self.cell.rest() {
            Rest::Completed => (true, false),
            // What may have happened is undone as well.
            Rest::Compensated if direction == DO && is_target => {
                (trouble.is_late(), trouble.is_unknown())
            }
            Rest::Compensated if direction == DO && shape.is_before(target, step.name) => {
                (false, false)
            }
            // It may have begun or not.
            Rest::Compensated if direction == DO && self.cell.is_beside(step.name) => (done, done),
            Rest::Compensated => (true, true),
            Rest::Blocked if is_target => (true, trouble.is_late()),
            // What came before it waits for its undo.
            Rest::Blocked => (true, !shape.is_before(step.name, target)),
        }
    }

    /// The attempts that have an effect, if there is one at all. None where that is left open: for
    /// a call beside one that the host is killed at, and where a timeout is short, because another
    /// may follow on a busy machine.
    fn expected_attempts(&self, step: &Step, direction: Direction) -> Option<Vec<u64>> {
        let Cell { trouble, step: target, .. } = *self.cell;
        if step.name != target || direction != self.cell.direction {
            // Another element has the same short time.
            let is_late = trouble.is_timeout() && self.cell.is_sibling(step.name);
            let is_open = trouble.is_kill() && self.cell.is_beside(step.name) || is_late;
            return (!is_open).then(|| vec![1]);
        }
        match trouble {
            Trouble::Fails(_) if trouble.is_timeout() => None,
            Trouble::Fails(_) if trouble.is_late() => Some(vec![1, 2]),
            Trouble::Fails(_) | Trouble::KilledBefore => Some(vec![2]),
            Trouble::KilledDuring | Trouble::KilledAfter => Some(vec![1, 2]),
        }
    }

    /// The host says of a step what happened to it.
    fn status(&mut self, step: &Step) {
        let Some(saga) = self.witness.saga(self.cell, self.id, step.name) else { return };
        let done = self.lines(step.name).iter().any(|line| line.direction == DO);
        let is_target = step.name == self.cell.step;
        let expected = match (self.expected(step, done), self.cell.rest()) {
            (_, Rest::Blocked) if is_target => "undo_blocked",
            ((_, true), _) => "undone",
            ((true, false), _) => "succeeded",
            ((false, false), _) if is_target => "failed",
            ((false, false), _) => "pending",
        };
        self.step_status(saga, step.name, expected);
    }

    fn step_status(&mut self, saga: &str, step: &str, expected: &str) {
        let told = &self.told(saga).saga;
        let mut steps = told["steps"].as_array().unwrap().iter();
        // An element that has not come to be is none that is shown.
        let status = steps.find(|shown| shown["name"] == step).map(|shown| &shown["status"]);
        let status = status.and_then(Value::as_str).unwrap_or("pending");
        self.must(status == expected, || format!("step {step} is {status}, not {expected}"));
    }

    /// How often the call that has trouble was made.
    fn attempts(&mut self) {
        let Cell { trouble, step, direction, .. } = *self.cell;
        let Some(saga) = self.witness.saga(self.cell, self.id, step) else {
            self.must(false, || "there is no child".to_owned());
            return;
        };
        let recorded = self.witness.attempts(saga, step, direction);
        let expected = if trouble.is_permanent() { 1 } else { 2 };
        // After a timeout another attempt may run out of time as well.
        let is_busy = trouble.is_timeout() && !trouble.is_final() && recorded > expected;
        self.must(recorded == expected || is_busy, || format!("{recorded} attempts"));
    }

    /// The host says how the saga ended, or what it is blocked by.
    fn rest(&mut self) {
        let Told { saga, why, exposure } = self.told(self.id);
        let (status, reason) = (&saga["status"], saga["reason"].as_str().unwrap_or_default());
        let sentence = why["sentence"].as_str().unwrap();
        match self.cell.rest() {
            Rest::Completed => {
                self.must(status == "completed" && reason.is_empty(), || saga.to_string());
                self.must(sentence.contains("every step is done"), || sentence.to_owned());
            }
            Rest::Compensated => {
                self.must(status == "compensated", || saga.to_string());
                let blame = self.blame();
                self.must(reason.starts_with(&blame), || format!("not by `{blame}`: {reason}"));
                self.must(exposure.is_empty(), || format!("{exposure:?}"));
                let is_said = sentence.contains("no effect stands") && sentence.contains(reason);
                self.must(is_said, || sentence.to_owned());
            }
            Rest::Blocked => self.blocked(),
        }
    }

    /// What the reason of a compensated saga begins with.
    fn blame(&self) -> String {
        let Cell { trouble, step, direction, .. } = *self.cell;
        let what = if trouble.is_unknown() { "is unknown" } else { "failed" };
        match (direction, self.witness.child(self.id)) {
            (Direction::Compensate, _) => "refuse failed: no".to_owned(),
            (Direction::Execute, Some(child)) if self.cell.is_in_child() => format!(
                "{CHILD_STEP} failed: child_compensated: saga {child} came undone: {step} {what}"
            ),
            (Direction::Execute, _) => format!("{step} {what}"),
        }
    }

    /// The saga says that it is blocked, by which step, what stands and what can be done.
    fn blocked(&mut self) {
        let Cell { shape, step, trouble, .. } = *self.cell;
        let Some(target) = self.witness.saga(self.cell, self.id, step) else { return };
        let Told { saga, why, exposure } = self.told(target);
        self.must(saga["status"] == "blocked", || saga.to_string());
        let reason = saga["reason"].as_str().unwrap_or_default();
        let is_said = reason.starts_with(&format!("the undo of {step} failed: "));
        self.must(is_said, || format!("the reason is `{reason}`"));
        let sentence = why["sentence"].as_str().unwrap();
        let is_said = sentence.contains("needs an operator") && sentence.contains(reason);
        self.must(is_said, || sentence.to_owned());
        let verbs = why["verbs"].as_array().unwrap();
        let permitted = |verb: &str| verbs.iter().any(|other| other == verb);
        let is_helped = ["retry", "resolve", "skip"].into_iter().all(permitted);
        self.must(is_helped, || why.to_string());
        // What stands, in the saga that is blocked.
        let is_here =
            |other: &&Step| self.witness.saga(self.cell, self.id, other.name) == Some(target);
        let stands = |other: &&Step| other.name == step || shape.is_before(other.name, step);
        let standing = shape.steps.iter().filter(is_here).filter(stands);
        let standing: BTreeSet<_> = standing.map(|step| step.name).collect();
        let shown: BTreeSet<_> =
            exposure.iter().map(|effect| effect["step"].as_str().unwrap()).collect();
        let without_child = shown.iter().copied().filter(|name| *name != CHILD_STEP);
        let is_whole = without_child.collect::<BTreeSet<_>>() == standing;
        self.must(is_whole, || format!("{shown:?} stand, not {standing:?}"));
        for effect in exposure {
            // Of an undo that ended nobody knows how, it is not known whether its effect stands.
            let is_open = effect["step"] == step && trouble.is_unknown();
            self.must(effect["is_certain"] == !is_open, || effect.to_string());
        }
        if target != self.id {
            let Told { saga, why, .. } = self.told(self.id);
            self.must(saga["status"] == "compensating", || saga.to_string());
            let sentence = why["sentence"].as_str().unwrap();
            let is_said =
                sentence.contains(&format!("the undo of {CHILD_STEP} runs in saga {target}"));
            self.must(is_said, || format!("the parent does not say why: {sentence}"));
        }
    }

    /// There is one child, and it and the step that runs it end with the parent.
    fn child(&mut self) {
        let Cell { step, direction, .. } = *self.cell;
        let count = self.witness.children.get(self.id).map_or(0, Vec::len);
        let is_before = step == self.cell.shape.steps[0].name;
        let is_never = is_before && direction == DO && self.cell.rest() != Rest::Completed;
        self.must(count == usize::from(!is_never), || format!("{count} children"));
        let is_in_child = self.cell.is_in_child();
        let (expected, expected_child) = match self.cell.rest() {
            _ if is_never => ("pending", None),
            Rest::Compensated if direction == DO && is_in_child => ("failed", Some("compensated")),
            Rest::Compensated => ("undone", Some("compensated")),
            Rest::Blocked if is_in_child => ("undoing", Some("blocked")),
            Rest::Blocked if is_before => ("undone", Some("compensated")),
            Rest::Completed | Rest::Blocked => ("succeeded", Some("completed")),
        };
        self.step_status(self.id, CHILD_STEP, expected);
        if let (Some(child), Some(expected)) = (self.witness.child(self.id), expected_child) {
            let status = &self.told(child).saga["status"];
            self.must(status == expected, || format!("the child is {status}, not {expected}"));
        }
    }
}

const DO: Direction = Direction::Execute;
const UNDO: Direction = Direction::Compensate;
