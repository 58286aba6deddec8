//! How the rules for events stand.

use axum::extract::State;

use amends_api_types::{EventRuleView, Page};
use amends_runtime::{EventEffect, EventOrigin, EventRuleStatus};

use crate::answer::Json;
use crate::api_state::ApiState;

/// Lists the rules for events, in the order of the config.
#[utoipa::path(get, path = "/v1/on", operation_id = "list_event_rules", tag = "operators",
    security(("token" = ["read"])),
    responses((status = 200, body = Page<EventRuleView>, description = "The rules for events.")))]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Page<EventRuleView>> {
    let items = state.host.event_rules().into_iter().map(event_rule_view).collect();
    Json(Page { items, next_cursor: None })
}

fn event_rule_view(status: EventRuleStatus) -> EventRuleView {
    let EventRuleStatus { rule, counts, last_error, is_away } = status;
    let (from, is_signed) = match &rule.origin {
        EventOrigin::Webhook(secrets) => ("webhook".to_owned(), !secrets.is_empty()),
        EventOrigin::Log => ("events".to_owned(), false),
        EventOrigin::Nats(source) => (source.to_string(), false),
    };
    let (start, signal) = match &rule.effect {
        EventEffect::Start(start) => (Some(start.definition.to_string()), None),
        EventEffect::Signal(signal) => (None, Some(signal.name.to_string())),
    };
    let (last_error, last_error_at) = last_error.unzip();
    EventRuleView {
        name: rule.name.clone(),
        event: rule.event.to_string(),
        state: if is_away { "away" } else { "active" }.to_owned(),
        from,
        is_signed,
        start,
        signal,
        events: counts.total(),
        started: counts.started,
        repeated: counts.repeated,
        signalled: counts.signalled,
        ignored: counts.ignored,
        refused: counts.refused,
        failed: counts.failed,
        last_error,
        last_error_at,
    }
}
