//! What evidence of a saga has beside its events.

use std::sync::Arc;

use amends_engine::{Digest, Timestamp, Version};
use amends_sandbox::{KeyId, Signed};
use amends_store::StoreError;

use super::Host;
use crate::audit::AuditError;
use crate::evidence::{EvidenceKey, Signers};

impl Host {
    /// Returns the key with which this host signs evidence. None when its config has none.
    #[must_use]
    pub fn evidence_key(&self) -> Option<Arc<EvidenceKey>> {
        self.inner.evidence_key.clone()
    }

    /// Returns which keys have signed a component. None when the store has the component no more.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn signers(&self, digest: Digest) -> Result<Option<Signers>, StoreError> {
        let Some(bytes) = self.component(digest).await? else { return Ok(None) };
        let trusted = self.inner.plugins.trusted_keys().clone();
        // Each signature costs a hash of all bytes.
        let found = tokio::task::spawn_blocking(move || {
            let Ok(signed) = Signed::read(&bytes) else { return Signers::default() };
            let trusted = signed.signers(&trusted);
            let is_other = |key: &KeyId| !trusted.contains(key);
            let claimed = signed.keys().into_iter().filter(is_other).collect();
            Signers { trusted, claimed }
        });
        found.await.map(Some).map_err(|_| StoreError::Closed)
    }

    /// Returns the version of the last entry of the audit that is older than this; 0 when there is none.
    ///
    /// # Errors
    /// When the host has no access control, or the store fails.
    pub async fn audit_version_before(&self, at: Timestamp) -> Result<Version, AuditError> {
        let access = self.inner.access.as_ref().ok_or(AuditError::Off)?;
        Ok(access.audit.version_before(at).await?)
    }
}
