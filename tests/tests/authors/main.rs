//! What authors of plugins do: make a project, build it, test it, have it served. A test binary of
//! its own, because the toolchains take all of the machine.
//!
//! Projects are made and built below the target folder, so that what a toolchain has fetched and
//! compiled is there the next time. The sources are made anew by each run.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "../system/place.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod place;
mod polyglot;
mod project;
mod projects;
mod said;
mod verify;
