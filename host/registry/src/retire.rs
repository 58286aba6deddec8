//! Components that nothing needs any more leave the store.
//!
//! A saga may need each component that served a plugin while the saga was live: its undo, or an operator
//! who looks at it. So a component is needed while a saga of the store was live in a time in which the
//! component served. That takes no record of who called what.

use std::time::Duration;

use amends_engine::{Digest, Timestamp};
use amends_store::{BlobKind, BlobRow, StoreError};

use crate::canary::{Canary, CanaryInfo};
use crate::plugin::{HISTORY_MAX, Plugin};
use crate::registry::Registry;

/// The last components of each plugin stay in the store, even when no saga needs them: so many.
pub const COMPONENTS_KEPT: usize = 8;

/// How long a component has served nothing, and nobody has chosen it, before it may leave.
pub const COMPONENT_UNUSED_FOR: Duration = Duration::from_hours(24);

/// A component may still be called so long after the end of its service: another host may not have read
/// of the end yet, and its clock may be late.
const AFTER_SERVICE: Duration = Duration::from_hours(1);

/// The components that left the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetiredComponents {
    /// How many there were.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A time in which a component served: its beginning and its end.
type Service = (Timestamp, Timestamp);

impl Registry {
    /// Removes components that nothing needs any more: they are none of the last [`COMPONENTS_KEPT`] of a
    /// plugin, served nothing for [`COMPONENT_UNUSED_FOR`], and no saga of the store was live while they
    /// served.
    ///
    /// # Errors
    /// When the store fails. What was removed before is removed.
    pub async fn retire_components(&self, now: Timestamp) -> Result<RetiredComponents, StoreError> {
        let (store, unused_since) = (&self.inner.store, now.before(COMPONENT_UNUSED_FOR));
        let mut retired = RetiredComponents::default();
        for blob in store.blobs().list(BlobKind::Component).await? {
            let Some(services) = self.past_services(&blob) else { continue };
            if services.iter().any(|(_, until)| *until >= unused_since)
                || self.is_needed(&services).await?
                || !store.blobs().remove(BlobKind::Component, blob.digest, unused_since).await?
            {
                continue;
            }
            let BlobRow { name, digest, bytes_len, at: _ } = blob;
            tracing::info!(plugin = name, %digest, bytes_len, "a component left the store");
            retired.count += 1;
            retired.bytes += bytes_len;
        }
        Ok(retired)
    }

    /// Has the store keep a component that somebody chose. Returns false when the store does not have it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn keep(&self, digest: Digest, now: Timestamp) -> Result<bool, StoreError> {
        self.inner.store.blobs().renew(BlobKind::Component, digest, now).await
    }

    /// Returns the times in which a component served; none when it serves or is to stay anyway.
    fn past_services(&self, blob: &BlobRow) -> Option<Vec<Service>> {
        // When it was chosen last, it may have served one saga.
        let mut services = vec![(blob.at, blob.at)];
        for (name, plugin) in &*self.plugins() {
            let is_first_of = name.as_str() == blob.name;
            services.extend(plugin.past_services(blob.digest, is_first_of)?);
        }
        Some(services)
    }

    async fn is_needed(&self, services: &[Service]) -> Result<bool, StoreError> {
        for (from, until) in services {
            if self.inner.store.sagas().was_any_live(*from, until.after(AFTER_SERVICE)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Plugin {
    /// Returns the times in which a component served the plugin; none when it serves it or is to stay
    /// anyway. `is_its_own`: the component came to the store for this plugin.
    fn past_services(&self, digest: Digest, is_its_own: bool) -> Option<Vec<Service>> {
        let serves = [
            self.active.as_ref().map(|active| active.component.digest),
            self.canary.as_ref().map(Canary::digest),
            self.unloadable.as_ref().map(|(digest, _)| *digest),
        ];
        if serves.contains(&Some(digest)) || self.last_digests().contains(&digest) {
            return None;
        }
        let ends = self.history.iter().zip(self.history.iter().skip(1));
        let mut services: Vec<_> = ends
            .filter(|(_, one)| one.digest == digest)
            .map(|(next, one)| (one.at, next.at))
            .collect();
        for CanaryInfo { digest: of, at, ended, .. } in &self.canaries {
            let ended = ended.as_ref().filter(|_| *of == digest);
            services.extend(ended.map(|end| (*at, end.at)));
        }
        // It may have served before what is remembered.
        if is_its_own
            && services.is_empty()
            && self.history.len() == HISTORY_MAX
            && let Some(oldest) = self.history.last()
        {
            services.push((Timestamp::default(), oldest.at));
        }
        Some(services)
    }

    /// Returns the components that served the plugin last.
    fn last_digests(&self) -> Vec<Digest> {
        let mut last = Vec::new();
        for one in &self.history {
            if last.len() == COMPONENTS_KEPT {
                break;
            }
            if !last.contains(&one.digest) {
                last.push(one.digest);
            }
        }
        last
    }
}
