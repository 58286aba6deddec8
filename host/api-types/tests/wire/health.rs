//! Whether a host lives and takes sagas.

use amends_api_types::{AliveView, ReadyView, WarningView};

use crate::kept::is_kept;

#[test]
fn a_host_says_how_it_is() {
    is_kept::<AliveView>(&[r#"{"status": "ok"}"#]);
    let warning = r#"{
        "code": "disk_low", "detail": "the disk is nearly full", "disk_bytes": 100, "free_bytes": 4
    }"#;
    let warned = format!(r#"{{"quarantined": 1, "status": "ready", "warnings": [{warning}]}}"#);
    is_kept::<ReadyView>(&[r#"{"quarantined": 0, "status": "ready"}"#, &warned]);
    is_kept::<WarningView>(&[warning]);
}
