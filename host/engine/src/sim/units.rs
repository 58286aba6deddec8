//! Units: everything with a state and an effect of its own, so the steps of a definition and their
//! elements.
//!
//! The elements are known from the beginning, because simulated steps run over literal lists such
//! as `[0, 1]`. So the rules need not trust the machine about them.

use std::ops::Range;

use serde_json::Value;

use crate::{Definition, StepKind, StepName, StepSpec};

/// The steps of a definition in its order, then the elements of each that runs over a list.
#[derive(Debug)]
pub(super) struct Units {
    all: Vec<Unit>,
    /// The units of the elements of each step.
    elements: Vec<Range<usize>>,
}

/// One step or element.
#[derive(Debug)]
struct Unit {
    name: StepName,
    step: usize,
}

impl Units {
    pub(super) fn of(definition: &Definition) -> Self {
        let steps = definition.steps().iter().enumerate();
        let mut all: Vec<_> =
            steps.map(|(step, spec)| Unit { name: spec.name.clone(), step }).collect();
        let mut elements = Vec::new();
        for (step, spec) in definition.steps().iter().enumerate() {
            let first = all.len();
            let named = |number| Unit { name: spec.name.element(number), step };
            all.extend((0..items(spec).len()).map(named));
            elements.push(first..all.len());
        }
        Self { all, elements }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn name(&self, unit: usize) -> &StepName {
        &self.all[unit].name
    }

    pub(super) fn index_of(&self, name: &StepName) -> Option<usize> {
        self.all.iter().position(|unit| unit.name == *name)
    }

    /// Returns the step of the definition that a unit is, or belongs to.
    pub(super) fn step(&self, unit: usize) -> usize {
        self.all[unit].step
    }

    /// Returns the elements of the step that `unit` belongs to; none for a step of the definition.
    pub(super) fn siblings(&self, unit: usize) -> Option<Range<usize>> {
        let elements = self.elements[self.all[unit].step].clone();
        elements.contains(&unit).then_some(elements)
    }

    /// Returns the elements of a step.
    pub(super) fn elements(&self, step: usize) -> Range<usize> {
        self.elements.get(step).cloned().unwrap_or_default()
    }

    /// Returns all units after a unit.
    pub(super) fn descendants(&self, definition: &Definition, unit: usize) -> Vec<usize> {
        let steps = definition.step(self.step(unit)).descendants;
        (0..self.len()).filter(|other| steps.contains(self.step(*other))).collect()
    }

    /// Returns true when a unit has an effect outside.
    pub(super) fn has_effect(&self, definition: &Definition, unit: usize) -> bool {
        let spec = &definition.steps()[self.step(unit)];
        let is_list = spec.each.is_some() && self.siblings(unit).is_none();
        match spec.kind {
            StepKind::Call { .. } | StepKind::Saga { .. } => !is_list,
            StepKind::Wait { .. } | StepKind::Sleep { .. } => false,
        }
    }
}

/// Returns the list that a step runs over.
pub(super) fn items(spec: &StepSpec) -> Vec<Value> {
    let list = spec.each.as_ref().and_then(|each| serde_json::from_str(&each.list).ok());
    list.unwrap_or_default()
}
