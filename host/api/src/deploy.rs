//! Components that are handed in, all or none.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use amends_plugins::{COMPONENT_BYTES_MAX, CanarySpec};
use amends_runtime::{DeployError, DeployRequest, Deployed, FoundFlaw, Impact, Unreadable};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::plugins::plugin_problem;
use crate::problem::{Problem, Query, legible};
use crate::requester::who;

/// The body of a request: a few of the largest, or many that are small.
pub(crate) const DEPLOY_BYTES_MAX: usize = 4 * COMPONENT_BYTES_MAX;

/// How to deploy.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeployQuery {
    /// Only says what it would change.
    #[serde(default)]
    dry_run: bool,
    /// Also when sagas in flight have recorded what a component cannot read, or definitions do not fit
    /// it; then with a reason.
    #[serde(default)]
    force: bool,
    /// Kept in the history of the plugins, with who asked.
    reason: Option<String>,
    /// Have the component serve this share of the sagas, in percent, beside the active one: a canary.
    canary: Option<f64>,
    /// Of a canary: it is taken back when its rate of failed calls, or of calls of unknown outcome, is
    /// more than so many percentage points above the active component's; 5 when absent.
    margin: Option<f64>,
    /// Of a canary: calls that it is judged by at least; 100 when absent.
    min_calls: Option<u32>,
    /// Of a canary: it serves all sagas after so many calls; when absent, an operator has to say so.
    promote_after: Option<u32>,
}

/// What a deploy changes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeployView {
    /// Whether they serve now; false of a dry run.
    pub activated: bool,
    /// Whether it serves a share of the sagas, beside the active one.
    pub canary: bool,
    /// Each component.
    pub components: Vec<DeployedView>,
}

/// One component of a deploy.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeployedView {
    /// The plugin.
    pub plugin: String,
    /// The component.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// What served before.
    pub previous: Option<String>,
    /// Definitions with a step that the plugin executes or undoes.
    pub definitions: Vec<String>,
    /// Sagas in flight of them.
    pub sagas: usize,
    /// Steps of sagas in flight that would be undone by it.
    pub to_undo: usize,
    /// Where outputs of the component that served before do not fit its schema.
    pub misfits: Vec<MisfitView>,
    /// Recorded outputs of sagas in flight that it cannot read: the first hundred.
    pub unreadable: Vec<UnreadableView>,
    /// All of them.
    pub unreadable_total: usize,
    /// What in the definitions does not fit the component, or may not; as `amends check` says.
    #[serde(default)]
    pub flaws: Vec<FlawView>,
    /// Of a dry run: why it would be refused. Absent when it would be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// What in a definition does not fit a component, or may not.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FlawView {
    /// The definition.
    pub definition: String,
    /// Whether it is not in force any more; sagas in flight are pinned to it.
    pub is_older: bool,
    /// The step.
    pub step: String,
    /// The key in the step's table: `input`, or `input.drug` for a field of it.
    pub key: String,
    /// Whether the component is refused for it, unless it is forced; else it is a warning.
    pub refuses: bool,
    /// What does not fit.
    pub message: String,
    /// What would be right.
    pub help: String,
}

/// Where outputs do not fit.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MisfitView {
    /// Whether none fits; else some may not.
    pub is_certain: bool,
    /// What the component does and the output is not: `needs `id`, which is not in it`.
    pub message: String,
}

/// A recorded output that a component cannot read.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UnreadableView {
    /// The saga.
    pub saga: String,
    /// Its step.
    pub step: String,
    /// Why not.
    pub why: String,
    /// The component that executed the step, to which its undo stays pinned.
    pub executed_by: Option<String>,
}

/// Has components serve, all or none: one part of the form each, under the name of its plugin.
#[utoipa::path(post, path = "/v1/plugins:deploy", tag = "plugins",
    params(DeployQuery,
        ("amends-request" = String, Header, description = "any value: the form of a web page cannot send it"),
        ("amends-user" = Option<String>, Header, description = "who asks, kept with the address")),
    request_body(content_type = "multipart/form-data",
        description = "a component each, under the name of its plugin"),
    responses((status = 200, body = DeployView), (status = 409, body = Problem),
        (status = "default", body = Problem)))]
