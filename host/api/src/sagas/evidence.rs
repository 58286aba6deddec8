//! Evidence of a saga: what its log says, signed by the host, for somebody who has no host.
//!
//! The form is that of `amends-api-types`. The answer is written while it is read, so what waits for a slow client is
//! at most one page of the store. The saga goes on meanwhile: the evidence has the events up to the one that was
//! the last when it was asked for.
//!
//! Deliberately absent: an answer that ends early and looks complete. What cannot be read breaks the answer off,
//! before its signature.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures::stream::try_unfold;
use percent_encoding::percent_decode_str;

use amends_api_types::{
    EVIDENCE_FORMAT, EvidenceChain, EvidenceComponent, EvidenceHead, EvidenceLine,
};
use amends_engine::{
    Definition, Digest, Event, PluginName, SagaId, StepEvent, StepName, Timestamp, UndoEvent,
    Version,
};
use amends_runtime::{AuditEvent, AuditFact, EvidenceKey, SagaState, StoredEvent, Stream, now};
use amends_sandbox::KeyId;

use crate::api_state::ApiState;
use crate::audit;
use crate::body::NDJSON;
use crate::caller::Caller;
use crate::definitions::definition_view;
use crate::erasures::personal_view;
use crate::error::ApiError;
use crate::events::calls::Calls;
use crate::extract::Path;
use crate::payloads::Payloads;
use crate::sagas::saga_lookup::find;

/// Events that are read at once.
const EVENTS_PER_READ: u32 = 256;

/// Entries of the audit that are read at once.
const ENTRIES_PER_READ: u32 = 1_000;

/// How much earlier than the start of the saga an entry of the audit may seem to be that names it: the clocks of
/// hosts differ.
const CLOCKS_DIFFER_BY: Duration = Duration::from_hours(1);

/// Returns evidence of a saga, which the host has signed.
///
/// It is NDJSON: the definition of the saga, its events, the components that served its calls and who has signed
/// those, and what the audit has of the saga. The lines are chained by hashes, and the last one has the signature.
/// `amends evidence verify` checks it without a host.
///
/// The evidence of a saga that has not ended is of what has happened so far. An answer without a last line that
/// begins with `{"signed":` was broken off.
#[utoipa::path(get, path = "/v1/sagas/{id}/evidence", operation_id = "get_evidence", tag = "sagas",
    security(("token" = ["read", "payloads"])),
    params(
        ("id" = String, Path, format = "uuid", description = "The id of the saga."),
        ("amends-user" = Option<String>, Header)),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson",
            description = "The evidence, a JSON object on each line.")))]
