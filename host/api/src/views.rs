//! The JSON shapes of the API.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use amends_engine::{
    Definition, Direction, Failure, Payload, SagaId, SagaStatus, StepKind, StepStatus,
    StepView as EngineStep, Timestamp, idempotency_key, pivot_first, step_input,
};
use amends_plugins::{
    Activation, CallCounts, CanaryInfo, Cause, PluginInfo, RejectionRecord, trace_id,
};
use amends_runtime::{StallReason, StartRequest, State};
use amends_store::{SagaRow, StoredEvent, Stream};

use crate::page::PAGE_BYTES_MAX;

/// Bytes of what the steps of a saga answered that are in one answer: a saga has up to 1,000 elements for
/// each of its steps, and each may answer a megabyte. The whole is in the saga's events.
const OUTPUTS_BYTES_MAX: usize = PAGE_BYTES_MAX;

/// The same of what the steps were given: less, because mostly it is in the saga's input and in what the
/// steps before answered.
const INPUTS_BYTES_MAX: usize = 2 << 20;

/// How long an answer may compute inputs. An input has an expression to compute and payloads to read, and
/// a saga has up to thousands of elements with an input each.
const INPUTS_TIME_MAX: Duration = Duration::from_millis(500);

/// The status of a saga that cannot be read or stepped, so that nothing touches it.
pub(crate) const QUARANTINED: &str = "quarantined";

/// A saga to start.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartBody {
    /// The name of a definition of the config.
    pub(crate) definition: String,
    /// What it is given: any JSON.
    #[schema(value_type = Object)]
    #[serde(default = "Payload::null")]
    pub(crate) input: Payload,
    /// For finding it: at most 16.
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
    /// Idempotency key, in a batch; alone it is the header `Idempotency-Key`.
    #[serde(default)]
    pub(crate) key: Option<String>,
}

/// A saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SagaView {
    /// Its id, a `UUIDv7`.
    pub id: String,
    /// The name of its definition.
    pub definition: String,
    /// The definition that it is pinned to; empty when the saga could not be read.
    pub definition_digest: String,
    /// `running`, `waiting`, `paused`, `compensating`, `blocked`, `completed`, `compensated`
    /// or `abandoned`; the last three are ends. `quarantined` when it cannot be read or stepped, so
    /// that nothing touches it; `reason` says why.
    pub status: String,
    /// What it was given.
    #[schema(value_type = Object)]
    pub input: Payload,
    /// Of a completed saga: the output of its last step, or of each of its last steps by name.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Payload>,
    /// In the order of the definition.
    pub steps: Vec<StepView>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// When what has not completed is undone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline_at: Option<Timestamp>,
    /// When something is next due by the clock alone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// How many events it has; 0 in the answer to a start whose saga could not be read.
    pub version: u64,
    /// The caller's trace context.
    pub traceparent: Option<String>,
    /// The trace id of its calls: in each line of the log about them, and in the `traceparent` of their
    /// requests. Of the caller's trace context, else the saga's id without hyphens.
    #[serde(default)]
    pub trace_id: String,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// For finding it.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Why it is blocked, or why it is or was undone; of one that is to be undone and whose pivot is
    /// unknown, what comes first.
    pub reason: Option<String>,
    /// The last note that an operator had kept with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<NoteView>,
    /// The saga and step that started it, if a saga did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentView>,
}

/// What an operator had kept with a saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NoteView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who says it: a name that the host does not check, and an address.
    pub who: String,
    /// What.
    pub reason: String,
}

/// The step of another saga that started a saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ParentView {
    /// That saga.
    pub saga: String,
    /// Its step.
    pub step: String,
}

