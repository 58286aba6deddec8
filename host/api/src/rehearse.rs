//! What an undo would do otherwise than the one that serves: tried without any effect.

use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use amends_plugins::{COMPONENT_BYTES_MAX, StubAnswer};
use amends_runtime::{
    REHEARSAL_SAGAS_DEFAULT, REHEARSAL_SAGAS_MAX, REHEARSAL_TIME_MAX, Rehearsal, RehearsalGroup,
    RehearseError,
};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::problem::{Problem, Query};

/// The body of a request: a component, and the form around it.
pub(crate) const REHEARSE_BYTES_MAX: usize = COMPONENT_BYTES_MAX + (64 << 10);

/// On what to rehearse.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct RehearseQuery {
    /// Sagas at most, from 1 to 1,000; 100 when absent.
    sagas: Option<usize>,
}

/// What a rehearsal found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RehearsalView {
    /// The plugin.
    pub plugin: String,
    /// The component that was tried.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// The component that serves now.
    pub serving: String,
    /// Its version.
    pub serving_version: String,
    /// Sagas in flight, or that ended lately, with a step that the plugin undoes.
    pub sagas: usize,
    /// Of them, those in flight.
    pub sagas_in_flight: usize,
    /// Steps of them that the plugin has undone or would undo; of each saga the first ten.
    pub steps_found: usize,
    /// Of them, those that were rehearsed.
    pub steps: usize,
    /// Of them, those that cannot be: their input cannot be computed, or the component that would
    /// undo them now cannot be loaded.
    pub steps_passed_over: usize,
    /// Of those that were rehearsed, those at which a component sends requests.
    pub steps_with_requests: usize,
    /// Of those that were rehearsed, those at which something differs.
    pub steps_differing: usize,
    /// With what requests were answered, one rehearsal each: a status with the body `{}`, or
    /// `no answer`.
    pub answers: Vec<String>,
    /// What differs, the most frequent first.
    pub differences: Vec<DifferenceGroupView>,
    /// How many such there are; the first 50 are told.
    pub differences_total: usize,
    /// What was not compared, because the component that serves does not do it the same twice.
    pub left_out: Vec<LeftOutView>,
    /// What was running when the time was up; null when all was rehearsed.
    pub unfinished: Option<UnfinishedView>,
    /// How long the calls may take together.
    pub time_max_ms: u64,
}

/// Steps at which the same differs in the same way.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DifferenceGroupView {
    /// How many.
    pub steps: usize,
    /// Only with these answers to requests; empty: whatever is answered.
    pub answers: Vec<String>,
    /// One of the sagas.
    pub saga: String,
    /// Its step.
    pub step: String,
    /// What differs there: the first 20.
    pub differences: Vec<DifferenceView>,
    /// How many there are.
    pub differences_total: usize,
}

/// One thing that two components do otherwise.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DifferenceView {
    /// `outcome`, `request 1 body.reference`, `state stock/north/metformin`, `event 1`.
    pub what: String,
    /// What the component that serves does; null: nothing.
    pub old: Option<String>,
    /// What the other does; null: nothing.
    pub new: Option<String>,
}

/// What was not compared.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeftOutView {
    /// What, as in a difference; `*` stands for a word that is one saga's own.
    pub what: String,
    /// At how many steps.
    pub steps: usize,
}

/// A call that had not ended when the time was up.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UnfinishedView {
    /// Its saga.
    pub saga: String,
    /// Its step.
    pub step: String,
    /// Whether the component that is tried was running; else the one that serves.
    pub is_new: bool,
}

/// Runs the undo of a component, and that of the one that serves, on what sagas have recorded. The
/// network is stubbed and state is thrown away: nothing is changed. One part of the form, under the
/// name of its plugin.
#[utoipa::path(post, path = "/v1/plugins:rehearse", tag = "plugins",
    params(RehearseQuery,
        ("amends-request" = String, Header, description = "any value: the form of a web page cannot send it")),
    request_body(content_type = "multipart/form-data",
        description = "a component, under the name of its plugin"),
    responses((status = 200, body = RehearsalView), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 429, body = Problem),
        (status = "default", body = Problem)))]
