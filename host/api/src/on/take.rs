//! Takes the events that another system sends.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};

use amends_api_types::{EventTakenItem, EventsTakenView};
use amends_runtime::{
    CLOUD_EVENT, EventOrigin, EventRule, EventTaken, EventsError, Permission, SignatureHeaders,
    now, verify_signature,
};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::{BODY_BYTES_MAX, HeldBytes, read, refuse};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::Path;
use crate::namespaces::names_no_namespace;
use crate::on::delivery::{Mode, events_of, mode_of};
use crate::sagas::start_request::traceparent;

/// Takes events of another system: each starts its saga, or becomes a signal, once, however often it comes.
///
/// The body is a CloudEvent in JSON, a batch of up to 256, or, for a rule without secrets, the data of one whose
/// attributes are headers. The answer comes when what the events do is durable. After another answer than 202
/// the sender may send all of them again.
#[utoipa::path(post, path = "/v1/on/{name}", operation_id = "take_events", tag = "sagas",
    security((), ("token" = ["start"])),
    params(
        ("name" = String, Path, description = "The name of the rule."),
        ("webhook-id" = Option<String>, Header, description = "of Standard Webhooks, as the next two"),
        ("webhook-timestamp" = Option<String>, Header, description = "at most five minutes ago"),
        ("webhook-signature" = Option<String>, Header, description = "by a secret of the rule")),
    request_body(content = String, content_type = "application/cloudevents+json"),
    responses((status = 202, body = EventsTakenView, description = "What became of each event.")))]
pub(crate) async fn take(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, Json<EventsTakenView>), ApiError> {
    let mode = match mode_of(request.headers()) {
        Ok(mode) => mode,
        Err(problem) => return Err(refuse(request, problem).await),
    };
    let is_of_none = names_no_namespace(&request);
    let rule = state.host.event_rule(&name).filter(|_| !is_of_none);
    // A signature says who sends the events. Without one, a token does.
    let allowed = if rule.as_deref().is_some_and(is_signed) {
        Ok(())
    } else {
        caller.require([Permission::Start].into_iter().collect())
    };
    if let Err(problem) = allowed {
        return Err(refuse(request, problem).await);
    }
    let Some(rule) = rule.filter(|rule| matches!(rule.origin, EventOrigin::Webhook(_))) else {
        return Err(refuse(request, unknown(&name)).await);
    };
    if let Err(problem) = check_mode(&rule, mode) {
        let problem = refuse(request, problem).await;
        return Err(refused(&state, &rule, problem));
    }
    let headers = request.headers().clone();
    // The body and the events that are read from it keep their room until the answer.
    let _held = request.extensions().get::<HeldBytes>().cloned();
    let body = match read(request, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(problem) => return Err(refused(&state, &rule, problem)),
    };
    if let Err(problem) = check_signature(&rule, &headers, &body) {
        return Err(refused(&state, &rule, problem));
    }
    let events = match events_of(mode, &headers, &body) {
        Ok(events) => events,
        Err(problem) => return Err(refused(&state, &rule, problem)),
    };
    let mut items: Vec<_> = events
        .iter()
        .map(|event| EventTakenItem {
            id: event.id().to_owned(),
            source: event.source().to_owned(),
            result: String::new(),
            saga: None,
        })
        .collect();
    let sender = caller.holder.is_some().then(|| caller.principal());
    let taken = state.host.take_events(&rule, events, traceparent(&headers), sender).await;
    let taken = taken.map_err(|error| problem_of(error, items.len()))?;
    for (item, taken) in items.iter_mut().zip(taken) {
        let (result, saga) = match taken {
            EventTaken::Started { saga, is_new: true } => ("started", Some(saga)),
            EventTaken::Started { saga, is_new: false } => ("repeated", Some(saga)),
            EventTaken::Signalled(saga) => ("signalled", Some(saga)),
            EventTaken::Ignored => ("ignored", None),
        };
        result.clone_into(&mut item.result);
        item.saga = saga.map(|saga| saga.to_string());
    }
    Ok((StatusCode::ACCEPTED, Json(EventsTakenView { items })))
}

fn unknown(name: &str) -> ApiError {
    let detail = format!("there is no rule `{name}` that takes events over HTTP");
    ApiError::new(404, "rule_unknown", detail)
        .with_remedy("GET /v1/on lists the rules of this host")
}

/// Counts a delivery that is refused before its events are looked at.
fn refused(state: &ApiState, rule: &EventRule, problem: ApiError) -> ApiError {
    let problem = problem.into_problem();
    state.host.refuse_events(rule, &problem.detail);
    problem.into()
}

/// Whether the senders of a rule have to sign.
fn is_signed(rule: &EventRule) -> bool {
    matches!(&rule.origin, EventOrigin::Webhook(secrets) if !secrets.is_empty())
}

/// A signature covers the body and no attribute in a header. With other attributes in the headers, one signed
/// request would be any number of events.
fn check_mode(rule: &EventRule, mode: Mode) -> Result<(), ApiError> {
    if mode != Mode::Binary || !is_signed(rule) {
        return Ok(());
    }
    let detail = "a signature covers the body alone, and the attributes of this event are headers";
    Err(ApiError::new(415, "not_signed", detail).with_remedy(format!(
        "send content-type: {CLOUD_EVENT}: then the signature covers the whole event"
    )))
}

fn check_signature(rule: &EventRule, headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
    let secrets = match &rule.origin {
        EventOrigin::Webhook(secrets) => secrets.as_slice(),
        EventOrigin::Log | EventOrigin::Nats(_) => return Ok(()),
    };
    if secrets.is_empty() {
        return Ok(());
    }
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let signature = SignatureHeaders {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
    };
    verify_signature(secrets, signature, body, now()).map_err(|error| {
        ApiError::new(401, "signature_wrong", error.to_string())
            .with_remedy("sign each request as Standard Webhooks has it, when it is sent")
    })
}

fn problem_of(EventsError { index, error }: EventsError, events: usize) -> ApiError {
    let problem = ApiError::from(error);
    if events == 1 {
        return problem;
    }
    problem.with_detail_before(&format!("event {index} of the batch, counted from 0: "))
}
