//! Two hosts of one store: whichever is asked, the answer is the same.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod cluster;
mod forged;
#[path = "../../../runtime/tests/place/hooked.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod hooked;
mod same;
mod trouble;
mod within;
