//! Tokens of access control, and who asks.

use amends_api_types::{MeView, NewTokenView, RevokeBody, TokenBody, TokenView};

use crate::kept::{is_kept, is_refused};

#[test]
fn a_token() {
    is_kept::<TokenView>(&[
        r#"{
            "id": "k3Jq9ZbX0a", "name": "ci", "roles": ["viewer"], "payloads": false,
            "namespaces": ["default"], "state": "active", "created_by": "admin_token@127.0.0.1",
            "created_at": "2026-01-02T03:04:05.678Z", "expires_at": null, "last_used_at": null,
            "revoked": null
        }"#,
        r#"{
            "id": "k3Jq9ZbX0a", "name": "ci", "roles": ["operator", "deployer"], "payloads": true,
            "namespaces": ["billing", "shop"], "state": "revoked",
            "created_by": "admin_token@127.0.0.1 on behalf of ada",
            "created_at": "2026-01-02T03:04:05.678Z", "expires_at": "2026-04-02T03:04:05.678Z",
            "last_used_at": "2026-01-03T00:00:00.000Z",
            "revoked": {
                "who": "ops@127.0.0.1", "at": "2026-01-04T03:04:05.678Z", "reason": "it leaked"
            }
        }"#,
    ]);
}

#[test]
fn a_new_token_has_its_text_first() {
    is_kept::<NewTokenView>(&[r#"{
        "token": "amends_k3Jq9ZbX0a_secret", "id": "k3Jq9ZbX0a", "name": "ci",
        "roles": ["service"], "payloads": false, "namespaces": ["*"], "state": "active",
        "created_by": "ops@127.0.0.1", "created_at": "2026-01-02T03:04:05.678Z",
        "expires_at": null, "last_used_at": null, "revoked": null
    }"#]);
}

#[test]
fn orders_about_tokens() {
    is_kept::<TokenBody>(&[
        r#"{"name": "ci", "roles": ["viewer"], "payloads": false}"#,
        r#"{
            "name": "ci", "roles": ["admin"], "payloads": true, "namespaces": ["shop"],
            "expires_in": "90d"
        }"#,
    ]);
    assert!(is_refused::<TokenBody>(r#"{"name": "ci", "roles": ["viewer"], "role": "viewer"}"#));
    is_kept::<RevokeBody>(&[r#"{"reason": "why"}"#]);
    assert!(is_refused::<RevokeBody>(r#"{"reason": "why", "name": "ci"}"#));
}

#[test]
fn who_asks() {
    is_kept::<MeView>(&[
        r#"{
            "who": "ada@127.0.0.1", "access_control": false, "roles": [],
            "permissions": ["read", "payloads", "start", "operate", "deploy", "administer"],
            "namespaces": ["default", "shop"], "expires_at": null
        }"#,
        r#"{
            "who": "ci@127.0.0.1", "access_control": true, "roles": ["deployer"],
            "permissions": ["read", "deploy"], "namespaces": ["shop"],
            "expires_at": "2026-04-02T03:04:05.678Z"
        }"#,
    ]);
}
