//! How much a host holds at once. Past each limit a caller is told to wait; memory does not grow.

use amends_store::PageBudget;

/// Calls in flight or about to be, over all workers. Each holds an instance of the plugin host's
/// pool, so it is well below the pool's size.
pub const CALLS_MAX: usize = 512;

/// Of [`CALLS_MAX`], the calls that only undos may use: new work must not starve compensation.
pub const CALLS_KEPT_FOR_UNDO: usize = 64;

/// Live sagas of a host. Past it a start is refused; the sagas of steps are not, because the sagas
/// that wait for them could not end.
pub const LIVE_MAX: usize = 200_000;

/// Bytes that live sagas hold together, unless the config says otherwise: [`LIVE_MAX`] small ones.
/// Past it starts and signals are refused; sagas of steps, undos and what calls answer are not.
pub const LIVE_BYTES_MAX_DEFAULT: usize = 1 << 30;

/// What a live saga takes beside its state, its payloads and its texts: its places in tables,
/// timers and lines. It was measured.
pub(crate) const LIVE_BYTES_EACH: usize = 2 << 10;

/// Bytes of signals that wait to be recorded, together: 64 of the largest. Past it a signal is refused.
pub(crate) const SIGNAL_BYTES_WAITING_MAX: usize = 64 << 20;

/// Bytes of operators' orders that wait to be recorded, together: 64 with the largest input. Past
/// it an order that brings [`ORDER_BYTES_FREE`] and more is refused.
pub(crate) const ORDER_BYTES_WAITING_MAX: usize = 64 << 20;

/// Orders that bring less are never refused for lack of room: those that sagas give their children
/// are among them.
pub(crate) const ORDER_BYTES_FREE: usize = 4 << 10;

/// Starts that wait for a worker. Past it a start is refused and the caller told to come back.
pub const STARTS_WAITING_MAX: usize = 2_048;

/// Appends of all workers that the store has and has not answered. Past it no start is taken, and
/// what happens to a saga waits in it, undecided: a disk that stalls must not have more written to
/// memory.
pub(crate) const APPENDS_UNDER_WAY_MAX: usize = 4_096;

/// Their bytes, likewise: with it the store has two transactions of the largest size.
pub(crate) const APPEND_BYTES_UNDER_WAY_MAX: usize = 64 << 20;

/// Events read at once when a saga is loaded from the store; fewer when they are large
/// ([`amends_store::EVENTS_PAGE_BYTES_MAX`]).
pub(crate) const EVENTS_PER_READ: PageBudget = PageBudget::items(10_000);

/// Live sagas read at once at recovery; fewer when their logs are large
/// ([`amends_store::LIVE_PAGE_BYTES_MAX`]).
pub(crate) const SAGAS_PER_READ: PageBudget = PageBudget::items(1_000);

/// Rehearsals at once. Each computes on a thread of its own, and real sagas go first.
pub(crate) const REHEARSALS_MAX: usize = 1;
