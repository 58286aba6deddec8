//! Opens the store that a URL names.

use std::path::Path;
use std::sync::Arc;

use crate::config::StoreConfig;
use crate::error::OpenError;
use crate::postgres::PostgresStore;
use crate::sqlite::SqliteStore;
use crate::store::Store;

/// Opens the store that a config names, and creates it when there is none. Blocks meanwhile.
///
/// # Errors
/// When the URL is not understood, or the store cannot be used. Existing files that cannot be used
/// are never overwritten.
pub fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, OpenError> {
    if config.url.starts_with("postgres:") || config.url.starts_with("postgresql:") {
        let store = PostgresStore::open(&config.url, config.durability)?;
        return Ok(Arc::new(store.with_archive(config.archive.as_ref())?));
    }
    let Some(path) = config.url.strip_prefix("sqlite:") else {
        // There may be a password in it.
        let shown = match config.url.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://…"),
            None => config.url.clone(),
        };
        return Err(OpenError::Url(shown));
    };
    let store = SqliteStore::open(Path::new(path), config.durability)?;
    Ok(Arc::new(store.with_archive(config.archive.as_ref())?))
}