/// One step of a saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// `pending`, `waiting`, `running`, `backing_off`, `breaker_open`, `succeeded`, `failed`,
    /// `unknown`, `skipped`, `undoing`, `undo_backing_off`, `undone`, `undo_blocked` or
    /// `undo_skipped`.
    pub status: String,
    /// The direction of its last call: `execute` or `compensate`.
    pub direction: String,
    /// Attempts in that direction.
    pub attempts: u32,
    /// What its calls are given: computed from the saga as it is now, or what an operator gave with
    /// `retry`. In the answer to `GET /v1/sagas/{id}` only, for steps that were called or edited.
    #[schema(value_type = Option<Object>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// The input has no room in this answer, or took too long to compute.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub input_omitted: bool,
    /// What `execute` answered.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Payload>,
    /// What went wrong last.
    pub error: Option<ErrorView>,
    /// The component of its last call.
    pub digest: Option<String>,
    /// The idempotency key that its calls of `execute` carried; after its input was edited, the one of the
    /// calls since then. The saga's events have the key of each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The same of its undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_idempotency_key: Option<String>,
    /// When its first attempt began.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it last came to rest.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// When its next attempt is due, or when it stops waiting.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// The signal that it waits for, or waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The saga that it runs or ran, if it runs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// Who resolved or skipped the step or its undo; none once a call was made after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<ByHandView>,
    /// Its undo found nothing to undo.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undid_nothing: bool,
    /// What this answer has no room for: `output` and the `details` of `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<OmittedView>,
}

/// An operator who resolved or skipped a step.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ByHandView {
    /// Who: a name that the host does not check, and an address.
    pub who: String,
    /// Why.
    pub reason: String,
}

/// What an answer has no room for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OmittedView {
    /// How many bytes it has.
    pub bytes: usize,
    /// The path that has it.
    pub see: String,
}

/// What went wrong with a call.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ErrorView {
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// Anything else that the component kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub details: Option<Payload>,
}

/// A saga in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SagaItem {
    /// Its id.
    pub id: String,
    /// The name of its definition.
    pub definition: String,
    /// Where it stands; `quarantined` when nothing touches it.
    pub status: String,
    /// Why it is blocked or quarantined, or why it is or was undone.
    pub reason: Option<String>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// When what has not completed is undone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline_at: Option<Timestamp>,
    /// When something is next due by the clock alone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// For finding it.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// What it does or waits for, when it has not ended; only where `activity=true` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
}

/// One event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Its place in its stream, from 1.
    pub version: u64,
    /// Its place in the whole store.
    pub position: u64,
    /// When it was decided.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The saga whose event it is; absent for a plugin's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// The plugin whose event it is; absent for a saga's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// The service whose stream it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `saga.started`, `step.succeeded`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
    /// Of a domain event, in the history and the watch of one saga: the step whose call emitted it. Other
    /// events have it in `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Of `step.started` and `undo.started`, in the history and the watch of one saga: the idempotency
    /// key that the call carries, if it calls a component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// Why a saga is where it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WhyView {
    /// The saga.
    pub id: String,
    /// Where it stands.
    pub status: String,
    /// A few sentences. The first gives the reason.
    pub sentence: String,
    /// A sentence for each component that served calls which failed; at most three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// When a step goes on by the clock alone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// When what has not completed is undone; absent when that changes nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline_at: Option<Timestamp>,
    /// The operator's verbs that would change something.
    pub verbs: Vec<String>,
    /// The steps whose undo is due and has not begun: `skip` and `resolve` take it with `"undo": true`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undos: Vec<String>,
}

/// A definition in force.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DefinitionView {
    /// Its name.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// Its canonical form.
    #[schema(value_type = Object)]
    pub spec: Payload,
}

/// A plugin.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PluginView {
    /// Its name in the config.
    pub name: String,
    /// The component that serves it now.
    pub digest: Option<String>,
    /// That component's version.
    pub version: Option<String>,
    /// `execute`, `compensate`, `probe`.
    pub exports: Vec<String>,
    /// The capabilities that it needs.
    pub needs: Vec<String>,
    /// Since when it serves.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub active_since: Option<Timestamp>,
    /// Every component that served it, the latest first, and why it did.
    pub history: Vec<ActivationView>,
    /// Every component that was refused, the latest first.
    pub rejections: Vec<RejectionView>,
    /// The last component that was refused.
    pub last_rejection: Option<RejectionView>,
    /// Every component that served a share of the sagas, the latest first; one without `ended` does.
    pub canaries: Vec<CanaryView>,
}

