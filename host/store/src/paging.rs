//! How much a page may hold, and where the next one begins.

use std::fmt;
use std::str::FromStr;

use crate::error::StoreError;

/// How much one page may hold. A page also ends at the largest size that the store has for pages of
/// its kind, whatever the budget says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBudget {
    /// The most events, or sagas.
    pub(crate) items: u32,
    /// The most bytes of data. A page may exceed this by one item, so it is empty only when there
    /// are no more items.
    pub(crate) bytes: usize,
}

impl PageBudget {
    /// Returns a budget of this many items, and of as many bytes as the store has for a page.
    #[must_use]
    pub const fn items(items: u32) -> Self {
        Self { items, bytes: usize::MAX }
    }
}

/// A place in the whole log, between two events. Only the store that made it understands it; callers
/// keep it, write it down as text and hand it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Cursor(pub(crate) u64);

impl Cursor {
    /// The place before the first event.
    pub const START: Self = Self(0);

    /// Returns how many events lie between this place and a later one; 0 when that one is not later.
    #[must_use]
    pub const fn events_until(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = StoreError;

    /// Reads what `Display` wrote.
    fn from_str(text: &str) -> Result<Self, StoreError> {
        let place = text.parse();
        place.map(Self).map_err(|_| StoreError::Invalid("this is no cursor of the event log"))
    }
}
