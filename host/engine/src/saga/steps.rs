//! Steps and elements by index and by name. Steps of the definition come first, then the elements.

use std::ops::Range;

use super::fan_out::{Element, FanOut};
use super::state::Saga;
use crate::definition::StepSpec;
use crate::ids::{SagaId, StepName};

impl Saga {
    /// Returns the fan-out of a step, once it has its elements.
    #[inline]
    pub(crate) fn fan_out(&self, step: usize) -> Option<&FanOut> {
        self.fan_outs.iter().find(|fan_out| fan_out.step == step)
    }

    /// Returns the indexes of the elements of a step; empty when it has none.
    pub(super) fn elements(&self, step: usize) -> Range<usize> {
        self.fan_out(step).map_or(0..0, FanOut::range)
    }

    /// Returns the fan-out that an element belongs to, and the element. None for a step of the
    /// definition.
    #[inline]
    pub(crate) fn element(&self, index: usize) -> Option<(&FanOut, &Element)> {
        if index < self.definition.steps().len() {
            return None;
        }
        let fan_out = self.fan_outs.iter().find(|fan_out| fan_out.range().contains(&index))?;
        Some((fan_out, &fan_out.elements[index - fan_out.first]))
    }

    /// Returns the step of the definition that a step is, or that an element belongs to.
    pub(crate) fn step_of(&self, index: usize) -> usize {
        self.element(index).map_or(index, |(fan_out, _)| fan_out.step)
    }

    /// Returns the spec of a step, or of the step that an element belongs to.
    #[inline]
    pub(crate) fn spec(&self, index: usize) -> &StepSpec {
        &self.definition.steps()[self.step_of(index)]
    }

    /// Returns the name of a step or element.
    pub(crate) fn name(&self, index: usize) -> &StepName {
        match self.element(index) {
            Some((_, element)) => &element.name,
            None => &self.definition.steps()[index].name,
        }
    }

    /// Returns the step or element of this name.
    #[inline]
    pub(crate) fn index_of(&self, name: &StepName) -> Option<usize> {
        let Some(number) = name.number() else { return self.definition.index_of(name) };
        let named = |step: usize| self.definition.steps()[step].name.as_str() == name.step();
        let fan_out = self.fan_outs.iter().find(|fan_out| named(fan_out.step))?;
        fan_out.range().nth(number)
    }

    /// Returns true when a step runs over a list: its elements make the calls.
    #[inline]
    pub(crate) fn runs_over_list(&self, step: usize) -> bool {
        self.definition.steps().get(step).is_some_and(|spec| spec.each.is_some())
    }

    /// Returns the saga that the last attempt of a step started, if the step runs one.
    pub(crate) fn child(&self, step: usize) -> Option<SagaId> {
        self.steps[step].child
    }
}
