//! What tests of several crates share. The whole-system tests stand in `tests/` beside this.

mod component;
mod hostile;

pub use component::{Behaviour, Component, Fault, FaultKind};
pub use hostile::{Expect, HOSTILE, Hostile};
