//! What must hold before a fact is applied.

use crate::ids::StepName;
use crate::saga::Saga;

/// Fails with `otherwise` unless a condition holds.
#[inline]
pub(super) fn require(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// Returns the index of a step or element by its name.
#[inline]
pub(super) fn index_of(saga: &Saga, name: &StepName) -> Result<usize, String> {
    saga.index_of(name).ok_or_else(|| format!("the saga has no step `{name}`"))
}
