//! Asks who a caller is, refuses what they may not do, and has the audit record what they asked for.
//!
//! The rules are those of the OpenAPI document: the `security` of an operation names the permissions that it
//! needs. A route that the document does not have answers nobody. So a route that is added without a rule cannot
//! be used by accident.
//!
//! The audit has each request for a change by somebody with a token, before it is answered. Starts, signals and
//! events that were accepted are not among them: the log of the saga says who sent them.
//!
//! Deliberately absent: a second list of who may do what.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use utoipa::openapi::OpenApi;

use amends_peers::Forwarded;
use amends_runtime::{Permission, Permissions};

use crate::api_state::ApiState;
use crate::audit::{Draft, Recorded, code_of, stranger};
use crate::body::refuse;
use crate::caller::{Caller, identify, no_rule, peer_of, token_missing};
use crate::error::{ApiError, no_method};
use crate::forward::receive::INTERNAL;
use crate::namespaces::hidden;

/// The name of the security scheme in the document.
pub(crate) const SCHEME: &str = "token";

/// What everybody may read, and the document does not describe: the greeting, and the document itself.
const UNDESCRIBED: [&str; 2] = ["/", "/v1/openapi.json"];

/// The operations that have no rate: whoever watches a host must learn how it is, whatever else asks.
const UNLIMITED: [&str; 2] = ["get_health", "get_readiness"];

/// Who may use an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Everybody. The operation itself may ask for more.
    Everybody,
    /// Whoever shows a token with these permissions.
    Holder(Permissions),
}

/// An operation of the document.
#[derive(Debug)]
struct Operation {
    /// Its `operationId`.
    id: String,
    rule: Rule,
    recorded: Recorded,
}

/// The operations that have a rule: by path, then by method.
#[derive(Debug, Default)]
pub(crate) struct Rules(BTreeMap<String, BTreeMap<String, Operation>>);

/// What a request is for.
#[derive(Debug, Clone, Copy)]
enum Target<'r> {
    /// An operation with a rule.
    Ruled(&'r Operation),
    /// What everybody may read, and the document does not describe.
    Undescribed,
    /// A question of another host.
    Internal,
    /// A path that no route has.
    Nothing,
    /// A path that does not take the method, and the operations that it has.
    NoMethod(&'r BTreeMap<String, Operation>),
    /// A route that has no rule.
    NoRule,
}

impl Rules {
    /// Reads the rules of a document. An operation without `security` gets none.
    pub(crate) fn read(document: &OpenApi) -> Self {
        let mut rules = Self::default();
        let document = serde_json::to_value(document).unwrap_or_default();
        let paths = document["paths"].as_object().into_iter().flatten();
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                let Some(rule) = rule_of(&operation["security"]) else { continue };
                let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
                let recorded = recorded_of(method, &id, rule);
                let of_path = rules.0.entry(path.clone()).or_default();
                of_path.insert(method.to_uppercase(), Operation { id, rule, recorded });
            }
        }
        rules
    }

    fn target(&self, request: &Request) -> Target<'_> {
        let Some(path) = request.extensions().get::<MatchedPath>() else { return Target::Nothing };
        // The document cannot say that a parameter takes slashes.
        let path = path.as_str().replace("{*", "{");
        if path.starts_with(INTERNAL) {
            return Target::Internal;
        }
        if UNDESCRIBED.contains(&path.as_str()) {
            return Target::Undescribed;
        }
        let Some(of_path) = self.0.get(&path) else { return Target::NoRule };
        let method = match *request.method() {
            // Answered as GET is, without the body.
            Method::HEAD => "GET",
            ref method => method.as_str(),
        };
        of_path.get(method).map_or(Target::NoMethod(of_path), Target::Ruled)
    }
}

impl<'r> Target<'r> {
    /// Whether the operation has no rate.
    fn is_unlimited(self) -> bool {
        match self {
            Self::Ruled(operation) => UNLIMITED.contains(&operation.id.as_str()),
            Self::Undescribed
            | Self::Internal
            | Self::Nothing
            | Self::NoMethod(_)
            | Self::NoRule => false,
        }
    }

