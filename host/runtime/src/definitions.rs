//! The definitions that are in force, and the older ones that sagas are pinned to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use amends_engine::{Definition, DefinitionName, Digest, SagaId};
use amends_failpoint::failpoint;
use amends_store::{BlobKind, Store};

use crate::error::RuntimeError;
use amends_registry::now;

/// Definitions by name and by digest.
#[derive(Debug)]
pub(crate) struct Definitions {
    current: BTreeMap<DefinitionName, Arc<Definition>>,
    /// Rebuilt from the store when it lacks one; bounded by how often the config has changed.
    by_digest_cache: RwLock<HashMap<Digest, Arc<Definition>>>,
}

impl Definitions {
    /// Takes the config's definitions and puts them into the store, so that their sagas can be
    /// read after the config has changed.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn publish(
        definitions: Vec<Definition>,
        store: &dyn Store,
    ) -> Result<Self, RuntimeError> {
        let mut current = BTreeMap::new();
        let mut by_digest = HashMap::new();
        for definition in definitions {
            let definition = Arc::new(definition);
            let (name, digest) = (definition.name().to_string(), definition.digest());
            let bytes = definition.canonical().into_bytes();
            store.blobs().put(BlobKind::Definition, name, digest, now(), bytes).await?;
            failpoint("runtime.definition.stored");
            by_digest.insert(digest, Arc::clone(&definition));
            current.insert(definition.name().clone(), definition);
        }
        Ok(Self { current, by_digest_cache: RwLock::new(by_digest) })
    }

    /// Those of the config, by name.
    pub(crate) fn current(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.current.values()
    }

    /// The one of this name in the config.
    #[must_use]
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Definition>> {
        self.current.values().find(|definition| definition.name().as_str() == name)
    }

    /// The one that a saga is pinned to.
    pub(crate) async fn pinned(
        &self,
        saga: SagaId,
        digest: Digest,
        store: &dyn Store,
    ) -> Result<Arc<Definition>, RuntimeError> {
        let cached = self
            .by_digest_cache
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&digest)
            .cloned();
        if let Some(definition) = cached {
            return Ok(definition);
        }
        let bytes = store
            .blobs()
            .get(BlobKind::Definition, digest)
            .await?
            .ok_or(RuntimeError::DefinitionLost { saga, digest })?;
        let text = String::from_utf8_lossy(&bytes);
        let definition = Definition::from_canonical(&text).map_err(|message| {
            let message = format!("its definition {digest} cannot be read: {message}");
            RuntimeError::Unreadable { saga, message }
        })?;
        let definition = Arc::new(definition);
        self.by_digest_cache
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(digest, Arc::clone(&definition));
        Ok(definition)
    }
}
