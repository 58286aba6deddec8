//! Access control: who may do what, what is shown to whom, and what is recorded of who did it.
//!
//! Deliberately absent: several hosts. `--test cluster` has them.

pub(crate) mod asker;
mod listen;
mod payloads;
mod proxy;
mod table;
mod tokens;
mod who;
