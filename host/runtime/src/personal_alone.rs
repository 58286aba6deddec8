//! Personal values and several hosts: their keys are in a file of one host, and another host that runs such a
//! saga would take its values for erased. So a store with personal values has one host.

use amends_engine::Digest;
use amends_registry::now;
use amends_store::{BlobKind, Store};

use crate::error::RuntimeError;

/// The name of the blob that says that a host with keys of personal values has used the store. It is beside the
/// definitions, which nothing removes.
const NAME: &str = "personal-values";

/// What the blob says.
const TEXT: &[u8] = b"a host with keys of personal values has used this store";

/// Checks that this host is alone if the store has personal values, or gets them from this host.
///
/// # Errors
/// When it is not alone, or the store fails.
pub(crate) async fn check(store: &dyn Store, has_keys: bool) -> Result<(), RuntimeError> {
    let digest = Digest::of(TEXT);
    let is_marked = store.blobs().get(BlobKind::Definition, digest).await?.is_some();
    if !has_keys && !is_marked {
        return Ok(());
    }
    let others: Vec<_> = store.ownership().others().into_iter().map(|host| host.name).collect();
    if !others.is_empty() {
        return Err(RuntimeError::NotAlone { others: others.join(", ") });
    }
    if !is_marked {
        let put =
            store.blobs().put(BlobKind::Definition, NAME.to_owned(), digest, now(), TEXT.to_vec());
        put.await?;
    }
    Ok(())
}