/// A component that serves or served a share of the sagas.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CanaryView {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Which.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// The share of the sagas, in percent.
    pub share: f64,
    /// How much worse it may be than the active component, in percentage points.
    pub margin: f64,
    /// Calls that it is judged by at least.
    pub min_calls: u32,
    /// Calls after which it is promoted by itself.
    pub promote_after: Option<u32>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What came of its calls; while it runs, of those that this host made.
    pub calls: CallCountsView,
    /// What came of the active component's calls meanwhile.
    pub active_calls: CallCountsView,
    /// How it ended.
    pub ended: Option<CanaryEndView>,
}

/// What came of calls.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CallCountsView {
    /// All.
    pub total: u64,
    /// Those that did not succeed.
    pub failed: u64,
    /// Of those, the ones of unknown outcome: traps, limits, timeouts.
    pub unknown: u64,
}

/// How a canary ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CanaryEndView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Whether it serves all sagas since.
    pub promoted: bool,
    /// Who ended it; absent: the host by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A component that became active.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ActivationView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Which.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// What led to it: `file` in the plugin folder, an operator's `deploy` or `rollback`, or
    /// the promotion of a `canary`.
    pub cause: String,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A component that was refused.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RejectionView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Which; none when its file was not read: it is too large, or not there to be read.
    pub digest: Option<String>,
    /// Why.
    pub reason: String,
}

impl From<&State> for SagaView {
    fn from(state: &State) -> Self {
        let saga = &state.saga;
        let started = saga.started();
        let mut room = OUTPUTS_BYTES_MAX;
        let view = |step: EngineStep<'_>| {
            let keyed = StepView::from(step.clone()).with_keys(&step, saga.id());
            keyed.held_by(&state.stalls).within(&mut room, saga.id())
        };
        Self {
            id: saga.id().to_string(),
            definition: started.definition.to_string(),
            definition_digest: started.definition_digest.to_string(),
            status: saga.status().to_string(),
            input: started.input.clone(),
            output: saga.output(),
            steps: saga.steps().map(view).collect(),
            started_at: saga.started_at(),
            ended_at: saga.ended_at(),
            deadline_at: saga.deadline_at(),
            next_at: saga.wake_at().filter(|_| !saga.has_ended()),
            version: saga.version().0,
            traceparent: started.traceparent.clone(),
            trace_id: saga.trace_id(),
            key: started.key.clone(),
            tags: started.tags.clone(),
            reason: saga.reason().map(str::to_owned).or_else(|| pivot_first(saga)),
            note: saga.note().map(|note| NoteView {
                at: note.at,
                who: note.who.clone(),
                reason: note.reason.clone(),
            }),
            parent: started.parent.as_ref().map(|parent| ParentView {
                saga: parent.saga.to_string(),
                step: parent.step.to_string(),
            }),
        }
    }
}

impl SagaView {
    /// As [`Self::from`], with the input of each step that was called or edited. May take
    /// [`INPUTS_TIME_MAX`] and one input longer.
    pub(crate) fn with_inputs(state: &State) -> Self {
        let mut view = Self::from(state);
        let (began, mut room) = (Instant::now(), INPUTS_BYTES_MAX);
        for (step, view) in state.saga.steps().zip(&mut view.steps) {
            let is_edited = step.edited_input.is_some();
            if !is_edited && step.attempts == 0 {
                continue;
            }
            if began.elapsed() > INPUTS_TIME_MAX {
                view.input_omitted = true;
                continue;
            }
            let Some(input) = step_input(&state.saga, step.name) else { continue };
            match room.checked_sub(input.as_str().len()) {
                Some(left) => (room, view.input) = (left, Some(input)),
                None => view.input_omitted = true,
            }
        }
        view
    }

