//! Limits that several modules share.

use std::time::Duration;

/// The most attempts of one call. Beyond this, a counter of attempts helps nobody.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// How far a host's clock may be set back without any effect on sagas. Clocks that NTP keeps right
/// are set back by less. A pause that began just before may become longer by this much.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// The longest `retry-after` of a guest that counts. A longer one could stop a saga for ever.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);
