//! What was tried and what was found.

use std::collections::{BTreeMap, BTreeSet};

use amends_engine::{DefinitionName, Direction, Saga, SagaStatus, StepName, on_one_line};
use comfy_table::Cell;
use serde_json::json;

use super::plan::{Fault, Kind, is_undone};
use crate::commands::output::format::Format;
use crate::commands::output::{print_json, print_json_line, print_table, say, table};
use amends_config::Config;

/// Prints what was found: of the definition that was asked for, then of those that it ran.
pub(super) fn print(reports: &[Report], format: Format) -> anyhow::Result<()> {
    let json = || {
        let mut all = reports.iter().map(Report::answer);
        let mut first = all.next().unwrap_or_default();
        first["children"] = all.collect();
        first["ok"] = reports.iter().all(Report::is_clean).into();
        first
    };
    match format {
        Format::Json => print_json(&json()),
        Format::Jsonl => print_json_line(&json()),
        Format::Ids | Format::Table => (0..).zip(reports).try_for_each(|(number, report)| {
            if number > 0 {
                say!("\n{}, as it was run:", report.definition)?;
            }
            report.print()
        }),
    }
}

/// What came of one trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Found(String),
}

pub(super) struct Report {
    definition: DefinitionName,
    steps: Vec<StepName>,
    inputs: BTreeMap<String, usize>,
    /// Per step, direction and fault: trials, and those that found something.
    cells: BTreeMap<(usize, Direction, Kind), (usize, usize)>,
    crashes: usize,
    /// Steps whose undos no trial comes to, because they are not before the pivot.
    not_undone: BTreeSet<StepName>,
    findings: Vec<String>,
}

impl Report {
    pub(super) fn new(name: &DefinitionName, config: &Config) -> Self {
        let definition = config.definitions.iter().find(|one| one.name() == name);
        let steps = definition.into_iter().flat_map(amends_engine::Definition::steps);
        Self {
            definition: name.clone(),
            steps: steps.map(|step| step.name.clone()).collect(),
            inputs: BTreeMap::new(),
            cells: BTreeMap::new(),
            crashes: 0,
            not_undone: BTreeSet::new(),
            findings: Vec::new(),
        }
    }

    /// What an input comes to with nothing going wrong.
    pub(super) fn input(&mut self, number: usize, saga: &Saga) {
        *self.inputs.entry(saga.status().to_string()).or_default() += 1;
        let steps = saga.definition().steps().iter();
        let left = steps.filter(|step| step.undo.is_some() && !is_undone(saga, &step.name));
        self.not_undone.extend(left.map(|step| step.name.clone()));
        if !saga.has_ended() {
            let reason = saga.reason().unwrap_or("it does not move");
            let status = saga.status();
            self.findings.push(format!("input {number}, with no fault: {status}: {reason}"));
        }
    }

    /// What a completed saga comes to that is compensated with nothing going wrong.
    pub(super) fn compensated(&mut self, number: usize, saga: &Saga) {
        if saga.status() != SagaStatus::Compensated {
            let reason = saga.reason().unwrap_or("it does not move");
            let status = saga.status();
            self.findings
                .push(format!("input {number}, compensated with no fault: {status}: {reason}"));
        }
    }

    pub(super) fn tried(&mut self, number: usize, fault: &Fault, verdict: Verdict) {
        // The elements of a list stand in the row of their step.
        let is_of = |step: &StepName| step.as_str() == fault.step.step();
        let step = self.steps.iter().position(is_of).unwrap_or_default();
        let (trials, found) = self.cells.entry((step, fault.direction, fault.kind)).or_default();
        *trials += 1;
        if let Verdict::Found(what) = verdict {
            *found += 1;
            let call = match fault.direction {
                Direction::Execute => fault.step.to_string(),
                Direction::Compensate => format!("the undo of {}", fault.step),
            };
            let kind = fault.kind.words();
            self.findings.push(format!("input {number}, {call} {kind}: {what}"));
        }
    }

    /// `tried`: how many crashes; `found`: by the number of the event.
    pub(super) fn crashed(&mut self, number: usize, tried: usize, found: BTreeMap<usize, String>) {
        self.crashes += tried;
        for (event, what) in found {
            self.findings.push(format!("input {number}, crash after event {event}: {what}"));
        }
    }

    pub(super) fn definition(&self) -> &DefinitionName {
        &self.definition
    }

    /// How many inputs were tried.
    pub(super) fn inputs(&self) -> usize {
        self.inputs.values().sum()
    }

    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn print(&self) -> anyhow::Result<()> {
        // In the order of the kinds; shorter than their words, so that the table fits 80 columns.
        let mut rows = table(&["call", "once", "for good", "reply lost", "lost", "never arrives"]);
        for (index, step) in self.steps.iter().enumerate() {
            for direction in [Direction::Execute, Direction::Compensate] {
                let cell = |kind| self.cells.get(&(index, direction, kind));
                if Kind::EXECUTE.iter().all(|kind| cell(*kind).is_none()) {
                    continue;
                }
                let which = match direction {
                    Direction::Execute => step.to_string(),
                    Direction::Compensate => format!("{step}, undo"),
                };
                let results = Kind::EXECUTE.map(|kind| Cell::new(words(cell(kind))));
                rows.add_row([vec![Cell::new(which)], results.to_vec()].concat());
            }
        }
        if self.cells.is_empty() {
            // Else nothing found would sound as if all had been tried.
            say!(
                "no call of {} was tried: no step of it calls a plugin itself, or none",
                self.definition
            )?;
            say!("was called")?;
        } else {
            print_table(&rows)?;
        }
        say!("")?;
        let inputs = self.inputs.iter().map(|(status, count)| format!("{count} {status}"));
        let inputs = inputs.collect::<Vec<_>>().join(", ");
        say!("{}: inputs with no fault: {inputs}", self.definition)?;
        say!("crashed after each of {} events", self.crashes)?;
        for step in &self.not_undone {
            say!(
                "the undo of {step} was not tried: no saga undoes a step that is not before the pivot"
            )?;
        }
        for finding in &self.findings {
            say!("  {}", on_one_line(finding))?;
        }
        match self.findings.len() {
            0 => say!("nothing found: every saga ended as it must"),
            1 => say!("1 finding"),
            count => say!("{count} findings"),
        }
    }

    fn answer(&self) -> serde_json::Value {
        let cells: Vec<_> = self
            .cells
            .iter()
            .map(|((step, direction, kind), (trials, found))| {
                json!({
                    "step": self.steps.get(*step),
                    "direction": direction,
                    "fault": kind.words(),
                    "trials": trials,
                    "found": found,
                })
            })
            .collect();
        json!({
            "definition": self.definition,
            "inputs": self.inputs,
            "trials": cells,
            "crashes": self.crashes,
            "undos_not_tried": self.not_undone,
            "findings": self.findings,
            "ok": self.is_clean(),
        })
    }
}

fn words(cell: Option<&(usize, usize)>) -> String {
    match cell {
        None => "-".to_owned(),
        Some((_, 0)) => "ok".to_owned(),
        Some((trials, found)) => format!("FOUND {found} of {trials}"),
    }
}
