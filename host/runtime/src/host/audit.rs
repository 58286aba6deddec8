//! The audit of a host.

use std::net::IpAddr;

use amends_engine::Version;
use amends_store::StoreError;

use super::Host;
use crate::audit::{AuditCheck, AuditEntry, AuditError, AuditEvent, check_audit};

impl Host {
    /// Records who asked for a change, and what became of it. Returns when the entry is durable; at once without
    /// access control, which has no audit. May be cancelled: then the entry may be recorded.
    ///
    /// # Errors
    /// When the store fails. The entry is not recorded then.
    pub async fn audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        match &self.inner.access {
            Some(access) => access.audit.record(entry).await,
            None => Ok(()),
        }
    }

    /// Counts a request that was refused because no token that counts came with it. The counts are recorded each
    /// minute, and when the host closes.
    pub fn count_refused(&self, address: IpAddr, code: &str) {
        if let Some(access) = &self.inner.access {
            access.audit.count_refused(address, code);
        }
    }

    /// Returns the events of the audit after a version, or the last ones when there is none: at most `limit`, the
    /// oldest first.
    ///
    /// # Errors
    /// When the host has no access control, or the store fails.
    pub async fn audit_events(
        &self,
        after: Option<Version>,
        limit: u32,
    ) -> Result<Vec<AuditEvent>, AuditError> {
        let access = self.inner.access.as_ref().ok_or(AuditError::Off)?;
        Ok(access.audit.list(after, limit).await?)
    }

    /// Checks the chain of the audit, from its first entry on. A host without access control checks what others
    /// have recorded. May be cancelled.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn verify_audit(&self) -> Result<AuditCheck, StoreError> {
        check_audit(&*self.inner.store).await
    }
}
