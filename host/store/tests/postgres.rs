//! The suite on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

mod database;

amends_store::conformance_tests!(if database::Database::new());
