//! What a deploy changes.

use amends_api_types::{DeployView, DeployedView, FlawView, MisfitView, UnreadableView};

use crate::kept::is_kept;

const FLAW: &str = r#"{
    "definition": "order", "is_older": false, "step": "pack", "key": "input.drug", "refuses": true,
    "message": "needs `id`", "help": "give it"
}"#;

const MISFIT: &str = r#"{"is_certain": true, "message": "needs `id`, which is not in it"}"#;

const UNREADABLE: [&str; 2] = [
    r#"{"saga": "i", "step": "pack", "why": "needs `id`", "executed_by": "sha256:aa"}"#,
    r#"{"saga": "i", "step": "pack", "why": "needs `id`", "executed_by": null}"#,
];

#[test]
fn a_deploy() {
    is_kept::<DeployView>(&[r#"{"activated": true, "canary": false, "components": []}"#]);
    let [unreadable, _] = UNREADABLE;
    let full = format!(
        r#"{{
            "plugin": "pack", "digest": "sha256:bb", "version": "2.0.0", "previous": "sha256:aa",
            "definitions": ["order"], "sagas": 2, "to_undo": 1, "misfits": [{MISFIT}],
            "unreadable": [{unreadable}], "unreadable_total": 1, "flaws": [{FLAW}],
            "refusal": "outputs cannot be read"
        }}"#
    );
    let least = r#"{
        "plugin": "pack", "digest": "sha256:bb", "version": "2.0.0", "previous": null,
        "definitions": [], "sagas": 0, "to_undo": 0, "misfits": [], "unreadable": [],
        "unreadable_total": 0, "flaws": []
    }"#;
    is_kept::<DeployedView>(&[least, &full]);
}

#[test]
fn what_does_not_fit() {
    is_kept::<FlawView>(&[FLAW]);
    is_kept::<MisfitView>(&[MISFIT]);
    is_kept::<UnreadableView>(&UNREADABLE);
}
