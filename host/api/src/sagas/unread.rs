//! Shows sagas that are there and cannot be read.

use std::collections::BTreeMap;

use amends_api_types::{SagaItem, SagaView};
use amends_engine::{SagaId, SagaStatus, Timestamp};
use amends_runtime::StartRequest;
use amends_sandbox::trace_id;

use crate::payloads::Payloads;

/// Shows a saga that was started and cannot be read: what is known without reading it. No other saga has
/// version 0.
pub(crate) fn unread_saga(id: SagaId, request: StartRequest, payloads: Payloads) -> SagaView {
    SagaView {
        id: id.to_string(),
        definition: request.definition,
        definition_digest: String::new(),
        status: SagaStatus::Running.to_string(),
        input: payloads.payload(request.input),
        output: None,
        steps: Vec::new(),
        started_at: made_at(id),
        start_at: None,
        ended_at: None,
        deadline_at: None,
        next_at: None,
        version: 0,
        trace_id: match &request.traceparent {
            Some(given) => trace_id(Some(given)).to_owned(),
            None => id.to_string().replace('-', ""),
        },
        traceparent: request.traceparent,
        key: request.key,
        tags: request.tags,
        index: BTreeMap::new(),
        reason: None,
        note: None,
        parent: None,
        archived: false,
        personal: None,
    }
}

/// Shows a saga of a list whose row cannot be read.
pub(crate) fn unread_item(id: SagaId) -> SagaItem {
    SagaItem {
        id: id.to_string(),
        definition: String::new(),
        status: String::new(),
        reason: None,
        started_at: made_at(id),
        ended_at: None,
        deadline_at: None,
        next_at: None,
        key: None,
        tags: BTreeMap::new(),
        index: BTreeMap::new(),
        activity: None,
        archived: false,
    }
}

/// Tells when an id was made, moments before its saga began: the first 48 bits of a `UUIDv7` are the
/// milliseconds (RFC 9562, 5.7).
fn made_at(id: SagaId) -> Timestamp {
    let millis = id.as_bytes()[..6].iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte));
    Timestamp::from_millis(millis)
}
