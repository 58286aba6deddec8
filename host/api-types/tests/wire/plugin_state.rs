//! What plugins keep.

use amends_api_types::{StateImportLine, StateImported, StateItem};

use crate::kept::{is_kept, is_refused};

#[test]
fn a_key_and_its_value() {
    is_kept::<StateItem>(&[r#"{"key": "stock/north", "value": {"left": 3.0}}"#]);
}

#[test]
fn an_import() {
    is_kept::<StateImportLine>(&[r#"{"key": "stock/north", "value": 3}"#]);
    assert!(is_refused::<StateImportLine>(r#"{"key": "a", "value": 3, "ttl": 1}"#));
    is_kept::<StateImported>(&[r#"{"written": 3}"#]);
}
