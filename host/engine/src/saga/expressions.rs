//! What the expressions of a step see of their saga.

use serde_json::{Map, Value, json};

use super::state::Saga;
use crate::definition::{
    Item, PassedThrough, Source, StepSpec, Variable, VariableValue, Variables,
};
use crate::ids::StepName;
use crate::payload::{PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, Payload};

impl Saga {
    /// Returns the variables that the expressions of a step or element see.
    pub(crate) fn variables(&self, index: usize) -> Variables<'_> {
        let element = self.element(index);
        let step = element.map_or(index, |(fan_out, _)| fan_out.step);
        let item = element
            .map(|(fan_out, element)| Item::new(element.item.to_value(), index - fan_out.first));
        Variables::new(StepSource { saga: self, step }, item)
    }

    /// Returns the input of a step's calls when the step passes a payload through unchanged. That
    /// reads nothing and cannot fail.
    pub(crate) fn input_passed_through(&self, index: usize) -> Option<Payload> {
        match self.definition.step(self.step_of(index)).passed_through()? {
            PassedThrough::Input => Some(self.started.input.clone()),
            PassedThrough::Item => self.element(index).map(|(_, element)| element.item.clone()),
            PassedThrough::Output(name) => {
                let named = |spec: &StepSpec| spec.name.as_str() == name;
                let step = self.definition.steps().iter().position(named)?;
                Some(self.steps[step].output.clone().unwrap_or_else(Payload::null))
            }
        }
    }

    /// Returns true when the default input of a step, which contains all payloads before it,
    /// certainly is within the limits of a payload. When false, the input must be computed to find
    /// out.
    pub(crate) fn fits_default_input(&self, step: usize) -> bool {
        const PUNCTUATION: usize = 128;
        let outputs = self.definition.step(step).ancestors.iter();
        let outputs = outputs.filter_map(|step| self.steps[step].output.as_ref());
        let (mut bytes, mut depth) = (PUNCTUATION, 0);
        for payload in outputs.chain([&self.started.input]) {
            bytes += payload.as_str().len() + PUNCTUATION;
            depth = depth.max(payload.depth());
        }
        bytes <= PAYLOAD_BYTES_MAX && depth + 4 <= PAYLOAD_DEPTH_MAX
    }
}

/// What the expressions of a step read.
struct StepSource<'s> {
    saga: &'s Saga,
    step: usize,
}

impl StepSource<'_> {
    /// Returns the steps that the expressions read, with their outputs.
    fn outputs(&self) -> impl Iterator<Item = (&StepName, Option<&Payload>)> {
        let definition = &self.saga.definition;
        let steps = definition.step(self.step).reads.iter();
        steps.map(|step| (&definition.steps()[step].name, self.saga.steps[step].output.as_ref()))
    }
}

impl Source for StepSource<'_> {
    fn bytes(&self, variable: Variable) -> usize {
        match variable {
            Variable::Input => self.saga.started.input.as_str().len(),
            Variable::Steps => {
                self.outputs().filter_map(|(_, output)| Some(output?.as_str().len())).sum()
            }
            // The tags are few and short. A step sees no event.
            Variable::Saga | Variable::Event => 0,
        }
    }

    fn read(&self, variable: Variable) -> VariableValue {
        let saga = self.saga;
        match variable {
            Variable::Input => saga.started.input.to_value(),
            Variable::Steps => {
                let mut outputs = Map::new();
                for (name, output) in self.outputs() {
                    let output = output.map(Payload::to_value).transpose()?;
                    outputs.insert(name.to_string(), json!({"output": output}));
                }
                Ok(Value::Object(outputs))
            }
            Variable::Saga => Ok(json!({
                "id": saga.id,
                "definition": saga.definition.name(),
                "started_at": saga.started_at,
                "tags": saga.started.tags,
            })),
            Variable::Event => Ok(Value::Null),
        }
    }
}
