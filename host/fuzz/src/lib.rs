//! Feeds hostile bytes to code that reads foreign bytes. For tests only.
//!
//! A [`Target`] has seeds, which are sound inputs, and a [`Shape`], which says how they are changed.
//! [`Target::run`] passes changed inputs to a check for as long as the environment says:
//!
//! - `AMENDS_FUZZ_SECONDS`: how long each target runs; one second when absent. Every seed is tried
//!   as it is, however long that takes.
//! - `AMENDS_FUZZ_SEED`: the number that the changes follow from. When absent, each run draws another
//!   one and prints it.
//! - `AMENDS_FUZZ_INPUT`: a file whose bytes are the only input.
//!
//! The check panics when a rule is broken. Otherwise it returns lines of text that describe the result. An
//! input whose result has a new line is kept and changed further. So new lines guide the search, as
//! covered code does in other fuzzers.
//!
//! An input that makes the check panic is made smaller, printed and written to a file. The same happens to
//! an input that takes too long or ends the process.
//!
//! Deliberately absent: what is checked, and limits of memory. Both are the check's.

#![allow(clippy::print_stdout, reason = "a test says what it has tried")]

mod bytes;
mod json;
mod random;
mod shrink;
mod target;
mod wasm;
mod watch;

pub use json::change_json;
pub use random::Random;
pub use target::{Shape, Target};
pub use wasm::custom_section;
