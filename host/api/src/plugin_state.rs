//! What plugins keep, as operators see and change it. Each change is an event in the plugin's stream, with
//! who asked.

pub(crate) mod import;
pub(crate) mod imports;
pub(crate) mod keys;
