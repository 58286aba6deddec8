//! What the ticks of a store keep between them.

use std::time::Instant;

use super::connection::Pg;

/// What ticks keep.
#[derive(Default)]
pub(super) struct Control {
    pub(super) pg: Option<Pg>,
    /// Since when each tick has reached the database.
    pub(super) contact_since: Option<Instant>,
}
