//! How much a subscription holds and sends at once.

use std::time::Duration;

use amends_store::PageBudget;

/// Events that a subscription holds in memory. Past it nothing more is read for the subscription, and
/// other subscriptions go on. A page that began before the limit may exceed it.
pub(crate) const EVENTS_HELD_MAX: usize = 1_024;

/// Bytes of event data that a subscription holds in memory, likewise.
pub(crate) const EVENT_BYTES_HELD_MAX: usize = 4 << 20;

/// Events that the reader of the log reads at once. The store also ends a page by its bytes.
pub(crate) const EVENTS_PER_READ: PageBudget = PageBudget::items(256);

/// Requests of one subscription at once. No two of them carry events of one saga.
pub(crate) const REQUESTS_MAX: usize = 16;

/// The most events of one request: more would say little more in one signature, and a receiver that
/// fails has all of them again.
pub const BATCH_EVENTS_MAX: u32 = 1_000;

/// Dead letters that a subscription keeps. Past it an event that cannot be delivered waits, and its
/// attempts go on.
pub const DEAD_LETTERS_MAX: u64 = 10_000;

/// Dead letters that are read at once.
pub(crate) const DEAD_LETTERS_PER_READ: u32 = 100;

/// A receiver is away when events of this many streams have failed since it last accepted one.
pub(crate) const FAILING_STREAMS_MAX: usize = 8;

/// The pause after the first failure; each further one is twice as long.
pub(crate) const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// The longest time that a receiver's `Retry-After` has the host wait.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Messages of one source of NATS that are being taken at once, or have come and wait for that.
pub(crate) const SOURCE_MESSAGES_MAX: usize = 64;

/// Messages of one source of NATS that were delivered and are not settled, such as those that wait to be
/// delivered again. Past it the stream delivers no new ones.
pub(crate) const SOURCE_PENDING_MAX: i64 = 4_096;

/// A message that waits for something that may come, such as the saga of a signal, is tried again while it is
/// younger than this.
pub(crate) const SOURCE_AGE_MAX: Duration = Duration::from_hours(72);

/// Deliveries of a message that a source may fail on. After the last one it is terminated.
pub(crate) const SOURCE_ATTEMPTS_MAX: u32 = 8;

/// The longest pause before a message is delivered again, or a server is tried again.
pub(crate) const SOURCE_PAUSE_MAX: Duration = Duration::from_mins(1);

/// How often a cursor is written down while it moves.
pub(crate) const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection may take to be made.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes of an answer's head: many times what a receiver sends.
pub(crate) const ANSWER_HEAD_BYTES_MAX: usize = 32 << 10;

/// The bytes of an answer's body that are read. The connection of a longer one is closed.
pub(crate) const ANSWER_BYTES_MAX: usize = 4 << 10;

/// How long the body of an answer may take after its head.
pub(crate) const ANSWER_BODY_TIME_MAX: Duration = Duration::from_secs(1);

/// Characters of an answer that are kept with an error.
pub(crate) const ANSWER_CHARS_SHOWN: usize = 200;

/// Sagas whose definition is remembered.
pub(crate) const DEFINITIONS_REMEMBERED_MAX: usize = 65_536;

/// How long a redrive waits for a file of the archive that cannot be read.
pub(crate) const ARCHIVE_RETRY_AFTER: Duration = Duration::from_secs(1);
