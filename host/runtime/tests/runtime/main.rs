//! Hosts that run sagas, seen from their API in Rust. One program, because each takes a minute to build.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../place/mod.rs"]
mod place;

mod archive;
mod audit;
mod breakers;
mod budget;
mod children;
mod exposure;
mod late;
mod principal;
mod serving;
mod stalls;
mod takeover;
mod unbegun;
mod waiting;
