//! What a store has when no host runs: the books of the plugin `inventory`, the lists of `append`, and what the store
//! says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use amends_engine::StateQuery;
use amends_store::Store;

use crate::definitions::{STOCK, STOCK_KEY};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Books {
    /// Pieces that are left.
    pub(crate) stock: u64,
    pub(crate) reservations: BTreeSet<String>,
    /// The lists of keys of calls, by their names.
    pub(crate) lists: BTreeMap<String, Vec<String>>,
    /// What is wrong with the store.
    pub(crate) verified: Vec<String>,
}

impl Books {
    /// Reads a store, and closes it.
    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn read(store: impl Store + 'static) -> Self {
        let store: Arc<dyn Store> = Arc::new(store);
        let inventory = "inventory".parse().unwrap();
        let left = store.state().value(inventory, STOCK_KEY.to_owned()).await.unwrap();
        let stock = left.map_or(STOCK, |text| text.parse().unwrap());
        let prefix = "reservation/";
        let reservations = keys(&*store, "inventory", prefix).await;
        let reservations = reservations.iter().map(|key| key[prefix.len()..].to_owned()).collect();
        let mut lists = BTreeMap::new();
        for name in keys(&*store, "append", "").await {
            let list = store.state().value("append".parse().unwrap(), name.clone()).await.unwrap();
            lists.insert(name, serde_json::from_str(&list.unwrap()).unwrap());
        }
        let verified = store.maintenance().verify().await.unwrap();
        store.close().await.unwrap();
        Self { stock, reservations, lists, verified }
    }
}

/// The keys of a plugin that begin with this.
async fn keys(store: &dyn Store, plugin: &str, prefix: &str) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    loop {
        let after = keys.last().cloned();
        let query = StateQuery { prefix: prefix.to_owned(), after, limit: 1_000 };
        let page = store.state().keys(plugin.parse().unwrap(), query).await.unwrap();
        if page.is_empty() {
            return keys;
        }
        keys.extend(page);
    }
}
