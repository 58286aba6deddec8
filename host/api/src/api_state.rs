//! What the handlers of the API share.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;

use amends_runtime::Host;
use tokio::sync::Semaphore;

use crate::answers::AnswerRoom;
use crate::body::BodyRoom;
use crate::names::Names;
use crate::plugin_state::imports::Imports;
use crate::plugins::upload::Uploads;
use crate::rates::Rates;
use crate::sagas::news::News;
use crate::sagas::watchers::Watchers;
use amends_api_types::PublicUrl;

/// Reads that walk over much of the store and run at once: half of the readers that the embedded store has, so
/// that sagas never wait for them. Others wait in line.
const SCANS_MAX: usize = 2;

/// The hosts of all namespaces of a process.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// That of `default`: it keeps the tokens, and believes the proxy.
    pub(crate) default: Host,
    /// The others, by the name of their namespace.
    pub(crate) others: BTreeMap<String, Host>,
}

impl Hosts {
    /// Returns all of them, that of `default` first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Host> {
        std::iter::once(&self.default).chain(self.others.values())
    }
}

/// The host that the API is about, and the limits that its requests share. A clone is the same state.
#[derive(Clone)]
pub struct ApiState {
    /// The host of the namespace that the requests are for.
    pub(crate) host: Host,
    /// Those of all namespaces.
    pub(crate) hosts: Arc<Hosts>,
    /// Renders the metrics.
    pub(crate) prometheus: PrometheusHandle,
    /// Limits how many clients watch sagas.
    pub(crate) watchers: Watchers,
    /// Limits how many clients watch the log.
    pub(crate) log_watchers: Watchers,
    /// Tells the watchers of sagas what is new.
    pub(crate) news: News,
    /// Limits the bytes of request bodies.
    pub(crate) bodies: BodyRoom,
    /// Limits the bytes of answers that their clients have not taken.
    pub(crate) answers: AnswerRoom,
    /// Limits uploads of components.
    pub(crate) uploads: Uploads,
    /// Limits the reads that walk over much of the store.
    pub(crate) scans: Arc<Semaphore>,
    /// Limits imports of plugin state.
    pub(crate) imports: Imports,
    /// Limits how often somebody may ask.
    pub(crate) rates: Arc<Rates>,
    /// The address by which callers reach the host, if the config says so: such as that of a proxy.
    pub(crate) public_url: Option<PublicUrl>,
    /// The address at which the other hosts of the store reach this one.
    pub(crate) address: Option<PublicUrl>,
}

impl ApiState {
    /// Makes the state of a host. `prometheus` renders its metrics; `public_url` is the address at
    /// which a proxy serves it, if one does.
    #[must_use]
    pub fn new(host: Host, prometheus: PrometheusHandle, public_url: Option<PublicUrl>) -> Self {
        let hosts = Hosts { default: host.clone(), others: BTreeMap::new() };
        Self {
            address: address_of(&host),
            hosts: Arc::new(hosts),
            host,
            prometheus,
            watchers: Watchers::of_sagas(),
            log_watchers: Watchers::of_log(),
            news: News::default(),
            bodies: BodyRoom::default(),
            answers: AnswerRoom::default(),
            uploads: Uploads::default(),
            scans: Arc::new(Semaphore::new(SCANS_MAX)),
            imports: Imports::default(),
            rates: Arc::default(),
            public_url,
        }
    }

    /// Limits the requests that may come with each token: so many a second, and so many at once after a pause.
    #[must_use]
    pub fn with_token_rate(self, per_second: NonZeroU32, at_once: NonZeroU32) -> Self {
        Self { rates: Arc::new(Rates::of_tokens(per_second, at_once)), ..self }
    }

    /// Adds the namespaces beside `default`, each with the host that runs its sagas.
    #[must_use]
    pub fn with_namespaces(self, others: impl IntoIterator<Item = Host>) -> Self {
        let named = others.into_iter().map(|host| (host.namespace().to_owned(), host));
        let hosts = Hosts { default: self.host.clone(), others: named.collect() };
        Self { hosts: Arc::new(hosts), ..self }
    }

    /// The state of another namespace. What limits the memory of the process and the rate of a caller is one for all
    /// of them; what keeps readers of a store apart is one for each.
    pub(crate) fn of_namespace(&self, host: &Host) -> Self {
        Self {
            address: address_of(host),
            host: host.clone(),
            news: News::default(),
            scans: Arc::new(Semaphore::new(SCANS_MAX)),
            ..self.clone()
        }
    }

    /// The addresses beside its own at which the host is reached.
    pub(crate) fn names(&self) -> Names<'_> {
        Names {
            public_url: self.public_url.as_ref(),
            address: self.address.as_ref(),
            is_any_taken: self.host.has_access_control(),
        }
    }
}

/// The address at which the other hosts of the store reach a host; none when the store has no others.
fn address_of(host: &Host) -> Option<PublicUrl> {
    host.peers().and_then(|peers| peers.me().address.parse().ok())
}