    /// A saga that was started and cannot be read: what is known without reading it. Version 0,
    /// which no saga has, tells it apart.
    pub(crate) fn unread(id: SagaId, request: StartRequest) -> Self {
        Self {
            id: id.to_string(),
            definition: request.definition,
            definition_digest: String::new(),
            status: SagaStatus::Running.to_string(),
            input: request.input,
            output: None,
            steps: Vec::new(),
            started_at: made_at(id),
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
            reason: None,
            note: None,
            parent: None,
        }
    }
}

/// When an id was made, moments before its saga began: the first 48 bits of a `UUIDv7` are the
/// milliseconds (RFC 9562, 5.7).
fn made_at(id: SagaId) -> Timestamp {
    let millis = id.as_bytes()[..6].iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte));
    Timestamp::from_millis(millis)
}

impl StepView {
    /// With the idempotency keys of the calls that it made.
    fn with_keys(self, step: &EngineStep<'_>, saga: SagaId) -> Self {
        if step.spec.plugin().is_none() {
            return self;
        }
        let key = |direction, attempts: u32, generation| {
            (attempts > 0).then(|| idempotency_key(saga, step.name, direction, generation))
        };
        let idempotency_key = key(Direction::Execute, step.attempts, step.generation);
        let undo_idempotency_key =
            key(Direction::Compensate, step.undo_attempts, step.undo_generation);
        Self { idempotency_key, undo_idempotency_key, ..self }
    }

    /// A step that waits for its service is told so: its events do not say.
    fn held_by(self, stalls: &[StallReason]) -> Self {
        let until = stalls.iter().find_map(|stall| match stall {
            StallReason::BreakerOpen { step, until, .. } if step.as_str() == self.name => {
                Some(until)
            }
            StallReason::BreakerOpen { .. }
            | StallReason::PluginMissing { .. }
            | StallReason::ComponentSought(_)
            | StallReason::NoRoom(_)
            | StallReason::Machine(_)
            | StallReason::StoreFailed(_) => None,
        });
        let Some(until) = until else { return self };
        let status = StepStatus::BreakerOpen.to_string();
        Self { status, next_at: *until, ..self }
    }

    /// Without what the answer has no more room for.
    fn within(mut self, room: &mut usize, saga: SagaId) -> Self {
        let details = self.error.as_ref().and_then(|error| error.details.as_ref());
        let payloads = [self.output.as_ref(), details].into_iter().flatten();
        let bytes = payloads.map(|payload| payload.as_str().len()).sum();
        if let Some(left) = room.checked_sub(bytes) {
            *room = left;
            return self;
        }
        self.output = None;
        if let Some(error) = &mut self.error {
            error.details = None;
        }
        let see = format!("/v1/sagas/{saga}/events");
        Self { omitted: Some(OmittedView { bytes, see }), ..self }
    }
}

impl From<EngineStep<'_>> for StepView {
    fn from(step: EngineStep<'_>) -> Self {
        let undone = step.undo_attempts > 0 || step.status == StepStatus::Undone;
        let (direction, attempts, digest) = if undone {
            (Direction::Compensate, step.undo_attempts, step.undo_digest)
        } else {
            (Direction::Execute, step.attempts, step.digest)
        };
        Self {
            name: step.name.to_string(),
            status: step.status.to_string(),
            direction: direction.as_str().to_owned(),
            attempts,
            input: None,
            input_omitted: false,
            output: step.output.cloned(),
            error: step.error.map(ErrorView::from),
            digest: digest.map(|digest| digest.to_string()),
            started_at: step.started_at,
            ended_at: step.ended_at,
            next_at: step.next_at,
            signal: match &step.spec.kind {
                StepKind::Wait { wait } => Some(wait.signal.to_string()),
                StepKind::Call { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => None,
            },
            child: step.child.map(|child| child.to_string()),
            undid_nothing: step.undid_nothing,
            by_hand: step.by_hand.map(|by_hand| ByHandView {
                who: by_hand.who.clone(),
                reason: by_hand.reason.clone(),
            }),
            idempotency_key: None,
            undo_idempotency_key: None,
            omitted: None,
        }
    }
}

