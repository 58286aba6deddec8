//! The secrets that the hosts of one store share, and that nobody else knows: whoever can read the store can
//! do everything with it anyway.
//!
//! A secret is a blob of the store. The first host makes one. Two hosts that start at the same moment may make
//! one each; both count, because each host signs with the one of the smallest digest that it knows, and takes
//! every one that is in the store.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use amends_engine::{Digest, Timestamp};
use amends_store::{BlobKind, Store, StoreError};
use ring::hmac;
use tokio::sync::Mutex;

use crate::limits::SECRETS_LOOK_PAUSE;

/// The name of the blobs. They are beside the definitions, which nothing removes.
const NAME: &str = "secret-of-hosts";

/// The bytes of a secret. The canonical form of a definition is longer, so one of this name is none.
const SECRET_BYTES: usize = 32;

/// The secrets of a store, as far as this host knows them.
pub(crate) struct Secrets {
    store: Arc<dyn Store>,
    keys: RwLock<BTreeMap<Digest, hmac::Key>>,
    /// When the store was last looked at for more.
    looked_at: Mutex<Option<Instant>>,
}

impl Secrets {
    /// Reads the secrets of a store, and makes one when there is none.
    pub(crate) async fn open(store: Arc<dyn Store>, at: Timestamp) -> Result<Self, StoreError> {
        let secrets =
            Self { store, keys: RwLock::default(), looked_at: Mutex::new(Some(Instant::now())) };
        secrets.read().await?;
        if secrets.signing().is_none() {
            let mut secret = vec![0; SECRET_BYTES];
            getrandom::fill(&mut secret).map_err(|_| StoreError::Invalid(NO_RANDOM))?;
            let digest = Digest::of(&secret);
            let blobs = secrets.store.blobs();
            blobs.put(BlobKind::Definition, NAME.to_owned(), digest, at, secret).await?;
            secrets.read().await?;
        }
        Ok(secrets)
    }

    /// The key that this host signs with, and its name.
    pub(crate) fn signing(&self) -> Option<(Digest, hmac::Key)> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.first_key_value().map(|(name, key)| (*name, key.clone()))
    }

    /// The key of this name. One that another host has made since is looked for in the store, once a second
    /// at most, so that whoever sends wrong names costs nothing.
    pub(crate) async fn named(&self, name: Digest) -> Option<hmac::Key> {
        if let Some(key) = self.known(name) {
            return Some(key);
        }
        let mut looked_at = self.looked_at.lock().await;
        if looked_at.is_none_or(|at| at.elapsed() >= SECRETS_LOOK_PAUSE) {
            *looked_at = Some(Instant::now());
            if let Err(error) = self.read().await {
                tracing::warn!(%error, "the secrets of hosts cannot be read now");
            }
        }
        self.known(name)
    }

    fn known(&self, name: Digest) -> Option<hmac::Key> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }

    async fn read(&self) -> Result<(), StoreError> {
        let blobs = self.store.blobs();
        for row in blobs.list(BlobKind::Definition).await? {
            let is_secret = row.name == NAME && row.bytes_len == SECRET_BYTES as u64;
            if !is_secret || self.known(row.digest).is_some() {
                continue;
            }
            let Some(secret) = blobs.get(BlobKind::Definition, row.digest).await? else { continue };
            let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            keys.insert(row.digest, key);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

const NO_RANDOM: &str = "the system gives no random numbers for the secret of hosts";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_store::{Durability, SqliteStore};

    use super::*;

    /// Both made one before either saw that of the other.
    #[tokio::test]
    async fn hosts_that_start_at_once_know_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed);
        let store: Arc<dyn Store> = Arc::new(store.unwrap());
        let at = Timestamp::default();
        let first = Secrets::open(Arc::clone(&store), at).await.unwrap();
        let second = vec![7; SECRET_BYTES];
        let digest = Digest::of(&second);
        let blobs = store.blobs();
        blobs.put(BlobKind::Definition, NAME.to_owned(), digest, at, second).await.unwrap();
        assert!(first.named(digest).await.is_none(), "it looked a moment ago");
        *first.looked_at.lock().await = None;
        assert!(first.named(digest).await.is_some());
        // A third one makes none, and signs with one that both know.
        let third = Secrets::open(Arc::clone(&store), at).await.unwrap();
        let (name, _) = third.signing().unwrap();
        assert!(first.known(name).is_some());
        assert_eq!(store.blobs().list(BlobKind::Definition).await.unwrap().len(), 2);
        store.close().await.unwrap();
    }
}
