//! The JSON of each struct: names, order, and what is null or left out. Clients count on it.
//!
//! Each test reads a text and writes it again. What comes out must be the same text, apart from white
//! space. A struct with optional fields has two texts: one with all fields, one with as few as possible.

mod audit;
mod breakers;
mod deploy;
mod health;
mod kept;
mod lists;
mod on;
mod plugin_state;
mod plugins;
mod rehearsal;
mod sagas;
mod schedules;
mod start;
mod subscriptions;
mod tokens;
