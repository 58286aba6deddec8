//! The audit: who asked for a change, and what became of it.

mod draft;

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{AuditCheckView, AuditView, Page};
use amends_engine::{Version, WITHHELD};
use amends_runtime::{AuditEntry, AuditError, AuditEvent, AuditFact, AuditRecorded, AuditRefused};

pub(crate) use draft::{Draft, Recorded, code_of, stranger};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::extract::Query;
use crate::paging::{cursor, limit};
use crate::payloads::Payloads;

/// Which entries to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    /// The version after which the page begins; 0 for the first entry. Without it, the answer has the last entries.
    after: Option<u64>,
    /// The `next_cursor` of the page before this one: the same as `after`.
    cursor: Option<String>,
    /// How many items the page may have: 1 to 1,000, 50 when absent. A page of large entries ends earlier.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists the entries of the audit, the oldest first. Without a place it has the last ones.
///
/// An entry is a request for a change that somebody with a token made, or the number of requests that were refused
/// because no token that counts came with them, or because they came too soon. Starts, signals and events that were
/// accepted are not among them: the events of the saga say who sent them.
#[utoipa::path(get, path = "/v1/audit", operation_id = "list_audit", tag = "access",
    security(("token" = ["administer"])),
    params(AuditQuery),
    responses((status = 200, body = Page<AuditView>, description = "A page of entries.")))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    payloads: Payloads,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditView>>, ApiError> {
    let limit = limit(query.limit)?;
    let after = cursor(query.cursor.as_deref())?.or(query.after);
    if after.is_some_and(|after| i64::try_from(after).is_err()) {
        return Err(ApiError::new(400, "bad_query", "`after` is larger than a version can be")
            .with_remedy("use the `next_cursor` of the page before"));
    }
    let after = after.map(Version);
    let events = state.host.audit_events(after, limit).await?;
    let next_cursor = match events.last().map(|event| event.version) {
        Some(last) => {
            let is_more = !state.host.audit_events(Some(last), 1).await?.is_empty();
            is_more.then(|| last.0.to_string())
        }
        None => None,
    };
    let items = events.into_iter().map(|event| view(event, payloads)).collect();
    Ok(Json(Page { items, next_cursor }))
}

/// Checks the chain of the audit, from its first entry to its last.
///
/// The answer names the first entry that was changed, removed, added or moved. That the last entries are missing
/// does not show: compare the number and the chain of the last entry with what another system has.
#[utoipa::path(get, path = "/v1/audit:verify", operation_id = "verify_audit", tag = "access",
    security(("token" = ["administer"])),
    responses((status = 200, body = AuditCheckView, description = "What the check has found.")))]
pub(crate) async fn verify(
    State(state): State<ApiState>,
) -> Result<Json<AuditCheckView>, ApiError> {
    // There may be years of entries.
    let _turn = state.scans.acquire().await;
    let check = state.host.verify_audit().await?;
    let chain = (check.entries() > 0).then(|| check.chain().to_owned());
    let finding = check.finding().map(str::to_owned);
    Ok(Json(AuditCheckView { entries: check.entries(), chain, finding }))
}

/// Shows an entry.
pub(crate) fn view(event: AuditEvent, payloads: Payloads) -> AuditView {
    let AuditEvent { version, kind, at, fact } = event;
    let empty = AuditView {
        version: version.0,
        kind,
        at,
        who: None,
        token: None,
        roles: Vec::new(),
        address: None,
        operation: None,
        target: None,
        status: None,
        code: None,
        count: None,
        since: None,
        chain: None,
    };
    match fact {
        AuditFact::Recorded(AuditRecorded { entry, at, chain }) => {
            let AuditEntry { who, token, roles, address, operation, target, status, code } = entry;
            AuditView {
                at,
                who: Some(who),
                token,
                roles,
                address: Some(address.to_string()),
                operation,
                target: Some(shown(target, payloads)),
                status,
                code,
                chain: Some(chain),
                ..empty
            }
        }
        AuditFact::Refused(AuditRefused { address, code, count, since, at, chain }) => AuditView {
            at,
            address: Some(address),
            code: Some(code),
            count: Some(count),
            since: Some(since),
            chain: Some(chain),
            ..empty
        },
        AuditFact::Unreadable => empty,
    }
}

/// Shows the target of a request. A key of plugin state is withheld as the state is.
fn shown(target: String, payloads: Payloads) -> String {
    const STATE: &str = "/state/";
    let key = target.starts_with("/v1/plugins/").then(|| target.find(STATE)).flatten();
    match (payloads, key) {
        (Payloads::Withheld, Some(key)) => format!("{}{WITHHELD}", &target[..key + STATE.len()]),
        (Payloads::Withheld, None) | (Payloads::Shown, _) => target,
    }
}

impl From<AuditError> for ApiError {
    fn from(error: AuditError) -> Self {
        let detail = error.to_string();
        match error {
            AuditError::Off => Self::new(409, "auth_off", detail)
                .with_remedy("add [auth] to the config and start the host again"),
            AuditError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_state_is_withheld_as_the_state_is() {
        let key = "/v1/plugins/stock/state/customer/4711?x=/state/";
        for (target, without) in [
            (key, "/v1/plugins/stock/state/[withheld]"),
            ("/v1/plugins/stock/rollback", "/v1/plugins/stock/rollback"),
            ("/v1/sagas/1/state/7", "/v1/sagas/1/state/7"),
        ] {
            assert_eq!(shown(target.to_owned(), Payloads::Shown), target);
            assert_eq!(shown(target.to_owned(), Payloads::Withheld), without);
        }
    }
}
