//! When a request came.

use std::time::Instant;

/// When a request came to the first host, as an extension. A request that waits for a saga counts from then, however
/// often the saga moves meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived(pub(crate) Instant);
