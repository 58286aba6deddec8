//! What authors and testers use: a benchmark of a host, a definition under every fault, and the
//! projects, components and tests of plugins.
//!
//! Each verb has a struct of options and a report that serializes to the JSON of the command line.
//! Errors are for people: they say what is wrong and what would be right, in the words of the command
//! line.
//!
//! Deliberately absent: arguments and the terminal, which the binary has; an HTTP server.

pub mod bench;
pub mod chaos;
pub mod plugin;
