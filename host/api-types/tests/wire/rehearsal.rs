//! What a rehearsal found.

use amends_api_types::{
    DifferenceGroupView, DifferenceView, LeftOutView, RehearsalView, UnfinishedView,
};

use crate::kept::is_kept;

const DIFFERENCE: &str = r#"{"what": "request 1 body.reference", "old": "7", "new": null}"#;

const LEFT_OUT: &str = r#"{"what": "state stock/*", "steps": 3}"#;

const UNFINISHED: &str = r#"{"saga": "i", "step": "pack", "is_new": true}"#;

fn group() -> String {
    format!(
        r#"{{
            "steps": 2, "answers": ["500"], "saga": "i", "step": "pack",
            "differences": [{DIFFERENCE}], "differences_total": 1
        }}"#
    )
}

#[test]
fn a_rehearsal() {
    let text = |differences: &str, left_out: &str, unfinished: &str| {
        format!(
            r#"{{
                "plugin": "pack", "digest": "sha256:bb", "version": "2.0.0", "serving": "sha256:aa",
                "serving_version": "1.0.0", "sagas": 5, "sagas_in_flight": 2, "steps_found": 6,
                "steps": 5, "steps_passed_over": 1, "steps_with_requests": 3, "steps_differing": 2,
                "answers": ["200", "no answer"], "differences": [{differences}],
                "differences_total": 1, "left_out": [{left_out}], "unfinished": {unfinished},
                "time_max_ms": 60000
            }}"#
        )
    };
    is_kept::<RehearsalView>(&[&text("", "", "null"), &text(&group(), LEFT_OUT, UNFINISHED)]);
}

#[test]
fn what_differs() {
    is_kept::<DifferenceGroupView>(&[&group()]);
    is_kept::<DifferenceView>(&[
        DIFFERENCE,
        r#"{"what": "outcome", "old": null, "new": "failed"}"#,
    ]);
    is_kept::<LeftOutView>(&[LEFT_OUT]);
    is_kept::<UnfinishedView>(&[UNFINISHED]);
}
