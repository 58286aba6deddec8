//! Reads and writes JSON.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads each text as `T` and writes it again; panics when anything but white space differs.
pub(crate) fn is_kept<T: Debug + DeserializeOwned + Serialize>(texts: &[&str]) {
    for text in texts {
        let text = compact(text);
        let value: T = match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {text}"),
        };
        assert_eq!(serde_json::to_string(&value).ok(), Some(text), "{value:?}");
    }
}

/// Whether a text is refused as a `T`.
pub(crate) fn is_refused<T: DeserializeOwned>(text: &str) -> bool {
    serde_json::from_str::<T>(text).is_err()
}

/// The text without white space between its words.
fn compact(text: &str) -> String {
    let (mut is_in_string, mut is_escaped) = (false, false);
    let mut is_kept = |c: char| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_in_string = !is_in_string,
            _ => {}
        }
        is_in_string || !c.is_ascii_whitespace()
    };
    text.chars().filter(|c| is_kept(*c)).collect()
}
