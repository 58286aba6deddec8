//! What a store has when no host runs: the books of the plugin `inventory`, and what the store says of itself.

use std::collections::BTreeSet;
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
    /// What is wrong with the store.
    pub(crate) verified: Vec<String>,
}

impl Books {
    /// Reads a store, and closes it.
    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn read(store: impl Store + 'static) -> Self {
        let store: Arc<dyn Store> = Arc::new(store);
        let inventory = || "inventory".parse().unwrap();
        let left = store.state().value(inventory(), STOCK_KEY.to_owned()).await.unwrap();
        let stock = left.map_or(STOCK, |text| text.parse().unwrap());
        let (prefix, mut reservations, mut after) = ("reservation/", BTreeSet::new(), None);
        loop {
            let query = StateQuery { prefix: prefix.to_owned(), after, limit: 1_000 };
            let keys = store.state().keys(inventory(), query).await.unwrap();
            reservations.extend(keys.iter().map(|key| key[prefix.len()..].to_owned()));
            after = keys.last().cloned();
            if after.is_none() {
                break;
            }
        }
        let verified = store.maintenance().verify().await.unwrap();
        store.close().await.unwrap();
        Self { stock, reservations, verified }
    }
}