    /// Returns the operation, and when the audit has a request for it.
    fn of_audit(self, method: &Method) -> (Option<&'r str>, Recorded) {
        match self {
            Self::Ruled(operation) => (Some(operation.id.as_str()), operation.recorded),
            // It is refused.
            Self::NoMethod(_) | Self::NoRule if !method.is_safe() => (None, Recorded::Always),
            Self::NoMethod(_)
            | Self::NoRule
            | Self::Undescribed
            | Self::Internal
            | Self::Nothing => (None, Recorded::Never),
        }
    }
}

/// Reads the `security` of an operation: a list of requirements, of which one is enough. None: it has none, or
/// one with a permission that is unknown.
fn rule_of(security: &serde_json::Value) -> Option<Rule> {
    let requirements = security.as_array()?;
    if requirements.iter().any(|one| one.as_object().is_some_and(serde_json::Map::is_empty)) {
        return Some(Rule::Everybody);
    }
    let [requirement] = requirements.as_slice() else { return None };
    let names = requirement.get(SCHEME)?.as_array()?.iter();
    let permissions =
        names.map(|name| Permission::from_word(name.as_str()?)).collect::<Option<_>>()?;
    Some(Rule::Holder(permissions))
}

/// Returns when the audit has a request for an operation.
fn recorded_of(method: &str, id: &str, rule: Rule) -> Recorded {
    let start: Permissions = [Permission::Start].into_iter().collect();
    match rule {
        // They change nothing, and hand out payloads for good.
        Rule::Holder(_) if matches!(id, "back_up_store" | "get_evidence") => Recorded::Always,
        Rule::Everybody | Rule::Holder(_) if method.eq_ignore_ascii_case("get") => Recorded::Never,
        Rule::Holder(needed) if needed != start => Recorded::Always,
        Rule::Everybody | Rule::Holder(_) => Recorded::WhenNotDone,
    }
}

/// What the layer needs.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) state: ApiState,
    pub(crate) rules: Arc<Rules>,
}

/// Lets a request through whose caller may do what it asks for. Answers when the audit has what it is to have of
/// the request. Ends a stream when the token of its reader does not count any more.
pub(crate) async fn gate(
    State(Gate { state, rules }): State<Gate>,
    mut request: Request,
    next: Next,
) -> Response {
    let target = rules.target(&request);
    let (caller, judged) = admit(&state, target, &request);
    let (operation, recorded) = target.of_audit(request.method());
    let is_refused = judged.is_err();
    if let Some(problem) = too_soon(&state, target, &request, caller.as_ref(), is_refused) {
        note_refused(&request, &problem);
        // It is counted, and has no entry of its own, because a flood would fill the audit.
        if recorded != Recorded::Never || is_refused {
            state.host.count_refused(peer_of(&request), problem.code());
        }
        return refuse(request, problem).await.into_response();
    }
    let draft = Draft::new(&state.host, &request, caller.as_ref(), operation, recorded);
    let stranger = stranger(&state.host, &request, caller.as_ref());
    let count_refused = |status: u16, code: Option<&str>| {
        if let (Some(address), 401 | 403, Some(code)) = (stranger, status, code) {
            state.host.count_refused(address, code);
        }
    };
    if let Err(problem) = judged {
        note_refused(&request, &problem);
        count_refused(problem.status(), Some(problem.code()));
        let record = draft.map(|draft| draft.record(problem.status(), Some(problem.code())));
        let problem = refuse(request, problem).await;
        if let Some(record) = record {
            record.await;
        }
        let mut answer = problem.into_response();
        if let Target::NoMethod(operations) = target
            && answer.status() == StatusCode::METHOD_NOT_ALLOWED
        {
            answer.headers_mut().insert(header::ALLOW, methods_of(operations));
        }
        return answer;
    }
    let caller = caller.unwrap_or_else(|| Caller::anonymous(peer_of(&request), None));
    let token = caller.holder.as_ref().and_then(|holder| holder.id.clone());
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    let (status, code) = (response.status().as_u16(), code_of(&response));
    // A sender of events may show no token.
    count_refused(status, code);
    if let (Some(address), 401 | 403) = (stranger, status)
        && let Some(problem) = state.rates.refuse_address(address)
    {
        return problem.into_response();
    }
    if let Some(draft) = draft {
        draft.record(status, code).await;
    }
    match token.filter(|_| is_stream(&response)) {
        Some(token) => response.map(|body| {
            let keeper = state.hosts.default.clone();
            let ended = Box::pin(async move { keeper.until_token_ended(&token).await });
            Body::from_stream(body.into_data_stream().take_until(ended))
        }),
        None => response,
    }
}