pub(crate) async fn evidence(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let key = state.host.evidence_key().ok_or_else(|| {
        let remedy = "make a key with `amends plugin keygen host --no-password`, set evidence_key = { file = \
                      \"host.key\" } in [host] of the config, and start the host again";
        ApiError::new(409, "no_evidence_key", "this host has no key with which it signs evidence")
            .with_remedy(remedy)
    })?;
    let found = find(&state, &id).await?;
    let head = head(&state, &caller, &found, &key).await?;
    let lines = try_unfold(Evidence::new(state, key, &found, head), async |mut evidence| {
        let text = evidence.next().await?;
        Ok::<_, io::Error>(text.map(|text| (text, evidence)))
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response())
}

/// Makes the first line of the evidence of a saga.
async fn head(
    state: &ApiState,
    caller: &Caller,
    found: &SagaState,
    key: &EvidenceKey,
) -> Result<EvidenceHead, ApiError> {
    let saga = &found.saga;
    Ok(EvidenceHead {
        format: EVIDENCE_FORMAT.to_owned(),
        amends: env!("CARGO_PKG_VERSION").to_owned(),
        key: key.id().to_string(),
        made_at: now(),
        asked_by: caller.principal().subject().to_owned(),
        access_control: state.host.has_access_control(),
        saga: saga.id().to_string(),
        status: saga.status().to_string(),
        ended: saga.has_ended(),
        events: saga.version().0,
        started_at: saga.started_at(),
        ended_at: saga.ended_at(),
        personal: personal_view(state, saga).await?,
        definition: definition_view(saga.definition()),
    })
}

/// What comes next in the evidence.
enum Part {
    Head(Box<EvidenceHead>),
    /// The events after this version.
    Events(Version),
    Components,
    /// The entries of the audit after this version, or the first ones that may be of the saga.
    Audit(Option<Version>),
    Children,
    Signature,
    Nothing,
}

/// Evidence that is being written.
struct Evidence {
    state: ApiState,
    key: Arc<EvidenceKey>,
    saga: SagaId,
    /// The version of the last event of the evidence.
    last: Version,
    started_at: Timestamp,
    definition: Arc<Definition>,
    chain: EvidenceChain,
    /// What the events do not say about the calls of the saga.
    calls: Calls,
    /// The components that the events name so far, and have no line yet.
    components: BTreeSet<(PluginName, Digest)>,
    /// The sagas that the events name so far.
    children: BTreeSet<SagaId>,
    part: Part,
}

impl Evidence {
    fn new(state: ApiState, key: Arc<EvidenceKey>, found: &SagaState, head: EvidenceHead) -> Self {
        let saga = &found.saga;
        Self {
            state,
            key,
            saga: saga.id(),
            last: saga.version(),
            started_at: saga.started_at(),
            definition: Arc::clone(saga.definition()),
            chain: EvidenceChain::default(),
            calls: Calls::new(saga.id()),
            components: BTreeSet::new(),
            children: BTreeSet::new(),
            part: Part::Head(Box::new(head)),
        }
    }

    /// Returns the next lines. None when the evidence is complete.
    ///
    /// # Errors
    /// When something cannot be read.
    async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            let (text, next) = match std::mem::replace(&mut self.part, Part::Nothing) {
                Part::Head(head) => {
                    (self.line(&EvidenceLine::Evidence(head))?, Part::Events(Version(0)))
                }
                Part::Events(after) => self.events(after).await?,
                Part::Components => self.component().await?,
                Part::Audit(after) => self.audit(after).await?,
                Part::Children => (self.children()?, Part::Signature),
                Part::Signature => (self.signature()?, Part::Nothing),
                Part::Nothing => return Ok(None),
            };
            self.part = next;
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
    }

    fn line(&mut self, line: &EvidenceLine) -> io::Result<String> {
        self.chain.add(line).map_err(broken)
    }

    async fn events(&mut self, after: Version) -> io::Result<(String, Part)> {
        if after >= self.last {
            return Ok((String::new(), Part::Components));
        }
        let left = u32::try_from(self.last.0 - after.0).unwrap_or(EVENTS_PER_READ);
        let (stream, limit) = (Stream::Saga(self.saga), left.min(EVENTS_PER_READ));
        let page = self.state.host.events(stream, after, limit).await.map_err(broken)?;
        let Some(last) = page.last().map(|event| event.version) else {
            let Self { saga, last, .. } = self;
            return Err(broken(format!(
                "saga {saga} has {} events in the store, and had {}",
                after.0, last.0
            )));
        };
        let mut text = String::new();
        for event in page {
            self.note(&event);
            let view = self.calls.view(event, Payloads::Shown);
            text += &self.line(&EvidenceLine::Event(view))?;
        }
        Ok((text, Part::Events(last)))
    }

    /// Notes the component and the saga that an event names. An event that cannot be read stands in the evidence as
    /// any other.
    fn note(&mut self, event: &StoredEvent) {
        let (step, is_undo, digest) = match Event::decode(&event.kind, &event.data) {
            Ok(Event::Step(StepEvent::Started(started))) => {
                self.children.extend(started.child);
                (started.step, false, started.digest)
            }
            Ok(Event::Undo(UndoEvent::Started(started))) => (started.step, true, started.digest),
            Ok(_) | Err(_) => return,
        };
        // A step that runs a saga calls no component.
        let component = plugin_of(&self.definition, &step, is_undo).map(|plugin| (plugin, digest));
        self.components.extend(component);
    }

    /// The line of one component.
    async fn component(&mut self) -> io::Result<(String, Part)> {
        let Some((plugin, digest)) = self.components.pop_first() else {
            return Ok((String::new(), Part::Audit(None)));
        };
        let signers = {
            // Each may be as large as many answers.
            let _turn = self.state.scans.acquire().await;
            self.state.host.signers(digest).await.map_err(broken)?
        };
        let ids = |keys: Vec<KeyId>| -> Vec<_> { keys.iter().map(KeyId::to_string).collect() };
        let (signed_by, unchecked) =
            signers.map(|signers| (ids(signers.trusted), ids(signers.claimed))).unzip();
        let info = self.state.host.plugin(&plugin);
        let history = info.map(|info| info.history).unwrap_or_default();
        let served = history.into_iter().find(|served| served.digest == digest);
        let component = EvidenceComponent {
            plugin: plugin.to_string(),
            digest: digest.to_string(),
            version: served.map(|served| served.version),
            signed_by,
            unchecked,
        };
        Ok((self.line(&EvidenceLine::Component(component))?, Part::Components))
    }

    /// The lines of some entries of the audit, if the host has one.
    async fn audit(&mut self, after: Option<Version>) -> io::Result<(String, Part)> {
        if !self.state.host.has_access_control() {
            return Ok((String::new(), Part::Children));
        }
        let page = {
            // There may be years of them.
            let _turn = self.state.scans.acquire().await;
            let host = &self.state.host;
            let after = if let Some(after) = after {
                after
            } else {
                let since = self.started_at.before(CLOCKS_DIFFER_BY);
                host.audit_version_before(since).await.map_err(broken)?
            };
            host.audit_events(Some(after), ENTRIES_PER_READ).await.map_err(broken)?
        };
        let Some(last) = page.last().map(|entry| entry.version) else {
            return Ok((String::new(), Part::Children));
        };
        let (saga, mut text) = (self.saga, String::new());
        for entry in page.into_iter().filter(|entry| names(entry, saga)) {
            let view = audit::view(entry, Payloads::Shown);
            text += &self.line(&EvidenceLine::Audit(view))?;
        }
        Ok((text, Part::Audit(Some(last))))
    }

    fn children(&mut self) -> io::Result<String> {
        let children = std::mem::take(&mut self.children);
        if children.is_empty() {
            return Ok(String::new());
        }
        let ids = children.iter().map(SagaId::to_string).collect();
        self.line(&EvidenceLine::Children(ids))
    }

    fn signature(&mut self) -> io::Result<String> {
        let chain = std::mem::take(&mut self.chain);
        let signature = self.key.sign(chain.message().as_bytes()).map_err(broken)?;
        chain.seal(self.key.id().to_string(), signature).map_err(broken)
    }
}

