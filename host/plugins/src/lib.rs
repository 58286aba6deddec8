//! The sandboxed plugins of Amends.
//!
//! A plugin is a name; the component behind it is the bytes that serve it now, known by their
//! digest. Components are WebAssembly, run by wasmtime, each call in an instance of its own, with
//! nothing granted but a log, clocks, random numbers and what the config gives: settings, secrets,
//! state, domain events, hosts to call.
//!
//! - [`Loader`] turns bytes into a [`LoadedComponent`]: takes it from the disk, or has it checked,
//!   compiled and asked for its manifest in a child process that can do no harm
//!   ([`inspect_component`]).
//! - [`PluginHost`] knows which component is active for which plugin, watches the plugin folder,
//!   and runs calls.
//!
//! Whatever a component does, a call ends with an [`amends_engine::Outcome`]: a trap, a limit or
//! a timeout is `Unknown`, with a reason that a person can read.
//!
//! What a call writes of its state and the events that it emits are not done by the call: they are
//! its [`Effects`], for whoever records it.
//!
//! Deliberately absent: retries (the engine's), the file system, environment and sockets of the
//! host.

mod aside;
mod background;
mod bindings;
mod budget;
mod cache;
mod call;
mod check;
mod clock;
mod config;
mod cut;
mod effects;
mod error;
mod folder;
mod granted;
mod guest;
mod host;
mod idle;
mod inspect;
mod load;
mod loaded_cache;
mod machine;
mod manifest;
mod memory;
mod meter;
mod outbound;
mod progress;
mod rehearse;
mod sandbox;
mod schema;
mod signature;
mod state;
mod stopped;
mod watch;

pub use background::{give_way, giving_way};
pub use cache::CacheConfig;
pub use call::{Answer, PluginCall};
pub use check::Exports;
pub use config::{
    INSTANCES_OF_ONE_MAX, PluginSettings, PluginsConfig, Required, Secret, TABLE_ELEMENTS_MAX,
};
pub use effects::Effects;
pub use error::{PluginError, Rejection};
pub use folder::read_component;
pub use guest::{Lacks, trace_id};
pub use host::{
    Activation, CallCounts, CanaryEnd, CanaryInfo, CanarySpec, Candidate, Cause, Guard, PluginHost,
    PluginInfo, RejectionRecord, Tally, Why, misnamed,
};
pub use inspect::{INSPECT_COMPONENT, Inspection, inspect_component};
pub use load::{LoadedComponent, Loader, Priority, READ_CHECK_MAX};
pub use machine::guest_memory_default;
pub use manifest::Manifest;
pub use memory::{CallMemory, PluginMemory, call_memory_max};
pub use outbound::{AllowHost, AllowHosts, HTTP_REQUESTS_MAX, Origin, StubAnswer, StubbedRequest};
pub use progress::{Progress, size};
pub use rehearse::Rehearsed;
pub use sandbox::{COMPONENT_BYTES_MAX, INSTANCES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX};
pub use signature::{KeyId, SIGNATURES_MAX, Signed, TrustedKey, TrustedKeys};
pub use state::{StateError, StateWrite};
