//! What the handlers of the API share.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;

use amends_runtime::Host;
use tokio::sync::Semaphore;

use crate::body::BodyRoom;
use crate::names::Names;
use crate::plugin_state::imports::Imports;
use crate::plugins::upload::Uploads;
use crate::sagas::watchers::Watchers;
use amends_api_types::PublicUrl;

/// Reads that walk over much of the store and run at once: half of the readers that the embedded store has, so
/// that sagas never wait for them. Others wait in line.
const SCANS_MAX: usize = 2;

/// The host that the API is about, and the limits that its requests share. A clone is the same state.
#[derive(Clone)]
pub struct ApiState {
    /// The host.
    pub(crate) host: Host,
    /// Renders the metrics.
    pub(crate) prometheus: PrometheusHandle,
    /// Limits how many clients watch a saga.
    pub(crate) watchers: Watchers,
    /// Limits the bytes of request bodies.
    pub(crate) bodies: BodyRoom,
    /// Limits uploads of components.
    pub(crate) uploads: Uploads,
    /// Limits the reads that walk over much of the store.
    pub(crate) scans: Arc<Semaphore>,
    /// Limits imports of plugin state.
    pub(crate) imports: Imports,
    /// The address at which a proxy serves the host, if one does.
    pub(crate) public_url: Option<PublicUrl>,
    /// The address at which the other hosts of the store reach this one.
    pub(crate) address: Option<PublicUrl>,
}

impl ApiState {
    /// Makes the state of a host. `prometheus` renders its metrics; `public_url` is the address at
    /// which a proxy serves it, if one does.
    #[must_use]
    pub fn new(host: Host, prometheus: PrometheusHandle, public_url: Option<PublicUrl>) -> Self {
        let address = host.peers().and_then(|peers| peers.me().address.parse().ok());
        Self {
            address,
            host,
            prometheus,
            watchers: Watchers::default(),
            bodies: BodyRoom::default(),
            uploads: Uploads::default(),
            scans: Arc::new(Semaphore::new(SCANS_MAX)),
            imports: Imports::default(),
            public_url,
        }
    }

    /// The addresses beside its own at which the host is reached.
    pub(crate) fn names(&self) -> Names<'_> {
        Names { public_url: self.public_url.as_ref(), address: self.address.as_ref() }
    }
}