/// Makes it known that a request is refused.
fn note_refused(request: &Request, problem: &ApiError) {
    metrics::counter!("amends_requests_refused_total", "code" => problem.code().to_owned())
        .increment(1);
    tracing::debug!(peer = %peer_of(request), path = request.uri().path(), code = problem.code(), "a request is refused");
}

/// Counts a request against the rate of its token, or, when it is refused, against that of its address. Returns its
/// refusal when it comes too soon. A host that has passed a request on has counted it.
fn too_soon(
    state: &ApiState,
    target: Target<'_>,
    request: &Request,
    caller: Option<&Caller>,
    is_refused: bool,
) -> Option<ApiError> {
    let is_passed_on = request.extensions().get::<Forwarded>().is_some();
    if !state.host.has_access_control() || is_passed_on || target.is_unlimited() {
        return None;
    }
    match caller.and_then(|caller| caller.holder.as_ref()) {
        Some(holder) => state.rates.refuse_holder(holder.kind(), &holder.name),
        None if is_refused => state.rates.refuse_address(peer_of(request)),
        None => None,
    }
}

/// Returns the methods of a path, as the header `allow` has them: RFC 9110, 15.5.6, wants it.
fn methods_of(operations: &BTreeMap<String, Operation>) -> HeaderValue {
    let mut methods: Vec<_> = operations.keys().map(String::as_str).collect();
    if operations.contains_key("GET") {
        methods.push("HEAD");
    }
    // The document names methods by words of letters.
    HeaderValue::from_str(&methods.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn is_stream(response: &Response) -> bool {
    let events = HeaderValue::from_static("text/event-stream");
    response.headers().get(header::CONTENT_TYPE) == Some(&events)
}

/// Returns who asks, as far as that is known, and whether they may.
fn admit(
    state: &ApiState,
    target: Target<'_>,
    request: &Request,
) -> (Option<Caller>, Result<(), ApiError>) {
    let is_open = match target {
        Target::Ruled(operation) => operation.rule == Rule::Everybody,
        Target::Undescribed => true,
        Target::Internal | Target::Nothing | Target::NoMethod(_) | Target::NoRule => false,
    };
    // A sender of events may show something that is no token of this host.
    if is_open {
        let anonymous = |wrong| Caller::anonymous(peer_of(request), wrong);
        let caller = match identify(state, request) {
            Ok(Some(caller)) => match hidden(state, request, &caller) {
                Some(problem) => anonymous(Some(problem.into_problem())),
                None => caller,
            },
            Ok(None) => anonymous(None),
            Err(problem) => anonymous(Some(problem.into_problem())),
        };
        return (Some(caller), Ok(()));
    }
    let is_of_host = request.extensions().get::<Forwarded>().is_some();
    if matches!(target, Target::Internal) && !is_of_host {
        return (None, Err(no_rule(request.uri().path())));
    }
    let caller = match identify(state, request) {
        Ok(Some(caller)) => caller,
        Ok(None) => return (None, Err(token_missing())),
        Err(problem) => return (None, Err(problem)),
    };
    // Whoever does not know their namespaces can ask for them.
    if !matches!(target, Target::Ruled(operation) if operation.id == "get_me")
        && let Some(problem) = hidden(state, request, &caller)
    {
        return (Some(caller), Err(problem));
    }
    let judged = match target {
        Target::Ruled(Operation { rule: Rule::Holder(needed), .. }) => caller.require(*needed),
        Target::Ruled(Operation { rule: Rule::Everybody, .. })
        | Target::Undescribed
        | Target::Internal
        | Target::Nothing => Ok(()),
        Target::NoMethod(_) => Err(no_method(request.method(), request.uri())),
        Target::NoRule => Err(no_rule(request.uri().path())),
    };
    (Some(caller), judged)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_runtime::Role;
    use serde_json::json;

    use super::*;

    #[test]
    fn each_operation_has_a_rule_and_only_these_have_none_to_keep() {
        let (_, document) = crate::router::routes();
        let rules = Rules::read(&document);
        let document = serde_json::to_value(&document).unwrap();
        let mut open = Vec::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let of_path = rules.0.get(path);
                let found = of_path.and_then(|of_path| of_path.get(&method.to_uppercase()));
                match found.map(|found| found.rule) {
                    None => panic!("{method} {path} has no rule"),
                    Some(Rule::Everybody) => open.push(operation["operationId"].clone()),
                    Some(Rule::Holder(_)) => {}
                }
            }
        }
        assert_eq!(open, ["get_health", "get_readiness", "take_events"]);
    }

    #[test]
    fn the_audit_has_each_request_for_a_change() {
        let (_, document) = crate::router::routes();
        let rules = Rules::read(&document);
        let of = |recorded: Recorded| -> Vec<(&str, &str)> {
            let all = rules.0.values().flatten();
            let of = all.filter(|(_, operation)| operation.recorded == recorded);
            of.map(|(method, operation)| (operation.id.as_str(), method.as_str())).collect()
        };
        let never = of(Recorded::Never);
        assert!(never.iter().all(|(_, method)| *method == "GET"), "{never:?}");
        let mut sometimes: Vec<_> =
            of(Recorded::WhenNotDone).into_iter().map(|(id, _)| id).collect();
        sometimes.sort_unstable();
        assert_eq!(sometimes, ["send_signal", "start_saga", "start_sagas", "take_events"]);
        let always = of(Recorded::Always);
        let reads = always.iter().filter(|(_, method)| *method == "GET");
        let reads: Vec<_> = reads.map(|(id, _)| *id).collect();
        assert_eq!(reads, ["get_evidence", "back_up_store"]);
        for id in ["cancel_saga", "deploy_plugins", "erase_subject", "put_state", "create_token"] {
            assert!(always.iter().any(|(one, _)| *one == id), "{id}");
        }
    }

    #[test]
    fn a_path_says_which_methods_it_takes() {
        let rules = Rules::read(&crate::router::routes().1);
        for (path, methods) in [
            ("/v1/sagas", "GET, POST, HEAD"),
            ("/v1/sagas/{id}/cancel", "POST"),
            ("/v1/plugins/{name}/state/{key}", "DELETE, GET, PUT, HEAD"),
            ("/metrics", "GET, HEAD"),
        ] {
            assert_eq!(methods_of(&rules.0[path]), methods, "{path}");
        }
    }

    #[test]
    fn what_is_no_rule_is_not_taken_for_one() {
        let start: Permissions = [Permission::Start].into_iter().collect();
        assert_eq!(rule_of(&json!([{"token": ["start"]}])), Some(Rule::Holder(start)));
        assert_eq!(rule_of(&json!([{"token": []}])), Some(Rule::Holder(Permissions::default())));
        assert_eq!(rule_of(&json!([{}, {"token": ["start"]}])), Some(Rule::Everybody));
        for wrong in [
            json!(null),
            json!([]),
            json!([{"token": ["strat"]}]),
            json!([{"other": []}]),
            json!([{"token": ["read"]}, {"token": ["start"]}]),
        ] {
            assert_eq!(rule_of(&wrong), None, "{wrong}");
        }
        assert!(Permissions::of(&[Role::Service], false).without(start).is_empty());
    }
}
