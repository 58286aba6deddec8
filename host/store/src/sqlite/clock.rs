//! The clock of the system, as both stores read it.

pub(super) use crate::clock::now;
