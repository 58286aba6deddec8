//! Opens the store that a URL names.

use std::path::Path;
use std::sync::Arc;

use crate::config::StoreConfig;
use crate::error::OpenError;
use crate::sqlite::SqliteStore;
use crate::store::Store;

/// Opens the store that a config names, and creates it when there is none. Blocks meanwhile.
///
/// # Errors
/// When the URL is not understood, or the store cannot be used. Existing files that cannot be used
/// are never overwritten.
pub fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, OpenError> {
    if config.url.starts_with("postgres:") || config.url.starts_with("postgresql:") {
        return Err(OpenError::NoPostgres);
    }
    let Some(path) = config.url.strip_prefix("sqlite:") else {
        return Err(OpenError::Url(config.url.clone()));
    };
    let store = SqliteStore::open(Path::new(path), config.durability)?;
    Ok(Arc::new(store.with_archive(config.archive.clone())))
}