pub(crate) async fn deploy(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    query: Result<Query<DeployQuery>, Problem>,
    request: Request,
) -> Result<Json<DeployView>, Problem> {
    let who = who(request.headers(), peer);
    // Before anything else is looked at: a client that is still sending hears no refusal.
    let mut upload = state.uploads.receive(request).await?;
    let components = std::mem::take(&mut upload.components);
    let Query(query) = query?;
    let DeployQuery { dry_run: is_dry_run, force: is_forced, .. } = query;
    let canary = query.canary()?;
    let reason = query.reason.filter(|reason| !reason.trim().is_empty());
    let reason = reason.map(|reason| legible("the reason", reason)).transpose()?;
    if is_forced && reason.is_none() {
        return Err(Problem::new(400, "reason_missing", "what is forced needs a reason")
            .with_remedy("say why: it is kept in the history of the plugin"));
    }
    if canary.is_some() && components.len() > 1 {
        return Err(Problem::new(
            400,
            "bad_canary",
            "a canary is one component, and there are more",
        )
        .with_remedy("deploy the others to all sagas, or one after the other"));
    }
    let who = who?;
    let request = DeployRequest { components, who, reason, is_forced, is_dry_run, canary };
    let deployed = state.runtime.deploy(request).await.map_err(|error| match error {
        DeployError::Rejected { .. } => Problem::new(409, "component_refused", error.to_string()),
        DeployError::Doubtful { .. } => Problem::new(409, "deploy_doubtful", error.to_string())
            .with_remedy("name the plugin that is meant, or force it, with a reason"),
        DeployError::Plugin(error) => plugin_problem(&error),
    })?;
    let components = deployed.into_iter().map(DeployedView::from).collect();
    let (activated, canary) = (!is_dry_run && canary.is_none(), !is_dry_run && canary.is_some());
    Ok(Json(DeployView { activated, canary, components }))
}

impl DeployQuery {
    fn canary(&self) -> Result<Option<CanarySpec>, Problem> {
        let Some(share) = self.canary else {
            let given = [
                ("margin", self.margin.is_some()),
                ("min_calls", self.min_calls.is_some()),
                ("promote_after", self.promote_after.is_some()),
            ];
            let stray = given.into_iter().find(|(_, is_given)| *is_given);
            return stray.map_or(Ok(None), |(key, _)| {
                Err(Problem::new(400, "bad_canary", format!("`{key}` goes with `canary`"))
                    .with_remedy("say which share of the sagas it serves: canary=10"))
            });
        };
        CanarySpec::new(share, self.margin, self.min_calls, self.promote_after)
            .map(Some)
            .map_err(|wrong| Problem::new(400, "bad_canary", wrong))
    }
}

impl From<Deployed> for DeployedView {
    fn from(deployed: Deployed) -> Self {
        let Deployed { plugin, digest, version, previous, impact, refusal } = deployed;
        let Impact { definitions, sagas, to_undo, unreadable, unreadable_total, misfits, flaws } =
            impact;
        Self {
            plugin: plugin.to_string(),
            digest: digest.to_string(),
            version,
            previous: previous.map(|previous| previous.to_string()),
            definitions: definitions.iter().map(ToString::to_string).collect(),
            sagas,
            to_undo,
            misfits: misfits
                .into_iter()
                .map(|one| MisfitView { is_certain: one.is_certain, message: one.message })
                .collect(),
            unreadable: unreadable.into_iter().map(UnreadableView::from).collect(),
            unreadable_total,
            flaws: flaws.into_iter().map(FlawView::from).collect(),
            refusal,
        }
    }
}

impl From<FoundFlaw> for FlawView {
    fn from(found: FoundFlaw) -> Self {
        let FoundFlaw { definition, is_older, refuses, flaw } = found;
        let key = match flaw.field {
            Some(field) => format!("{}.{field}", flaw.key),
            None => flaw.key.to_owned(),
        };
        let (step, message, help) = (flaw.step.to_string(), flaw.message, flaw.remedy);
        Self { definition: definition.to_string(), is_older, step, key, refuses, message, help }
    }
}

impl From<Unreadable> for UnreadableView {
    fn from(one: Unreadable) -> Self {
        Self {
            saga: one.saga.to_string(),
            step: one.step.to_string(),
            why: one.why,
            executed_by: one.executed_by.map(|digest| digest.to_string()),
        }
    }
}