pub(crate) async fn rehearse(
    State(state): State<ApiState>,
    query: Result<Query<RehearseQuery>, Problem>,
    request: Request,
) -> Result<Json<RehearsalView>, Problem> {
    // There is one rehearsal at a time as well, but deploys need not wait for it.
    let mut components = state.uploads.receive(request).await?.into_components();
    let Query(query) = query?;
    let sagas = query.sagas.unwrap_or(REHEARSAL_SAGAS_DEFAULT);
    if !(1..=REHEARSAL_SAGAS_MAX).contains(&sagas) {
        let detail = format!("sagas = {sagas}, it is from 1 to {REHEARSAL_SAGAS_MAX}");
        return Err(Problem::new(400, "bad_query", detail));
    }
    let (Some((plugin, bytes)), true) = (components.pop(), components.is_empty()) else {
        return Err(Problem::new(400, "bad_form", "there are several components in the form")
            .with_remedy("rehearse them one after the other"));
    };
    let rehearsal = state.runtime.rehearse(plugin, bytes, sagas).await?;
    Ok(Json(rehearsal.into()))
}

impl From<RehearseError> for Problem {
    fn from(error: RehearseError) -> Self {
        let detail = error.to_string();
        match error {
            RehearseError::Rejected { .. } => Self::new(409, "component_refused", detail),
            RehearseError::NoPlugin(_) => Self::new(404, "plugin_unknown", detail)
                .with_remedy("GET /v1/plugins lists the plugins of this host"),
            RehearseError::NothingServes(_) => Self::new(409, "nothing_serves", detail)
                .with_remedy("deploy it: amends plugin deploy, with --dry-run to look first"),
            RehearseError::NoUndo => Self::new(409, "no_undo", detail)
                .with_remedy("hand in a component of the world `step` or `undo-only`"),
            RehearseError::Busy => Self::new(429, "rehearsal_running", detail)
                .with_remedy("try again when it has ended"),
            RehearseError::BrokenOff => Self::new(503, "rehearsal_broken_off", detail),
            RehearseError::Runtime(error) => error.into(),
        }
    }
}

impl From<Rehearsal> for RehearsalView {
    fn from(found: Rehearsal) -> Self {
        let left_out = found.left_out.into_iter();
        Self {
            plugin: found.plugin.to_string(),
            digest: found.digest.to_string(),
            version: found.version,
            serving: found.serving.to_string(),
            serving_version: found.serving_version,
            sagas: found.sagas,
            sagas_in_flight: found.sagas_in_flight,
            steps_found: found.steps_found,
            steps: found.steps,
            steps_passed_over: found.steps_passed_over,
            steps_with_requests: found.steps_with_requests,
            steps_differing: found.steps_differing,
            answers: words(&StubAnswer::ALL),
            differences: found.groups.into_iter().map(DifferenceGroupView::from).collect(),
            differences_total: found.groups_total,
            left_out: left_out.map(|(what, steps)| LeftOutView { what, steps }).collect(),
            unfinished: found.unfinished.map(|one| UnfinishedView {
                saga: one.saga.to_string(),
                step: one.step.to_string(),
                is_new: one.is_new,
            }),
            time_max_ms: u64::try_from(REHEARSAL_TIME_MAX.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

fn words(answers: &[StubAnswer]) -> Vec<String> {
    answers.iter().map(ToString::to_string).collect()
}

impl From<RehearsalGroup> for DifferenceGroupView {
    fn from(group: RehearsalGroup) -> Self {
        let differences = group.differences.into_iter();
        Self {
            steps: group.steps,
            answers: words(&group.answers),
            saga: group.saga.to_string(),
            step: group.step.to_string(),
            differences: differences
                .map(|one| DifferenceView { what: one.what, old: one.old, new: one.new })
                .collect(),
            differences_total: group.differences_total,
        }
    }
}
