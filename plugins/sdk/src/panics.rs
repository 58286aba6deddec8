//! Panics: a component that panics is stopped, and its instance with it. What it would have said goes to
//! the host's log first, so that the failure of the call names the message and the place.

use std::panic::{PanicHookInfo, set_hook};
use std::sync::Once;

/// Has panics of this instance reported from now on.
pub(crate) fn report() {
    static IS_SET: Once = Once::new();
    IS_SET.call_once(|| set_hook(Box::new(|panic| crate::log::error(&words(panic), &[]))));
}

fn words(panic: &PanicHookInfo<'_>) -> String {
    let message = panic.payload_as_str().unwrap_or("no message");
    match panic.location() {
        Some(place) => format!("panicked at {place}: {message}"),
        None => format!("panicked: {message}"),
    }
}
