//! What was tried and what was found.

use std::collections::{BTreeMap, BTreeSet};

use amends_engine::{DefinitionName, Direction, Saga, SagaStatus, StepName};
use serde::Serialize;

use super::plan::{Fault, FaultKind, is_undone};
use amends_config::Config;

/// What was found of a definition, and of those that its steps run.
#[derive(Debug, Clone, Serialize)]
pub struct ChaosReport {
    /// The definition that was asked for. It is `ok` when its children are, too.
    #[serde(flatten)]
    pub definition: DefinitionReport,
    /// The definitions that its steps run, as they were run.
    pub children: Vec<DefinitionReport>,
}

/// What was found of one definition.
#[derive(Debug, Clone, Serialize)]
pub struct DefinitionReport {
    /// Its name.
    pub definition: DefinitionName,
    /// How many inputs came to each status with no fault.
    pub inputs: BTreeMap<String, usize>,
    /// What was tried, by step, direction and fault.
    pub trials: Vec<TrialsReport>,
    /// Crashes of the host.
    pub crashes: usize,
    /// Steps whose undos no trial comes to, because they are not before the pivot.
    pub undos_not_tried: BTreeSet<StepName>,
    /// What was found, a sentence each.
    pub findings: Vec<String>,
    /// Whether nothing was found.
    pub ok: bool,
}

/// The trials of one fault of one call, one for each input.
#[derive(Debug, Clone, Serialize)]
pub struct TrialsReport {
    /// The step.
    pub step: StepName,
    /// Its call or its undo.
    pub direction: Direction,
    /// How the call goes wrong.
    pub fault: FaultKind,
    /// How often that was tried.
    pub trials: usize,
    /// How many of these trials found something.
    pub found: usize,
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
    cells: BTreeMap<(usize, Direction, FaultKind), (usize, usize)>,
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

    pub(super) fn answer(self) -> DefinitionReport {
        let trials = self.cells.iter().filter_map(|((step, direction, fault), (trials, found))| {
            let step = self.steps.get(*step)?.clone();
            let (direction, fault, trials, found) = (*direction, *fault, *trials, *found);
            Some(TrialsReport { step, direction, fault, trials, found })
        });
        DefinitionReport {
            trials: trials.collect(),
            definition: self.definition,
            inputs: self.inputs,
            crashes: self.crashes,
            undos_not_tried: self.not_undone,
            ok: self.findings.is_empty(),
            findings: self.findings,
        }
    }
}
