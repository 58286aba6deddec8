//! What tests of several crates share. The whole-system tests stand in `tests/` beside this.

mod component;

pub use component::{Behaviour, Component, Fault, FaultKind};
