//! The keys of a host: the key file, and the keys of subjects that were used last.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::{DefinitionName, Digest, Payload, SagaId, SealedKey, SubjectKeyId, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::cipher::{DataKey, KEY_BYTES, SecretKey};
use crate::error::KeyError;
use crate::file::{ErasedBefore, Erasure, KeyFile, PendingKey, PendingSaga};

/// The keys of subjects that are kept in memory. Subjects that come again soon come without a look into
/// the file.
const KEYS_KEPT_MAX: usize = 1_024;

/// The keys of a host.
#[derive(Debug)]
pub struct Keys {
    file: Arc<Mutex<KeyFile>>,
    secret: SecretKey,
    kept: Mutex<KeptKeys>,
    /// Held for reading by starts that have a key and are not durable, and for writing by an erasure, so
    /// that it finds every saga of its key in the store.
    starts: Arc<RwLock<()>>,
    has_warned: AtomicBool,
}

/// Keys of subjects that were used.
#[derive(Debug, Default)]
struct KeptKeys {
    by_mac: HashMap<Digest, SubjectKeyId>,
    by_id: HashMap<SubjectKeyId, SecretKey>,
}

/// The key of a saga's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundKey {
    /// It is there.
    Key(DataKey),
    /// It was erased.
    Erased,
    /// It is not in the key file, and it was not erased: this is another key file, or an older one.
    Missing,
}

impl FoundKey {
    /// Returns the key, if it is there.
    #[must_use]
    pub fn key(self) -> Option<DataKey> {
        match self {
            Self::Key(key) => Some(key),
            Self::Erased | Self::Missing => None,
        }
    }
}