impl From<&Failure> for ErrorView {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.code.clone(),
            message: failure.message.clone(),
            details: failure.details.clone(),
        }
    }
}

impl SagaItem {
    /// One whose row cannot be read.
    pub(crate) fn unread(id: SagaId) -> Self {
        Self {
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
            activity: None,
        }
    }
}

impl From<SagaRow> for SagaItem {
    fn from(row: SagaRow) -> Self {
        Self {
            id: row.id.to_string(),
            definition: row.definition.to_string(),
            status: row.status.to_string(),
            reason: row.reason,
            started_at: row.started_at,
            ended_at: row.ended_at,
            deadline_at: row.deadline_at,
            next_at: row.wake_at.filter(|_| row.ended_at.is_none()),
            key: row.key,
            tags: row.tags,
            activity: None,
        }
    }
}

impl From<StoredEvent> for EventView {
    fn from(event: StoredEvent) -> Self {
        let (saga, plugin, service) = match event.stream {
            Stream::Saga(id) => (Some(id.to_string()), None, None),
            Stream::Plugin(name) => (None, Some(name.to_string()), None),
            Stream::Service(name) => (None, None, Some(name.to_string())),
            // Its data names the plugins.
            Stream::Deploys => (None, None, None),
        };
        Self {
            version: event.version.0,
            position: event.position.0,
            at: event.at,
            saga,
            plugin,
            service,
            kind: event.kind,
            // The store gives back what the engine wrote; should it be damaged, it is shown as text.
            data: RawValue::from_string(event.data)
                .or_else(|error| serde_json::value::to_raw_value(&error.to_string()))
                .unwrap_or_default(),
            step: None,
            idempotency_key: None,
        }
    }
}

impl From<&Definition> for DefinitionView {
    fn from(definition: &Definition) -> Self {
        Self {
            name: definition.name().to_string(),
            digest: definition.digest().to_string(),
            spec: Payload::parse(&definition.canonical()).unwrap_or_else(|_| Payload::null()),
        }
    }
}

impl From<PluginInfo> for PluginView {
    fn from(info: PluginInfo) -> Self {
        Self {
            name: info.name.to_string(),
            digest: info.digest.map(|digest| digest.to_string()),
            version: info.version,
            exports: info.exports,
            needs: info.needs,
            active_since: info.active_since,
            history: info.history.into_iter().map(ActivationView::from).collect(),
            last_rejection: info.rejections.first().map(RejectionView::from),
            rejections: info.rejections.iter().map(RejectionView::from).collect(),
            canaries: info.canaries.into_iter().map(CanaryView::from).collect(),
        }
    }
}

impl From<CanaryInfo> for CanaryView {
    fn from(canary: CanaryInfo) -> Self {
        let CanaryInfo { digest, version, at, spec, who, reason, tally, ended } = canary;
        Self {
            at,
            digest: digest.to_string(),
            version,
            share: spec.share,
            margin: spec.margin,
            min_calls: spec.calls_min,
            promote_after: spec.promote_after,
            who,
            reason,
            calls: tally.canary.into(),
            active_calls: tally.active.into(),
            ended: ended.map(|end| CanaryEndView {
                at: end.at,
                promoted: end.is_promoted,
                who: end.who,
                reason: end.reason,
            }),
        }
    }
}

impl From<CallCounts> for CallCountsView {
    fn from(counts: CallCounts) -> Self {
        let CallCounts { calls: total, failed, unknown } = counts;
        Self { total, failed, unknown }
    }
}

