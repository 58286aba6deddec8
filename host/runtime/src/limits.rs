//! How much a host holds at once. Past each limit a caller is told to wait; memory does not grow.

/// Calls in flight or about to be, over all shards. Each holds an instance of the plugin host's
/// pool, so it is well below the pool's size.
pub const CALLS_MAX: usize = 512;

/// Of [`CALLS_MAX`], the calls that only undos may use: new work must not starve compensation.
pub const CALLS_KEPT_FOR_UNDO: usize = 64;

/// Live sagas of a host. A live saga takes some kilobytes and its payloads.
pub const LIVE_MAX: usize = 200_000;

/// Starts that wait for a shard. Past it a start is refused and the caller told to come back.
pub const STARTS_WAITING_MAX: usize = 2_048;

/// Events read at once when a saga is loaded from the store; fewer when they are large
/// ([`amends_store::EVENTS_PAGE_BYTES_MAX`]).
pub(crate) const EVENTS_PER_READ: u32 = 10_000;

/// Live sagas read at once at recovery; fewer when their logs are large
/// ([`amends_store::LIVE_PAGE_BYTES_MAX`]).
pub(crate) const SAGAS_PER_READ: u32 = 1_000;
