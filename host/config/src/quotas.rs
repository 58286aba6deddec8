//! What a namespace may take of the host.

use amends_runtime::{CALLS_MAX, StartRateSettings};
use amends_sandbox::INSTANCES_MAX;

/// What a namespace may take of the host, beside memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    /// How many sagas may be started. None: any number.
    pub starts: Option<StartRateSettings>,
    /// Calls of plugins at once. None: as many as a host has.
    pub calls: Option<u32>,
}

impl Quotas {
    /// Returns the calls at once.
    pub(crate) fn calls_max(&self) -> usize {
        let calls = self.calls.and_then(|calls| usize::try_from(calls).ok());
        calls.unwrap_or(CALLS_MAX)
    }

    /// Returns the instances at once: a quarter more than calls, and some, for those that wait to be used again.
    pub(crate) fn instances_max(&self) -> u32 {
        self.calls.map_or(INSTANCES_MAX, |calls| calls + calls / 4 + 8)
    }
}
