//! The suite on SQLite.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod temporary_file;

amends_store::conformance_tests!(temporary_file::TemporaryFile::new());
