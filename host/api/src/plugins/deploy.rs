//! Deploys: components that become active, all of them or none.

use axum::extract::{Request, State};
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{DeployView, DeployedView, FlawView, MisfitView, UnreadableView};
use amends_registry::CanarySpec;
use amends_runtime::{DeployError, DeployRequest, Deployed, FoundFlaw, Impact, Unreadable};
use amends_sandbox::COMPONENT_BYTES_MAX;

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::Query;
use crate::files::ComponentForm;
use crate::legible::legible;

/// The body of a deploy has at most this many bytes: a few of the largest components, or many small ones.
pub(crate) const DEPLOY_BYTES_MAX: usize = 4 * COMPONENT_BYTES_MAX;

/// How to deploy.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeployQuery {
    /// Whether to only say what the deploy would change.
    #[serde(default)]
    dry_run: bool,
    /// Whether to deploy even if sagas in flight have recorded what a component cannot read, or definitions do
    /// not fit it. This needs a reason.
    #[serde(default)]
    force: bool,
    /// Why. The host keeps the reason and who asked in the history of the plugins.
    reason: Option<String>,
    /// Makes the component a canary: it serves this share of the sagas, in percent, beside the active one.
    canary: Option<f64>,
    /// For a canary: the host takes it back when its rate of failed calls, or of calls of unknown outcome, is
    /// more than this many percentage points above the active component's; 5 when absent.
    margin: Option<f64>,
    /// For a canary: the host judges it by at least this many calls; 100 when absent.
    min_calls: Option<u32>,
    /// For a canary: the host promotes it after this many calls; when absent, an operator has to.
    promote_after: Option<u32>,
}

/// Activates components, all of them or none. The form has one part for each, under the name of its plugin.
#[utoipa::path(post, path = "/v1/plugins:deploy", operation_id = "deploy_plugins", tag = "plugins",
    security(("token" = ["deploy"])),
    params(
        DeployQuery,
        ("amends-request" = String, Header, description = "any value: the form of a web page cannot send it"),
        ("amends-user" = Option<String>, Header)),
    request_body(
        content = inline(ComponentForm),
        content_type = "multipart/form-data",
        description = "one part for each component, under the name of its plugin"),
    responses((status = 200, body = DeployView, description = "What the deploy did, or would do.")))]
pub(crate) async fn deploy(
    State(state): State<ApiState>,
    caller: Caller,
    query: Result<Query<DeployQuery>, ApiError>,
    request: Request,
) -> Result<Json<DeployView>, ApiError> {
    // Before anything else is looked at: a client that is still sending hears no refusal.
    let mut upload = state.uploads.receive(request).await?;
    let components = std::mem::take(&mut upload.components);
    let Query(query) = query?;
    let DeployQuery { dry_run: is_dry_run, force: is_forced, .. } = query;
    let canary = query.canary()?;
    let reason = query.reason.filter(|reason| !reason.trim().is_empty());
    let reason = reason.map(|reason| legible("the reason", reason)).transpose()?;
    if is_forced && reason.is_none() {
        return Err(ApiError::new(400, "reason_missing", "what is forced needs a reason")
            .with_remedy("say why: it is kept in the history of the plugin"));
    }
    if canary.is_some() && components.len() > 1 {
        return Err(ApiError::new(
            400,
            "bad_canary",
            "a canary is one component, and there are more",
        )
        .with_remedy("deploy the others to all sagas, or one after the other"));
    }
    let request = DeployRequest { components, reason, is_forced, is_dry_run, canary };
    let deployed =
        state.host.deploy(caller.principal(), request).await.map_err(|error| match error {
            DeployError::Rejected { .. } => {
                ApiError::new(409, "component_refused", error.to_string())
            }
            DeployError::Doubtful { .. } => {
                ApiError::new(409, "deploy_doubtful", error.to_string())
                    .with_remedy("name the plugin that is meant, or force it, with a reason")
            }
            DeployError::Plugin(error) => error.into(),
        })?;
    let components = deployed.into_iter().map(deployed_view).collect();
    let (activated, canary) = (!is_dry_run && canary.is_none(), !is_dry_run && canary.is_some());
    Ok(Json(DeployView { activated, canary, components }))
}

impl DeployQuery {
    fn canary(&self) -> Result<Option<CanarySpec>, ApiError> {
        let Some(share) = self.canary else {
            let given = [
                ("margin", self.margin.is_some()),
                ("min_calls", self.min_calls.is_some()),
                ("promote_after", self.promote_after.is_some()),
            ];
            let stray = given.into_iter().find(|(_, is_given)| *is_given);
            return stray.map_or(Ok(None), |(key, _)| {
                Err(ApiError::new(400, "bad_canary", format!("`{key}` goes with `canary`"))
                    .with_remedy("say which share of the sagas it serves: canary=10"))
            });
        };
        CanarySpec::new(share, self.margin, self.min_calls, self.promote_after)
            .map(Some)
            .map_err(|wrong| ApiError::new(400, "bad_canary", wrong))
    }
}

fn deployed_view(deployed: Deployed) -> DeployedView {
    let Deployed { plugin, digest, version, previous, impact, refusal } = deployed;
    let Impact { definitions, sagas, to_undo, unreadable, unreadable_total, misfits, flaws } =
        impact;
    DeployedView {
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
        unreadable: unreadable.into_iter().map(unreadable_view).collect(),
        unreadable_total,
        flaws: flaws.into_iter().map(flaw_view).collect(),
        refusal,
    }
}

fn flaw_view(found: FoundFlaw) -> FlawView {
    let FoundFlaw { definition, is_older, refuses, flaw } = found;
    let key = match flaw.field {
        Some(field) => format!("{}.{field}", flaw.key),
        None => flaw.key.to_owned(),
    };
    let (step, message, help) = (flaw.step.to_string(), flaw.message, flaw.remedy);
    FlawView { definition: definition.to_string(), is_older, step, key, refuses, message, help }
}

fn unreadable_view(one: Unreadable) -> UnreadableView {
    UnreadableView {
        saga: one.saga.to_string(),
        step: one.step.to_string(),
        why: one.why,
        executed_by: one.executed_by.map(|digest| digest.to_string()),
    }
}
