//! The variables that expressions see.

use std::cell::OnceCell;

use cel::common::value::Val;
use serde_json::Value;

use super::convert::to_cel;
use super::error::{ExpressionError, unreadable};
use super::meter::Meter;
use crate::payload::PayloadError;

/// A variable that an expression sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variable {
    /// The input of the saga.
    Input,
    /// The outputs of the steps that are done before.
    Steps,
    /// The id, definition, start and tags of the saga.
    Saga,
    /// The event that starts a saga or becomes a signal.
    Event,
}

impl Variable {
    /// All variables.
    pub(super) const ALL: [Self; 4] = [Self::Input, Self::Steps, Self::Saga, Self::Event];

    /// The variables that the steps of a saga see.
    pub(crate) const OF_STEPS: [Self; 3] = [Self::Input, Self::Steps, Self::Saga];

    /// Returns the name of the variable in expressions.
    pub(in crate::definition) const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Steps => "steps",
            Self::Saga => "saga",
            Self::Event => "event",
        }
    }
}

/// The names that expressions of an element may also use.
pub(super) const ITEM_NAMES: [&str; 2] = ["item", "index"];

/// The source of the values of variables.
pub(crate) trait Source {
    /// Returns the bytes of the variable as text.
    fn bytes(&self, variable: Variable) -> usize;

    /// Returns the value of the variable.
    fn read(&self, variable: Variable) -> VariableValue;
}

/// The value of a payload. Payloads that earlier versions recorded may have none.
pub(crate) type VariableValue = Result<Value, PayloadError>;

/// The values that the expressions of a step see, and what their evaluation has cost so far. A
/// value is read when the first expression looks at it.
pub(crate) struct Variables<'v> {
    source: Box<dyn Source + 'v>,
    /// The values as JSON.
    json: [OnceCell<VariableValue>; 4],
    /// The values as CEL.
    converted: [OnceCell<Box<dyn Val>>; 4],
    /// The element, for expressions of an element.
    item: Option<Item>,
    pub(super) meter: Meter,
    /// True when the cost of reading was counted before, when the step was decided on.
    is_decided: bool,
}

impl<'v> Variables<'v> {
    /// Makes the variables of a step, or of an element of it.
    pub(crate) fn new(source: impl Source + 'v, item: Option<Item>) -> Self {
        let (json, converted) = Default::default();
        Self {
            source: Box::new(source),
            json,
            converted,
            item,
            meter: Meter::default(),
            is_decided: false,
        }
    }

    /// Turns off the count of what is read. This is for steps that were decided on before, perhaps
    /// by a version that did not count.
    pub(crate) fn decided(self) -> Self {
        Self { is_decided: true, ..self }
    }

    /// Counts the bytes of a variable, before it is read or converted.
    fn count(
        &self,
        variable: Variable,
        count: impl Fn(&Meter, usize) -> Result<(), ExpressionError>,
    ) -> Result<(), ExpressionError> {
        if self.is_decided { Ok(()) } else { count(&self.meter, self.source.bytes(variable)) }
    }

    /// Returns the value of a variable.
    pub(crate) fn value(&self, variable: Variable) -> Result<&Value, ExpressionError> {
        let json = &self.json[variable as usize];
        if json.get().is_none() {
            self.count(variable, Meter::read)?;
        }
        json.get_or_init(|| self.source.read(variable))
            .as_ref()
            .map_err(|error| unreadable(variable.name(), error))
    }

    /// Returns the element, if the expressions are of one.
    pub(crate) fn item(&self) -> Option<&Item> {
        self.item.as_ref()
    }

    /// Sets the next element. What was spent stays spent.
    pub(crate) fn set_item(&mut self, item: Item) {
        self.item = Some(item);
    }

    /// Returns the value of a variable as CEL.
    pub(super) fn converted(&self, variable: Variable) -> Result<&dyn Val, ExpressionError> {
        let value = self.value(variable)?;
        let converted = &self.converted[variable as usize];
        if converted.get().is_none() {
            self.count(variable, Meter::convert)?;
        }
        Ok(converted.get_or_init(|| to_cel(value)).as_ref())
    }
}

/// One element of a list and its number, from 0.
pub(crate) struct Item {
    value: VariableValue,
    pub(crate) index: usize,
    converted: OnceCell<[Box<dyn Val>; 2]>,
}

impl Item {
    /// Makes an element of its value and number.
    pub(crate) fn new(value: VariableValue, index: usize) -> Self {
        Self { value, index, converted: OnceCell::new() }
    }

    /// Returns the value of the element.
    pub(crate) fn value(&self) -> Result<&Value, ExpressionError> {
        self.value.as_ref().map_err(|error| unreadable("item", error))
    }

    /// Returns the element and its number as CEL.
    pub(super) fn converted(&self) -> Result<&[Box<dyn Val>; 2], ExpressionError> {
        let item = self.value()?;
        let convert = || [to_cel(item), to_cel(&Value::from(self.index))];
        Ok(self.converted.get_or_init(convert))
    }
}
