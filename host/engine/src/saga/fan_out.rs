//! Steps that run over a list, and their elements.

use std::ops::Range;
use std::sync::Arc;

use crate::ids::StepName;
use crate::payload::Payload;

/// A step that runs over a list, and its elements. The states of the elements follow each other in
/// the steps of the saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FanOut {
    /// The index of the step.
    pub(crate) step: usize,
    /// The index of the state of its first element.
    pub(crate) first: usize,
    /// The elements, in the order of the list.
    pub(crate) elements: Arc<[Element]>,
}

/// One element of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// The name of the element as a step: `NAME[3]`.
    pub(crate) name: StepName,
    /// The value of the element.
    pub(crate) item: Payload,
}

impl FanOut {
    /// Returns the indexes of the states of its elements.
    pub(crate) fn range(&self) -> Range<usize> {
        self.first..self.first + self.elements.len()
    }
}
