//! What plugins keep: values by plugin and key.

use std::sync::Arc;

use amends_engine::{PluginName, StateQuery};
use futures::future::BoxFuture;

use crate::append::{Append, Appended};
use crate::error::StoreError;

/// The durable state of plugins. A call changes it in the append of its saga, through
/// [`crate::Shard`].
pub trait PluginState: Send + Sync {
    /// Returns the value of a key of a plugin's state as JSON text, or none when there is no such
    /// key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: try again. [`StoreError::Damaged`] and [`StoreError::Closed`]:
    /// it fails again.
    fn value(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>>;

    /// Returns keys of a plugin's state in the order of their bytes.
    ///
    /// # Errors
    /// As for [`Self::value`].
    fn keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// Appends to the stream of a plugin, and changes the state of plugins with it. This is how
    /// operators change state. Resolves when the append is durable.
    ///
    /// # Errors
    /// As for [`crate::EventLog::append_shared`].
    fn change(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>>;
}
