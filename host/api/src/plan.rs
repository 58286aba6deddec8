//! What stands, and what a compensation would do about it: undo plan, exposure, breakers.

use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::{Effect, Payload, Timestamp, exposure};
use amends_runtime::{BreakerInfo, ExposureError, OnOpen, Planned};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::ids::parse_id;
use crate::page::Page;
use crate::problem::{Path, Problem};
use crate::saga_lookup::{find, unknown};

/// One undo that a compensation would run now.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PlannedView {
    /// The step.
    pub step: String,
    /// From 1: undos of one wave run in parallel, each wave after the one before.
    pub wave: usize,
    /// The plugin that undoes it; none: the saga that it ran is compensated.
    pub plugin: Option<String>,
    /// The saga that it ran.
    pub child: Option<String>,
    /// The component that would serve it.
    pub digest: Option<String>,
    /// Why that one, when it is not the active one.
    pub note: Option<String>,
    /// What it is given.
    #[schema(value_type = Option<Object>)]
    pub input: Option<Payload>,
    /// What the step answered; none: nobody knows whether it happened.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Payload>,
    /// Where the step stands now.
    pub status: String,
}

/// An effect that stands or may stand.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EffectView {
    /// The step.
    pub step: String,
    /// False: nobody knows whether it stands.
    pub is_certain: bool,
    /// Whether the definition has an undo for it.
    pub has_undo: bool,
    /// What the step answered.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Payload>,
}

/// Effects of sagas that have not completed, summed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExposureItem {
    /// The definition.
    pub definition: String,
    /// The step.
    pub step: String,
    /// Sagas in which its effect stands.
    pub standing: u64,
    /// Sagas in which it may stand.
    pub unknown: u64,
    /// Of both, those of sagas that are blocked.
    pub blocked: u64,
    /// Of both, those of sagas that were abandoned.
    pub abandoned: u64,
}

/// A circuit breaker.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BreakerView {
    /// The service.
    pub service: String,
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// Failures in a row.
    pub failures: u32,
    /// It opens after this many; null when they do not open it.
    pub failures_max: Option<u32>,
    /// When so many of the calls of the last seconds failed, it opens; null when that does not.
    pub rate: Option<BreakerRateView>,
    /// Until when no call begins, while it is open.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub open_until: Option<Timestamp>,
    /// How long it stays open.
    pub open_for_ms: u64,
    /// How many calls then try, and must succeed to close it.
    pub half_open: u32,
    /// `wait` or `fail`.
    pub on_open: String,
    /// The last failure.
    pub last_error: Option<String>,
    /// Who opened it by hand, while it is open for that. Without `open_until` it stays open until somebody
    /// closes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_reason: Option<String>,
}

/// The failure rate of a circuit breaker.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BreakerRateView {
    /// Calls that ended within the window.
    pub calls: u32,
    /// Of them, those that failed.
    pub calls_failed: u32,
    /// It opens when this part of them failed: more than 0, at most 1.
    pub failure_rate: f64,
    /// How long the window is.
    pub window_ms: u64,
    /// How many calls it takes to open it.
    pub calls_min: u32,
}

/// The undo calls that a compensation would make now, in their order.
#[utoipa::path(get, path = "/v1/sagas/{id}/undo-plan", tag = "operators",
    params(("id" = String, Path)),
    responses((status = 200, body = Page<PlannedView>), (status = "default", body = Problem)))]
pub(crate) async fn undo_plan(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Page<PlannedView>>, Problem> {
    let id = parse_id(&id)?;
    let plan = state.runtime.undo_plan(id).await?.ok_or_else(|| unknown(&id.to_string()))?;
    let items = plan.into_iter().map(PlannedView::from).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// The effects of a saga that stand or may stand now.
#[utoipa::path(get, path = "/v1/sagas/{id}/exposure", tag = "operators",
    params(("id" = String, Path)),
    responses((status = 200, body = Page<EffectView>), (status = "default", body = Problem)))]
pub(crate) async fn of_saga(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Page<EffectView>>, Problem> {
    let found = find(&state, &id).await?;
    let items = exposure(&found.saga).into_iter().map(EffectView::from).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// The effects that stand or may stand of all sagas that have not completed: those that go on,
/// are being undone, are blocked, or were abandoned. 503 while a host that was started lately still
/// counts the abandoned ones.
#[utoipa::path(get, path = "/v1/exposure", tag = "operators",
    responses((status = 200, body = Page<ExposureItem>), (status = "default", body = Problem)))]
pub(crate) async fn of_all(
    State(state): State<ApiState>,
) -> Result<Json<Page<ExposureItem>>, Problem> {
    let sums = state.runtime.exposure().await?.into_iter();
    let items = sums.map(|((definition, step), exposure)| ExposureItem {
        definition: definition.to_string(),
        step: step.to_string(),
        standing: exposure.standing,
        unknown: exposure.unknown,
        blocked: exposure.blocked,
        abandoned: exposure.abandoned,
    });
    Ok(Json(Page { items: items.collect(), next_cursor: None }))
}

impl From<ExposureError> for Problem {
    fn from(error: ExposureError) -> Self {
        let detail = error.to_string();
        match error {
            ExposureError::Counting { .. } => Self::new(503, "exposure_counting", detail)
                .with_remedy("try again: what was counted is remembered"),
            ExposureError::Store(error) => error.into(),
        }
    }
}

/// Lists the circuit breakers.
#[utoipa::path(get, path = "/v1/breakers", tag = "operators",
    responses((status = 200, body = Page<BreakerView>)))]
pub(crate) async fn breakers(State(state): State<ApiState>) -> Json<Page<BreakerView>> {
    let items = state.runtime.breakers().into_iter().map(BreakerView::from).collect();
    Json(Page { items, next_cursor: None })
}

impl From<Planned> for PlannedView {
    fn from(planned: Planned) -> Self {
        let undo = planned.undo;
        Self {
            step: undo.step.to_string(),
            wave: undo.wave,
            plugin: undo.plugin.map(|plugin| plugin.to_string()),
            child: undo.child.map(|child| child.to_string()),
            digest: planned.digest.map(|digest| digest.to_string()),
            note: planned.note,
            input: undo.input,
            output: undo.output,
            status: undo.status.to_string(),
        }
    }
}

impl From<Effect> for EffectView {
    fn from(effect: Effect) -> Self {
        Self {
            step: effect.step.to_string(),
            is_certain: effect.is_certain,
            has_undo: effect.has_undo,
            output: effect.output,
        }
    }
}

impl From<BreakerInfo> for BreakerView {
    fn from(breaker: BreakerInfo) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let rate = breaker.settings.rate.zip(breaker.counted);
        let by_hand = breaker.by_hand.map(|by_hand| (by_hand.who, by_hand.reason));
        let (opened_by, opened_reason) = by_hand.unzip();
        Self {
            service: breaker.service.to_string(),
            state: breaker.state.to_owned(),
            failures: breaker.failures,
            failures_max: breaker.settings.failures,
            rate: rate.map(|(rate, (calls, calls_failed))| BreakerRateView {
                calls,
                calls_failed,
                failure_rate: rate.failure_rate,
                window_ms: millis(rate.window),
                calls_min: rate.calls_min,
            }),
            open_until: breaker.open_until,
            open_for_ms: millis(breaker.settings.open_for),
            half_open: breaker.settings.half_open,
            on_open: match breaker.settings.on_open {
                OnOpen::Wait => "wait".to_owned(),
                OnOpen::Fail => "fail".to_owned(),
            },
            last_error: breaker.last_error,
            opened_by,
            opened_reason,
        }
    }
}
