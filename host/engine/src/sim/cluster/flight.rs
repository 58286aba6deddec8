//! A call on its way.

use crate::{Call, Outcome, Timestamp};

/// A call of a host, or the question what became of one that was cut off.
pub(super) struct Flight {
    pub(super) number: u64,
    pub(super) host: usize,
    /// The start of the host, and the reading of the saga, that made it.
    pub(super) process: u64,
    pub(super) reading: u64,
    pub(super) saga: usize,
    pub(super) call: Call,
    /// By then its request has arrived or never will.
    pub(super) until: Timestamp,
    pub(super) is_on_its_way: bool,
    /// The answer of the service.
    pub(super) answer: Option<Outcome>,
}
