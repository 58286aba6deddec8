//! Domain events: what others may want to know, in the saga's stream, kept when the call succeeds.
//! Wants `events = true` in `[plugin.NAME]`.

use serde::Serialize;

use crate::Failure;

/// Emits an event such as `order.prescription_created`: two or more words of small letters, digits
/// and `_`, joined by dots. The first is none of the host's own (`saga`, `step`, `undo`, …).
///
/// # Errors
/// When the data cannot be written as JSON.
pub fn emit<T: Serialize>(event_type: &str, data: &T) -> Result<(), Failure> {
    let data = crate::to_json(data)?;
    #[cfg(target_family = "wasm")]
    crate::bindings::events::emit(event_type, &data);
    #[cfg(not(target_family = "wasm"))]
    EMITTED.with_borrow_mut(|emitted| emitted.push((event_type.to_owned(), data)));
    Ok(())
}

#[cfg(not(target_family = "wasm"))]
thread_local! {
    static EMITTED: std::cell::RefCell<Vec<(String, String)>> = std::cell::RefCell::default();
}

/// What a native test emitted since the last time: types and JSON texts.
#[cfg(not(target_family = "wasm"))]
#[must_use]
pub fn emitted() -> Vec<(String, String)> {
    EMITTED.take()
}
