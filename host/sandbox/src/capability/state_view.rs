//! How a call reads the state of plugins while it runs.
//!
//! What a call writes is not written here: it is in its [`crate::Effects`], which are recorded with the
//! event of the call.

use std::sync::Arc;

use amends_engine::{PluginName, StateQuery};
use futures::future::BoxFuture;

/// Reads the state of plugins: what is recorded, or is about to be.
pub trait StateView: Send + Sync {
    /// Returns the value of a key, a JSON text; none when the key is not there.
    fn value(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StateUnreadable>>;

    /// Returns the keys that the query asks for, in the order of their bytes.
    fn keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StateUnreadable>>;
}

/// Why the state of a plugin cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateUnreadable {
    /// The reason, for people.
    pub message: String,
    /// Whether another try gives the same answer, because what is kept is damaged.
    pub is_lasting: bool,
}
