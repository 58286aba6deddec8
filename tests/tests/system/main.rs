//! The whole system: the real binary, real components, a real disk.
//!
//! `tests/run` builds the binary before it runs these.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod archive;
mod backup;
mod breaker;
mod browser;
mod bucket;
mod bytes;
mod canary;
mod carrier;
mod chaos;
mod cli;
mod client;
mod connections;
mod copy;
mod crash;
mod deploy;
mod door;
mod erase;
mod erase_marks;
mod failpoints;
mod fit;
mod folder;
mod full;
mod hostile;
mod http;
mod import;
mod index;
mod inspection;
mod layers;
mod ledger;
mod listing;
mod lists;
mod matrix;
mod modules;
mod oci;
mod on;
mod operate;
mod operators;
mod orders;
#[allow(dead_code, reason = "shared with the other tests")]
mod place;
mod quarantine;
mod rebuild;
mod registry;
mod rehearse;
mod replay;
mod rooms;
mod s3_server;
mod search;
mod secrets;
mod signed;
mod starts;
mod state;
mod stock;
mod subscriptions;
mod swap;
mod tables;
mod terminal;
mod tls;
mod told;
mod waits;