impl From<Activation> for ActivationView {
    fn from(one: Activation) -> Self {
        let cause = match one.why.cause {
            Cause::File => "file",
            Cause::Deploy => "deploy",
            Cause::Rollback => "rollback",
            Cause::Canary => "canary",
        };
        Self {
            at: one.at,
            digest: one.digest.to_string(),
            version: one.version,
            cause: cause.to_owned(),
            who: one.why.who,
            reason: one.why.reason,
        }
    }
}

impl From<&RejectionRecord> for RejectionView {
    fn from(one: &RejectionRecord) -> Self {
        let digest = one.digest.map(|digest| digest.to_string());
        Self { at: one.at, digest, reason: one.reason.clone() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::sync::Arc;

    use amends_engine::{
        DefinitionSpec, Digest, Input, Outcome, PAYLOAD_BYTES_MAX, RetrySpec, Start, StepKind,
        StepSpec, decide_on,
    };

    use super::*;

    /// A saga of so many steps, each of which has answered as much as it may.
    fn large(steps: usize) -> State {
        let step = |number: usize| StepSpec {
            name: format!("step-{number}").parse().unwrap(),
            kind: StepKind::Call { plugin: "test".parse().unwrap(), service: None },
            after: Vec::new(),
            each: None,
            when: None,
            input: None,
            timeout: std::time::Duration::from_secs(1),
            retry: RetrySpec::default(),
            undo: None,
            pivot: false,
        };
        let definition = Definition::new(DefinitionSpec {
            name: "large".parse().unwrap(),
            deadline: None,
            compensate_within: None,
            steps: (0..steps).map(step).collect(),
        });
        let at = Timestamp::from_millis(1_000);
        let (mut saga, _) = amends_engine::start(
            at,
            Start {
                id: SagaId::from_parts(at, &[1; 10]),
                definition: Arc::new(definition.unwrap()),
                input: Payload::null(),
                key: None,
                tags: BTreeMap::new(),
                traceparent: None,
                parent: None,
            },
        );
        let output = Payload::parse(&format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 2)));
        for number in 0..steps {
            let (step, direction) = (format!("step-{number}"), Direction::Execute);
            let step = || step.parse().unwrap();
            let digest = Digest::of(b"test");
            let admit =
                Input::Admit { step: step(), direction, digest, note: None, is_trial: false };
            let outcome = Input::Outcome {
                step: step(),
                direction,
                attempt: 1,
                outcome: Outcome::Succeeded(output.clone().unwrap()),
                probe: None,
                emitted: Vec::new(),
            };
            for input in [admit, outcome] {
                assert!(decide_on(&mut saga, at, input).refused.is_none());
            }
        }
        State { saga, stalls: Vec::new() }
    }

    #[test]
    fn an_answer_has_room_for_some_outputs_and_says_where_the_others_are() {
        let fits = OUTPUTS_BYTES_MAX / PAYLOAD_BYTES_MAX;
        let state = large(fits + 3);
        let view = SagaView::from(&state);
        for (number, step) in view.steps.iter().enumerate() {
            assert_eq!(step.status, "succeeded");
            assert_eq!(step.output.is_some(), number < fits, "{number}");
            let omitted = step.omitted.as_ref().map(|it| (it.bytes, it.see.clone()));
            let see = format!("/v1/sagas/{}/events", view.id);
            assert_eq!(omitted, (number >= fits).then_some((PAYLOAD_BYTES_MAX, see)));
        }
        let answer = serde_json::to_vec(&view).unwrap();
        assert!(answer.len() < OUTPUTS_BYTES_MAX + (64 << 10), "{}", answer.len());
        // Of a saga whose outputs fit, nothing is said.
        let answer = serde_json::to_string(&SagaView::from(&large(fits))).unwrap();
        assert!(!answer.contains("omitted"));
    }
}
