//! Feeds bytes that mean no good to what reads bytes of others. For tests only.
//!
//! A [`Target`] has seeds, which are inputs that make sense, and a [`Shape`], which says how they are
//! changed. [`Target::run`] hands changed inputs to a check for as long as the environment says:
//!
//! - `AMENDS_FUZZ_SECONDS`: how long each target runs; one second when absent. Every seed is tried
//!   as it is, however long that takes.
//! - `AMENDS_FUZZ_SEED`: the number that the changes follow from. It is printed, and another one each
//!   time when absent.
//! - `AMENDS_FUZZ_INPUT`: a file whose bytes are the only input.
//!
//! The check panics when something does not hold, and answers in words what came of the input, line by
//! line. An input with a line that is new is changed further: that is what leads deeper, in the place
//! of counting which code ran.
//!
//! An input that makes the check panic is made smaller and printed, and stands in a file. So does an
//! input that takes too long, or ends the process.
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
