//! Plugins that come, serve, are exchanged and fail. One program, because each takes a minute to build.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../host/mod.rs"]
mod host;

mod hostile;
mod loading;
mod probe;
mod rehearse;
mod reload;
mod reuse;
mod signed;