/// Returns the plugin that a step, or the undo of a step, calls.
fn plugin_of(definition: &Definition, step: &StepName, is_undo: bool) -> Option<PluginName> {
    let spec = definition.steps().iter().find(|spec| spec.name.as_str() == step.step())?;
    let plugin = if is_undo { spec.undo_plugin() } else { spec.plugin() };
    plugin.cloned()
}

/// Whether an entry of the audit is of a request for the saga. The path of the request may have the id in any form
/// that the host reads.
fn names(entry: &AuditEvent, saga: SagaId) -> bool {
    match &entry.fact {
        AuditFact::Recorded(recorded) => names_in_path(&recorded.entry.target, saga),
        AuditFact::Refused(_) | AuditFact::Unreadable => false,
    }
}

fn names_in_path(target: &str, saga: SagaId) -> bool {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    path.split('/').any(|part| {
        let part = percent_decode_str(part).decode_utf8();
        part.is_ok_and(|part| part.parse::<SagaId>().is_ok_and(|id| id == saga))
    })
}

/// Breaks an answer off.
fn broken(error: impl Display) -> io::Error {
    tracing::warn!(%error, "evidence of a saga was broken off");
    io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn a_request_names_a_saga_in_its_path_in_any_form() {
        let saga: SagaId = "01a22fb8-08d3-7318-a3d1-072e0eac3ff1".parse().unwrap();
        for target in [
            "/v1/sagas/01a22fb8-08d3-7318-a3d1-072e0eac3ff1/note",
            "/v1/sagas/01A22FB8-08D3-7318-A3D1-072E0EAC3FF1",
            "/v1/sagas/01a22fb808d37318a3d1072e0eac3ff1/note?x=1",
            "/v1/sagas/01a22fb8%2D08d3-7318-a3d1-072e0eac3ff1/note",
            "/v1/sagas/%7B01a22fb8-08d3-7318-a3d1-072e0eac3ff1%7D/note",
            "/v1/sagas/urn:uuid:01a22fb8-08d3-7318-a3d1-072e0eac3ff1/note",
        ] {
            assert!(names_in_path(target, saga), "{target}");
        }
        for target in [
            "/v1/tokens?x=01a22fb8-08d3-7318-a3d1-072e0eac3ff1",
            "/v1/sagas/01a22fb8-08d3-7318-a3d1-072e0eac3ff2",
            "/v1/sagas/%FF",
        ] {
            assert!(!names_in_path(target, saga), "{target}");
        }
    }
}