/// Held by a start from the time that it has a key until it is durable or refused.
#[derive(Debug)]
pub struct Lease(#[expect(dead_code, reason = "it is held")] OwnedRwLockReadGuard<()>);

/// The keys of a saga that is to start.
#[derive(Debug)]
pub struct NewSeal {
    /// What its first event has.
    pub sealed: SealedKey,
    /// The key of its values.
    pub key: DataKey,
    /// To be dropped when the start is durable or refused.
    pub lease: Lease,
}

impl Keys {
    /// Opens a key file, or makes it. Blocks.
    ///
    /// # Errors
    /// When the file cannot be used, or another process has it.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        KeyFile::open(path).map(Self::new)
    }

    /// Makes keys that go with the process.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn in_memory() -> Result<Self, KeyError> {
        KeyFile::in_memory().map(Self::new)
    }

    fn new(file: KeyFile) -> Self {
        let secret = file.secret.clone();
        let (kept, starts, has_warned) = Default::default();
        Self { file: Arc::new(Mutex::new(file)), secret, kept, starts, has_warned }
    }

    /// Does something with the file, off the async threads.
    async fn with_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&KeyFile) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<T, KeyError> {
        let file = Arc::clone(&self.file);
        let done = tokio::task::spawn_blocking(move || {
            work(&file.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await.unwrap_or(Err(KeyError::Stopping))
    }

    fn mac(&self, subject: &str) -> Digest {
        self.secret.digest(&[b"subject", subject.as_bytes()])
    }

    /// Makes the keys of a saga that is to start. The key of its subject is durable when this returns.
    /// `payload`: what a second start with the same idempotency key is compared by, if it has one.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn begin(
        &self,
        subject: &str,
        saga: SagaId,
        payload: Option<(&DefinitionName, &Payload)>,
        at: Timestamp,
    ) -> Result<NewSeal, KeyError> {
        let lease = Lease(Arc::clone(&self.starts).read_owned().await);
        let mac = self.mac(subject);
        let known = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.by_mac.get(&mac).and_then(|id| Some((*id, kept.by_id.get(id)?.clone())))
        };
        let (id, subject_key) = if let Some(known) = known {
            known
        } else {
            let (id, key) = self.with_file(move |file| file.subject(&mac, at)).await?;
            self.keep(mac, id, &key);
            (id, key)
        };
        let key = DataKey(SecretKey::random()?);
        let wrapped = subject_key.seal(&place_of(saga, id), key.0.as_bytes())?;
        let payload_digest = payload.map(|(definition, input)| {
            // The value, not how it was written.
            let value = input.to_value().map(|value| value.to_string());
            let value = value.as_deref().unwrap_or(input.as_str());
            self.secret.digest(&[b"payload", definition.as_str().as_bytes(), value.as_bytes()])
        });
        let data_key = STANDARD_NO_PAD.encode(wrapped);
        let sealed = SealedKey { subject_key: id, data_key, payload_digest };
        Ok(NewSeal { sealed, key, lease })
    }

    fn keep(&self, mac: Digest, id: SubjectKeyId, key: &SecretKey) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.by_id.len() >= KEYS_KEPT_MAX {
            *kept = KeptKeys::default();
        }
        kept.by_mac.insert(mac, id);
        kept.by_id.insert(id, key.clone());
    }

    fn forget(&self, id: SubjectKeyId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_mac.retain(|_, other| *other != id);
        kept.by_id.remove(&id);
    }

    /// Returns the key of a saga's values.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn data_key(&self, saga: SagaId, sealed: &SealedKey) -> Result<FoundKey, KeyError> {
        let id = sealed.subject_key;
        let known = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.by_id.get(&id).cloned()
        };
        let found = |key: Option<DataKey>| key.map_or(FoundKey::Missing, FoundKey::Key);
        if let Some(subject_key) = known {
            return Ok(found(unwrap(&subject_key, saga, sealed)));
        }
        let in_file = self.with_file(move |file| {
            // An erasure that is under way reads here, and what it erases is not kept.
            if let Some(subject_key) = file.subject_key(id)? {
                return Ok((Some(subject_key), None, false));
            }
            let pending = file.pending_key(saga)?;
            let is_erased = pending.is_none() && file.erasure(id)?.is_some();
            Ok((None, pending, is_erased))
        });
        let (subject_key, pending, is_erased) = in_file.await?;
        let key = match subject_key {
            Some(subject_key) => found(unwrap(&subject_key, saga, sealed)),
            None if is_erased => FoundKey::Erased,
            None => found(pending),
        };
        if key == FoundKey::Missing && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                saga_id = %saga,
                "a key of personal values is not in the key file, and it was not erased; restore the \
                 newest backup of the key file"
            );
        }
        Ok(key)
    }

    /// Begins the erasure of a subject's values. From then on its sagas get another key. When this
    /// returns, every saga of the key that is returned is in the store. An erasure that has begun before
    /// and is not over is the same one. None when the subject has no key.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn retire(
        &self,
        subject: &str,
        who: String,
        reason: String,
        at: Timestamp,
    ) -> Result<Option<SubjectKeyId>, KeyError> {
        // Starts that have the key are waited for.
        let _alone = self.starts.write().await;
        let mac = self.mac(subject);
        let retired = self.with_file(move |file| file.retire(&mac, (&who, &reason, at))).await?;
        if let Some(id) = retired {
            self.forget(id);
        }
        Ok(retired)
    }

    /// Deletes the key of a subject. The data keys of sagas that may still be undone stay, until
    /// [`Self::settle`].
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn finish(
        &self,
        id: SubjectKeyId,
        erased: u64,
        pending: Vec<PendingKey>,
    ) -> Result<(), KeyError> {
        self.with_file(move |file| file.finish(id, erased, &pending)).await?;
        self.forget(id);
        Ok(())
    }

    /// Takes in the erasures that the log has: those of a key file that is older than they are begin
    /// again.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn erased_before(&self, erased: Vec<ErasedBefore>) -> Result<u64, KeyError> {
        self.with_file(move |file| file.erased_before(&erased)).await
    }

    /// Returns the erasures whose key is not deleted yet.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn begun(&self) -> Result<Vec<Erasure>, KeyError> {
        self.with_file(|file| file.erasures(Some("begun"))).await
    }

    /// Returns the erasures that are done and not in the log.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn unrecorded(&self) -> Result<Vec<Erasure>, KeyError> {
        self.with_file(|file| file.erasures(Some("done"))).await
    }

    /// Returns all erasures, the oldest first.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn erasures(&self) -> Result<Vec<Erasure>, KeyError> {
        self.with_file(|file| file.erasures(None)).await
    }

    /// Returns the erasure of a key of a subject; none when the key was not erased.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn erasure(&self, id: SubjectKeyId) -> Result<Option<Erasure>, KeyError> {
        self.with_file(move |file| file.erasure(id)).await
    }

    /// Notes that an erasure is in the log.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn recorded(&self, id: SubjectKeyId) -> Result<(), KeyError> {
        self.with_file(move |file| file.recorded(id)).await
    }

    /// Returns up to `limit` sagas that wait for their erasure, by ascending id after `after`.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn pending(
        &self,
        after: Option<SagaId>,
        limit: u32,
    ) -> Result<Vec<PendingSaga>, KeyError> {
        self.with_file(move |file| file.pending(after, limit)).await
    }

    /// Deletes the data keys of sagas that can no longer be undone, and notes until when others wait.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn settle(
        &self,
        gone: Vec<SagaId>,
        waits: Vec<(SagaId, Option<Timestamp>)>,
    ) -> Result<(), KeyError> {
        self.with_file(move |file| file.settle(&gone, &waits)).await
    }
}

/// The place in which a data key is sealed.
fn place_of(saga: SagaId, id: SubjectKeyId) -> Vec<u8> {
    let mut place = b"amends:data-key:1\0".to_vec();
    place.extend_from_slice(saga.as_bytes());
    place.extend_from_slice(id.as_bytes());
    place
}

fn unwrap(subject_key: &SecretKey, saga: SagaId, sealed: &SealedKey) -> Option<DataKey> {
    let wrapped = STANDARD_NO_PAD.decode(&sealed.data_key).ok()?;
    let key = subject_key.open(&place_of(saga, sealed.subject_key), &wrapped)?;
    let key: [u8; KEY_BYTES] = key.try_into().ok()?;
    Some(DataKey(SecretKey::from_bytes(key)))
}
