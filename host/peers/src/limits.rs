//! How long a host waits for another one, and how much it takes of it.

use std::time::Duration;

/// How long a request waits for the owner of its saga: longer than a takeover takes. Then it is refused.
pub const OWNER_WAIT_MAX: Duration = Duration::from_secs(10);

/// The pause before a host looks again who owns a saga.
pub const OWNER_LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How long another host may take to answer, beyond the time that the request itself waits for a saga. A
/// start waits for one append there.
pub const FORWARD_ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// The bytes of a request that one host sends to another: the largest body of a start, or a group of starts.
pub const FORWARDED_BYTES_MAX: usize = 4 << 20;

/// The bytes of an answer that is read as a whole: the view of a saga has up to 8 MiB of what its steps returned.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The bytes of an answer that is passed on: a saga of the largest size many times over. A watch has no end.
pub(crate) const PASSED_BYTES_MAX: u64 = 256 << 20;

/// How long the body of an answer may say nothing. A watch says something every 15 s.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The bytes of an answer's head.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long a connection may take to be made.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a connection waits for another request: less than the time after which a host closes one.
pub(crate) const IDLE_CONNECTION_TIME_MAX: Duration = Duration::from_secs(20);

/// Connections to one host that wait for another request.
pub(crate) const IDLE_CONNECTIONS_MAX: usize = 64;

/// How far the clocks of two hosts may be apart: what one signed is refused by the other when it is older.
pub(crate) const SIGNATURE_AGE_MAX: Duration = Duration::from_mins(5);

/// The pause between two looks at the secrets of the store, when a signature has an unknown key.
pub(crate) const SECRETS_LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Starts that one request carries to another host. They share transactions of the store there.
pub(crate) const STARTS_PER_REQUEST: usize = 256;

/// The bytes of inputs that one request carries, unless a single one is larger.
pub(crate) const START_BYTES_PER_REQUEST: usize = 1 << 20;

/// Requests with starts that are under way to one host.
pub(crate) const START_REQUESTS_MAX: usize = 4;

/// Starts that wait for a request to one host. Past it a start is refused.
pub(crate) const STARTS_WAITING_MAX: usize = 4_096;
