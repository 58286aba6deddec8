//! The `amends` binary as a library: its config, and one module for each verb.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints its answers")]

pub mod commands;
pub mod config;
