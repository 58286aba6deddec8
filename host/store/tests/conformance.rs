//! The suite on SQLite.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod place;

amends_store::conformance_tests!(place::TemporaryFile::new());
