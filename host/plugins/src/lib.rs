//! The sandboxed plugins of Amends.
//!
//! A plugin is a name; the component behind it is the bytes that serve it now, known by their
//! digest. Components are WebAssembly, run by wasmtime, each call in an instance of its own, with
//! nothing granted but a log and the settings that the config gives.
//!
//! - [`Loader`] turns bytes into a [`LoadedComponent`]: checks it, compiles it or takes the
//!   compiled code from the disk, and asks it for its manifest.
//! - [`PluginHost`] knows which component is active for which plugin, watches the plugin folder,
//!   and runs calls.
//!
//! Whatever a component does, a call ends with an [`amends_engine::Outcome`]: a trap, a limit or
//! a timeout is `Unknown`, with a reason that a person can read.
//!
//! Deliberately absent: retries (the engine's), state kept between calls, the file system,
//! environment and network of the host.

mod background;
mod bindings;
mod call;
mod check;
mod compile;
mod config;
mod error;
mod guest;
mod host;
mod idle;
mod load;
mod loaded_cache;
mod sandbox;
mod schema;
mod watch;

pub use call::PluginCall;
pub use check::{Exports, componentize};
pub use config::{PluginSettings, PluginsConfig, Required, Secret};
pub use error::{PluginError, Rejection};
pub use guest::trace_id;
pub use host::{Activation, PluginHost, PluginInfo, RejectionRecord};
pub use load::{LoadedComponent, Loader, Manifest, Priority};
pub use sandbox::{COMPONENT_BYTES_MAX, INSTANCES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX};
