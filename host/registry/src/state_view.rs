//! The state of plugins as calls read it: from the store.

use std::sync::Arc;

use amends_engine::{PluginName, StateQuery};
use amends_sandbox::{StateUnreadable, StateView};
use amends_store::{Store, StoreError};
use futures::FutureExt as _;
use futures::future::BoxFuture;

/// Reads the state that a store keeps.
pub(crate) struct StoredState(pub(crate) Arc<dyn Store>);

impl StateView for StoredState {
    fn value(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StateUnreadable>> {
        self.0
            .state()
            .value(plugin, key)
            .map(|value| value.map_err(|error| unreadable(&error)))
            .boxed()
    }

    fn keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StateUnreadable>> {
        self.0
            .state()
            .keys(plugin, query)
            .map(|keys| keys.map_err(|error| unreadable(&error)))
            .boxed()
    }
}

fn unreadable(error: &StoreError) -> StateUnreadable {
    let is_lasting = matches!(error, StoreError::Damaged { .. });
    StateUnreadable { message: error.to_string(), is_lasting }
}
