//! Which component serves which plugin.
//!
//! A plugin is a name; the component behind it is the bytes that serve it now, known by their digest.
//! [`Registry`] records every activation, refusal and canary as an event of the store, watches the plugin
//! folder, loads what should serve, and makes the calls of a plugin on the component that was chosen for
//! them.
//!
//! Deliberately absent: how a component is loaded and called (the sandbox's), and whether sagas in flight
//! allow a replacement (a [`Guard`] knows that).

mod activation;
mod calls;
mod canary;
mod canary_deploys;
mod clock;
mod config;
mod deploys;
mod error;
mod folder;
mod loaded_cache;
mod loads;
mod plugin;
mod progress;
mod registry;
mod retire;
mod start;
mod state_view;
mod watch;

pub use activation::{
    Activation, ActivationCause, ActivationReason, Candidate, Guard, RejectionRecord, misnamed,
};
pub use canary::{CallCounts, CanaryEnd, CanaryInfo, CanarySpec, Tally};
pub use clock::now;
pub use config::PluginsConfig;
pub use error::PluginError;
pub use folder::read_component;
pub use plugin::PluginInfo;
pub use progress::{Progress, size};
pub use registry::Registry;
pub use retire::{COMPONENT_UNUSED_FOR, COMPONENTS_KEPT, RetiredComponents};
