//! How a subscription stands.

use amends_engine::Timestamp;
use amends_store::Cursor;

/// How a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// Its name.
    pub name: String,
    /// Where its events go, without what may be a secret.
    pub target: String,
    /// Every event before this place is delivered, filtered out, or a dead letter.
    pub cursor: Cursor,
    /// How many events of the log lie behind that place, wanted or not.
    pub lag_events: u64,
    /// True when the last requests failed, so that the host tries with one request at a time.
    pub is_away: bool,
    /// The reason why nothing is delivered any more.
    pub disabled: Option<String>,
    /// The last error, and when it was.
    pub last_error: Option<(String, Timestamp)>,
    /// The number of dead letters.
    pub dead_letters: u64,
    /// True while dead letters are being sent again.
    pub is_redriving: bool,
}
