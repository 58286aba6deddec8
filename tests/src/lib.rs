//! What tests of several crates share. The whole-system tests stand in `tests/` beside this.

mod bomb;
mod component;
mod hostile;
mod list_append;
mod skipped;

pub use bomb::{Bomb, bombs, live_locals, many_nested_loops};
pub use component::{Behaviour, Component, Fault, FaultKind};
pub use hostile::{Expect, HOSTILE, Hostile};
pub use list_append::{ListCall, OPERATION_BYTES, Operation, anomalies, list_append};
pub use skipped::{say, skipped};
