//! The `amends` binary as a library: its config, and one module for each verb.

#![allow(clippy::print_stderr, reason = "a command line prints its errors")]

pub mod commands;
