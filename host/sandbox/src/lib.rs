//! The sandbox of Amends: one component, from its bytes to the outcome of a call.
//!
//! Components are WebAssembly, run by wasmtime, each call in an instance of its own. A component has a
//! log, clocks and random numbers. Everything else is granted by the config: settings, secrets, state,
//! domain events, hosts to call.
//!
//! - [`Loader`] turns bytes into a [`LoadedComponent`]. It checks, compiles and describes them in a child
//!   process that can do no harm ([`inspect_component`]), or takes what it kept on the disk.
//! - [`Sandbox`] runs calls of a loaded component, probes and rehearses it.
//!
//! The folders group the files by what they are for: `component` (bytes to a loaded component), `call`
//! (one call), `capability` (what a component is granted) and `limits` (memory and time).
//!
//! Whatever a component does, a call ends with an [`amends_engine::Outcome`]: a trap, a limit or a timeout
//! is `Unknown`, with a reason that a person can read. What a call writes of its state and the events that
//! it emits are its [`Effects`], for whoever records the call.
//!
//! Deliberately absent: the store (state is read through a [`StateView`]), which component serves which
//! plugin (the registry's), retries (the engine's), and the file system, environment and sockets of the
//! host.

mod bindings;
mod call;
mod capability;
mod component;
mod cut;
mod error;
mod limits;
mod sandbox;
mod settings;
mod stopped;

pub use call::answer::{Answer, PluginCall};
pub use call::call_id::trace_id;
pub use call::call_trace::{
    CallTrace, TRACED_LINE_BYTES_MAX, TRACED_LINES_MAX, TracedLine, TracedRequest,
};
pub use call::effects::Effects;
pub use call::rehearsal::Rehearsed;
pub use capability::grant::Grant;
pub use capability::outbound::allow::{AllowHost, AllowHosts, Origin};
pub use capability::outbound::client::system_tls;
pub use capability::outbound::stub::{StubAnswer, StubbedRequest};
pub use capability::state_view::{StateUnreadable, StateView};
pub use component::cache::CacheConfig;
pub use component::check::{COMPONENT_BYTES_MAX, Exports};
pub use component::inspect::{INSPECT_COMPONENT, Inspection, inspect_component};
pub use component::key_id::KeyId;
pub use component::load::{Loader, Priority};
pub use component::loaded::LoadedComponent;
pub use component::manifest::Manifest;
pub use component::signature::{Signed, TrustedKey, TrustedKeys};
pub use error::{Rejection, SandboxError};
pub use limits::background::{give_way, giving_way};
pub use limits::call_limits::Lacks;
pub use limits::engine::INSTANCES_MAX;
pub use limits::machine::guest_memory_default;
pub use limits::memory::{CallMemory, PluginMemory, call_memory_max};
pub use sandbox::{Callee, Sandbox};
pub use settings::{INSTANCES_OF_ONE_MAX, PluginSettings, Required, Secret, TABLE_ELEMENTS_MAX};
