//! What the plugin keeps: values by key, that are written in the same transaction as the event of
//! the call. Wants `state = true` in `[plugin.NAME]`.
//!
//! A call sees what was there when it read, and what it wrote itself. What it writes is done when
//! the call succeeds and is recorded, and never twice: no idempotency key is needed for it. If what
//! it read has changed by then, it runs again, so it must do nothing else that cannot be repeated.
//! An undo works on the state of the plugin that did the step, also from a component of its own.
//!
//! ```
//! use amends_sdk::{Failure, state};
//!
//! fn take(sku: &str, pieces: u32) -> Result<bool, Failure> {
//!     let key = format!("stock/{sku}");
//!     let stock: u32 = state::get(&key)?.unwrap_or(0);
//!     let Some(left) = stock.checked_sub(pieces) else { return Ok(false) };
//!     state::set(&key, &left)?;
//!     Ok(true)
//! }
//!
//! # state::with(&[("stock/a", "3")], || {
//! assert_eq!(take("a", 2).ok(), Some(true));
//! assert_eq!(take("a", 2).ok(), Some(false));
//! # });
//! ```
//!
//! When many calls take from one stock at once, all but one of those that read it run again. A counter
//! has no such limit: a call adds to it and does not see it.
//!
//! ```
//! use amends_sdk::state::{self, Added};
//!
//! fn take(sku: &str, pieces: u32) -> bool {
//!     state::add(&format!("stock/{sku}"), -i64::from(pieces), 0..) == Added::Done
//! }
//!
//! # state::with(&[("stock/a", "3")], || {
//! assert!(take("a", 2));
//! assert!(!take("a", 2), "one is left");
//! assert_eq!(state::add("stock/b", 1, ..), Added::Absent);
//! # });
//! ```

use std::ops::{Bound, RangeBounds};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;

/// The value of a key; none when it is not there.
///
/// # Errors
/// A permanent failure when it is there and of another type.
pub fn get<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Failure> {
    let Some(text) = import::get(key) else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Failure::permanent("invalid_state", format!("the state `{key}` cannot be read: {error}"))
    })
}

/// Writes a value.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn set<T: Serialize>(key: &str, value: &T) -> Result<(), Failure> {
    import::set(key, &crate::to_json(value)?);
    Ok(())
}

/// Removes a key; whether it was there.
#[must_use = "an undo that finds nothing to undo says so"]
pub fn delete(key: &str) -> bool {
    import::delete(key)
}

/// Writes `new` (none removes the key) when the value is `expected`; whether it was.
///
/// # Errors
/// When a value cannot be written as JSON.
pub fn compare_and_swap<T: Serialize>(
    key: &str,
    expected: Option<&T>,
    new: Option<&T>,
) -> Result<bool, Failure> {
    let expected = expected.map(crate::to_json).transpose()?;
    let new = new.map(crate::to_json).transpose()?;
    Ok(import::compare_and_swap(key, expected.as_deref(), new.as_deref()))
}

/// What an [`add`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// The number changes when the call is recorded.
    Done,
    /// Nothing: the sum would be less than the range has.
    TooSmall,
    /// Nothing: the sum would be more than the range has.
    TooLarge,
    /// Nothing: there is no such key. Write its first number with [`set`].
    Absent,
}

/// Adds `delta` to a counter, a value that is a whole number, when the sum is in `range`.
///
/// The call is recorded as long as this has the same answer, whatever the number is by then. A number
/// is at most 9,007,199,254,740,991, which every reader of JSON has exactly. A value that is no whole
/// number ends the call.
#[must_use = "only `Done` says that the number changes"]
pub fn add(key: &str, delta: i64, range: impl RangeBounds<i64>) -> Added {
    let min = match range.start_bound() {
        Bound::Included(min) => Some(*min),
        Bound::Excluded(below) => Some(below.saturating_add(1)),
        Bound::Unbounded => None,
    };
    let max = match range.end_bound() {
        Bound::Included(max) => Some(*max),
        Bound::Excluded(above) => Some(above.saturating_sub(1)),
        Bound::Unbounded => None,
    };
    added(import::add(key, delta, min, max))
}

#[cfg(target_family = "wasm")]
const fn added(added: import::Added) -> Added {
    match added {
        import::Added::Done => Added::Done,
        import::Added::TooSmall => Added::TooSmall,
        import::Added::TooLarge => Added::TooLarge,
        import::Added::Absent => Added::Absent,
    }
}

#[cfg(not(target_family = "wasm"))]
const fn added(added: Added) -> Added {
    added
}

/// Keys that begin with `prefix`, in the order of their bytes: at most `limit`, after `after`.
#[must_use]
pub fn keys(prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
    import::list_keys(prefix, after, limit)
}

#[cfg(target_family = "wasm")]
use crate::bindings::state as import;

#[cfg(not(target_family = "wasm"))]
use native as import;

#[cfg(not(target_family = "wasm"))]
pub use native::with;

/// In a native test the state is in memory.
#[cfg(not(target_family = "wasm"))]
mod native {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    thread_local! {
        static STATE: RefCell<BTreeMap<String, String>> = RefCell::default();
    }

    /// Runs a native test with this state, JSON texts by key.
    pub fn with<T>(state: &[(&str, &str)], test: impl FnOnce() -> T) -> T {
        let state = state.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        STATE.set(state.collect());
        let result = test();
        STATE.take();
        result
    }

    pub(super) fn get(key: &str) -> Option<String> {
        STATE.with_borrow(|state| state.get(key).cloned())
    }

    pub(super) fn set(key: &str, value: &str) {
        STATE.with_borrow_mut(|state| state.insert(key.to_owned(), value.to_owned()));
    }

    pub(super) fn delete(key: &str) -> bool {
        STATE.with_borrow_mut(|state| state.remove(key).is_some())
    }

    pub(super) fn compare_and_swap(key: &str, expected: Option<&str>, new: Option<&str>) -> bool {
        let is_expected = get(key).as_deref() == expected;
        match new {
            _ if !is_expected => {}
            Some(new) => set(key, new),
            None => drop(delete(key)),
        }
        is_expected
    }

    pub(super) fn add(key: &str, delta: i64, min: Option<i64>, max: Option<i64>) -> super::Added {
        const MOST: i64 = (1 << 53) - 1;
        let Some(text) = get(key) else { return super::Added::Absent };
        let Ok(number) = text.parse::<i64>() else { panic!("the value of `{key}` is no counter") };
        let sum = number.saturating_add(delta);
        if sum < min.unwrap_or(-MOST).max(-MOST) {
            return super::Added::TooSmall;
        }
        if sum > max.unwrap_or(MOST).min(MOST) {
            return super::Added::TooLarge;
        }
        set(key, &sum.to_string());
        super::Added::Done
    }

    pub(super) fn list_keys(prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
        let is_in = |key: &&String| {
            key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        };
        STATE
            .with_borrow(|state| state.keys().filter(is_in).take(limit as usize).cloned().collect())
    }
}
