//! Deriving the rows of a saga from its stored events.

use std::collections::HashMap;
use std::sync::Arc;

use amends_engine::{Definition, Digest, SagaId};

use super::connection::Pg;
use super::error::Result;
use super::read;
use crate::blob::BlobKind;
use crate::clock::now;
use crate::derived::{DerivedSaga, decode, derive};

/// The most definitions that are kept compiled. Sagas that follow each other are mostly of a few.
const DEFINITIONS_KEPT_MAX: usize = 64;

/// The definitions that sagas are pinned to, as far as they were read.
#[derive(Default)]
pub(super) struct PinnedDefinitions(HashMap<Digest, std::result::Result<Arc<Definition>, String>>);

impl PinnedDefinitions {
    /// Returns a definition. The inner error says why it cannot be read.
    async fn get(
        &mut self,
        pg: &Pg,
        digest: Digest,
    ) -> Result<std::result::Result<Arc<Definition>, String>> {
        if let Some(known) = self.0.get(&digest) {
            return Ok(known.clone());
        }
        let stored = read::blob(pg, BlobKind::Definition, digest).await?;
        let definition = stored
            .ok_or_else(|| format!("its definition {digest} is not in the store"))
            .and_then(|bytes| {
                Definition::from_canonical(&String::from_utf8_lossy(&bytes))
                    .map_err(|error| format!("its definition {digest} cannot be read: {error}"))
            })
            .map(Arc::new);
        if self.0.len() >= DEFINITIONS_KEPT_MAX {
            self.0.clear();
        }
        self.0.insert(digest, definition.clone());
        Ok(definition)
    }
}

/// Derives the rows of a saga. The inner error says why its events cannot be folded, for people.
pub(super) async fn derive_saga(
    pg: &Pg,
    definitions: &mut PinnedDefinitions,
    id: SagaId,
) -> Result<std::result::Result<DerivedSaga, String>> {
    let decoded = match read::readable_log(pg, id).await?.and_then(decode) {
        Ok(decoded) => decoded,
        Err(reason) => return Ok(Err(reason)),
    };
    let definition = definitions.get(pg, decoded.definition).await?;
    Ok(definition.and_then(|definition| derive(id, &decoded, definition, now())))
}
