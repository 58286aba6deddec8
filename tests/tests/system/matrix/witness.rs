//! What the components wrote of their effects, and what the host says of its sagas.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cell::{CHILD_STEP, Cell, Direction};
use crate::place::Host;

/// A line of a component: what it did in which attempt of which call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) direction: Direction,
    pub(super) attempt: u64,
    pub(super) key: String,
    /// Where it stands among all lines.
    pub(super) position: usize,
}

/// What the host says of one saga.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) saga: Value,
    pub(super) why: Value,
    /// The effects that stand or may stand.
    pub(super) exposure: Vec<Value>,
}

/// Everything that cells are judged by.
#[derive(Debug, Clone)]
pub(super) struct Witness {
    /// By saga and step, in the order in which they were written.
    pub(super) lines: BTreeMap<(String, String), Vec<Line>>,
    /// How many attempts are recorded.
    pub(super) attempts: BTreeMap<(String, String, Direction), u64>,
    /// By id.
    pub(super) sagas: BTreeMap<String, Told>,
    /// The sagas that each saga's step runs, by the parent's id.
    pub(super) children: BTreeMap<String, Vec<String>>,
}

impl Witness {
    /// Asks a host whose sagas rest, and stops it, so that its log is whole.
    pub(super) fn of(host: Host, mut log: Vec<String>) -> Self {
        let events = host.events();
        let mut sagas = BTreeMap::new();
        for saga in host.sagas() {
            let id = saga["id"].as_str().unwrap().to_owned();
            let path = format!("/v1/sagas/{id}");
            let exposure = host.get(&format!("{path}/exposure"))["items"].take();
            let told = Told {
                saga: host.get(&path),
                why: host.get(&format!("{path}/why")),
                exposure: exposure.as_array().unwrap().clone(),
            };
            sagas.insert(id, told);
        }
        let (code, last) = host.stop_logged();
        assert_eq!(code, Some(0));
        log.extend(last);
        let mut this = Self {
            lines: lines(&log),
            attempts: BTreeMap::new(),
            sagas,
            children: BTreeMap::new(),
        };
        for event in &events {
            this.add(event);
        }
        this
    }

    fn add(&mut self, event: &Value) {
        let (Some(saga), data) = (event["saga"].as_str(), &event["data"]) else { return };
        let direction = match event["type"].as_str().unwrap() {
            "step.started" => Direction::Execute,
            "undo.started" => Direction::Compensate,
            "saga.started" => {
                if let Some(parent) = data["parent"]["saga"].as_str() {
                    assert_eq!(data["parent"]["step"], CHILD_STEP);
                    self.children.entry(parent.to_owned()).or_default().push(saga.to_owned());
                }
                return;
            }
            _ => return,
        };
        let step = data["step"].as_str().unwrap().to_owned();
        let attempt = data["attempt"].as_u64().unwrap();
        self.attempts.insert((saga.to_owned(), step, direction), attempt);
    }

    /// The saga of a cell that a step of it belongs to, when there is one: `id` or its child.
    pub(super) fn saga<'s>(&'s self, cell: &Cell, id: &'s str, step: &str) -> Option<&'s str> {
        if cell.shape.step(step).is_in_child { self.child(id) } else { Some(id) }
    }

    pub(super) fn child(&self, id: &str) -> Option<&str> {
        self.children.get(id).and_then(|children| children.first()).map(String::as_str)
    }

    /// What the step's component wrote; nothing for a saga that there is none of.
    pub(super) fn lines(&self, saga: Option<&str>, step: &str) -> &[Line] {
        let key = saga.map(|saga| (saga.to_owned(), step.to_owned()));
        key.and_then(|key| self.lines.get(&key)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn attempts(&self, saga: &str, step: &str, direction: Direction) -> u64 {
        let key = (saga.to_owned(), step.to_owned(), direction);
        self.attempts.get(&key).copied().unwrap_or(0)
    }
}

/// The effects in a host's log, by saga and step.
fn lines(log: &[String]) -> BTreeMap<(String, String), Vec<Line>> {
    let mut lines: BTreeMap<_, Vec<Line>> = BTreeMap::new();
    for (position, line) in log.iter().filter_map(|line| effect(line)).enumerate() {
        let text = |field: &str| line[field].as_str().unwrap().to_owned();
        let (direction, key) = done(&line).unwrap();
        let attempt = line["attempt"].as_u64().unwrap();
        let entry = lines.entry((text("saga_id"), text("step"))).or_default();
        entry.push(Line { direction, attempt, key, position });
    }
    lines
}

/// The line of a log that says that a component had its effect, if it does.
fn effect(line: &str) -> Option<Value> {
    // Most lines say something else.
    if !line.contains(" effect=") {
        return None;
    }
    let line: Value = serde_json::from_str(line).ok()?;
    (line["target"] == "plugin" && done(&line).is_some()).then_some(line)
}

fn done(line: &Value) -> Option<(Direction, String)> {
    let (word, key) = line["message"].as_str()?.split_once(" effect=")?;
    let direction = match word {
        "done" => Direction::Execute,
        "undone" => Direction::Compensate,
        _ => return None,
    };
    Some((direction, key.to_owned()))
}

/// How many calls of these cells have had their effect in the step and the direction that has
/// trouble.
pub(super) fn effects(log: &[String], cells: &[&Cell]) -> usize {
    let made = log.iter().filter_map(|line| effect(line)).filter(|line| {
        let (direction, _) = done(line).unwrap();
        cells.iter().any(|cell| {
            line["plugin"] == cell.plugin()
                && line["step"] == cell.step
                && direction == cell.direction
        })
    });
    made.count()
}
