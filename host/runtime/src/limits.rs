//! How much a host holds at once. Past each limit a caller is told to wait; memory does not grow.

use std::time::Duration;

use amends_store::PageBudget;

/// Calls in flight or about to be, over all workers. Each holds an instance of the plugin host's
/// pool, so it is well below the pool's size.
pub const CALLS_MAX: usize = 512;

/// The most namespaces of a host beside `default`. Each has a store, workers and a pool of guests of its own.
pub const NAMESPACES_MAX: usize = 32;

/// Of [`CALLS_MAX`], the calls that only undos may use: new work must not starve compensation.
pub(crate) const CALLS_KEPT_FOR_UNDO: usize = 64;

/// Bytes that the sagas in memory hold together, unless the config says otherwise: some 200,000 small
/// ones. Past it starts and signals are refused; sagas of steps, undos and what calls answer are not.
/// A saga of a step needs no limit: each is one of a saga in memory that waits for it.
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

/// Data of events of an archived saga that are read at once: as much as a page of the store.
pub(crate) const ARCHIVED_EVENTS_BYTES_MAX: usize = 256 << 10;

/// Appends of all workers that the store has and has not answered. Past it no start is taken, and
/// what happens to a saga waits in it, undecided: a disk that stalls must not have more written to
/// memory.
pub(crate) const APPENDS_UNDER_WAY_MAX: usize = 4_096;

/// Their bytes, likewise: with it the store has two transactions of the largest size.
pub(crate) const APPEND_BYTES_UNDER_WAY_MAX: usize = 64 << 20;

/// Events read at once when a saga is loaded from the store; fewer when they are large
/// ([`amends_store::EVENTS_PAGE_BYTES_MAX`]).
pub(crate) const EVENTS_PER_READ: PageBudget = PageBudget::items(10_000);

/// A saga that waits for longer than this leaves memory: far more than what it takes to load it again,
/// and [`DUE_AHEAD`].
pub(crate) const WAIT_IN_MEMORY_MAX: Duration = Duration::from_secs(30);

/// How long before the clock wakes a saga it is loaded: enough for several times [`DUE_PAUSE`].
pub(crate) const DUE_AHEAD: Duration = Duration::from_secs(15);

/// The pause between two looks for sagas that the clock wakes soon.
pub(crate) const DUE_PAUSE: Duration = Duration::from_secs(5);

/// The same pause while sagas are due and the sagas in memory hold as many bytes as they may.
pub(crate) const DUE_PAUSE_FULL: Duration = Duration::from_secs(1);

/// Sagas that the clock wakes, looked for at once. Past the bytes of live sagas, so many at most are
/// loaded in a [`DUE_PAUSE_FULL`].
pub(crate) const DUE_PER_READ: u32 = 1_000;

/// Waiting sagas whose clock is looked at at once. The next so many follow after [`AHEAD_PAUSE`].
pub(crate) const CLOCKS_PER_READ: u32 = 10_000;

/// See [`CLOCKS_PER_READ`].
pub(crate) const AHEAD_PAUSE: Duration = Duration::from_millis(50);

/// Live sagas read at once; fewer when their logs are large
/// ([`amends_store::LIVE_PAGE_BYTES_MAX`]).
pub(crate) const SAGAS_PER_READ: PageBudget = PageBudget::items(1_000);

/// Pages of sagas that are read at once because something happens to them. Each is at most
/// [`amends_store::LIVE_PAGE_BYTES_MAX`] and one saga more, and is not counted as memory of live sagas
/// before its worker has it: together about a GiB.
pub(crate) const LOADS_MAX: usize = 8;

/// A host that has not looked at its schedules for longer was down, or stood still: the times before that
/// were missed. A restart, such as an upgrade, takes less.
pub(crate) const MISSED_AFTER: Duration = Duration::from_mins(1);

/// Times of a schedule that were missed and are caught up, the last ones. More would flood the host.
pub(crate) const CATCH_UP_MAX: usize = 100;

/// Times that were missed longer ago are not looked at.
pub(crate) const CATCH_UP_AGE_MAX: Duration = Duration::from_hours(24 * 366);

/// The longest pause between two looks at the schedules: a clock that was set is noticed this soon.
pub(crate) const SCHEDULE_LOOK_PAUSE: Duration = Duration::from_secs(5);

/// The pause before a scheduled saga that could not be started is started again.
pub(crate) const SCHEDULE_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The next times of a schedule that are shown.
pub(crate) const NEXT_TIMES_SHOWN: usize = 3;

/// The bytes of a start key.
pub const START_KEY_BYTES_MAX: usize = 255;

/// The bytes of the name of a tag, and of its value.
pub const TAG_BYTES_MAX: usize = 255;

/// Events that came in one request and are being taken at once. They share transactions of the store.
pub(crate) const EVENTS_AT_ONCE: usize = 64;

/// Sagas in a chain, each started by a domain event of the one before. A longer chain is taken for a
/// circle, which would never end.
pub(crate) const EVENT_DEPTH_MAX: usize = 16;

/// How often in such a chain a rule may be one that already stands in it.
pub(crate) const EVENT_REPEATS_MAX: usize = 2;

/// Requests or messages whose expressions are evaluated at once, each on a thread. Others wait, and the room
/// of their bodies bounds how many.
pub(crate) const EVENT_PLANS_AT_ONCE: usize = 4;

/// Attempts to take a domain event before it is a dead letter, over some two minutes: a saga that is to get a
/// signal may be started a moment later.
pub(crate) const EVENT_ATTEMPTS_MAX: u32 = 8;

/// Rehearsals at once. Each computes on a thread of its own, and real sagas go first.
pub(crate) const REHEARSALS_MAX: usize = 1;
