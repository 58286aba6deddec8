//! Sagas: start, list, read.

mod saga_item;
pub(crate) mod saga_view;
mod step_view;
mod unread;

use std::cmp::Reverse;
use std::collections::HashMap;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::IntoParams;

use amends_api_types::{EventView, Page, Problem, QUARANTINED, SagaItem, SagaView, StartBody};
use amends_engine::{SagaStatus, Timestamp, activity_in_brief};
use amends_runtime::{Quarantined, Stuck};
use amends_store::{IdPart, SagaQuery, SagaRow, Store, StoreError};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::duration::parse_duration;
use crate::error::ApiError;
use crate::event_page::{EventPageReader, Source};
use crate::extract::{Path, Query};
use crate::header::header_text;
use crate::ids::parse_id;
use crate::paging::{cursor, limit};
use crate::saga_lookup::{find, unknown};
use crate::sagas::saga_item::saga_item;
use crate::sagas::saga_view::{saga_view, saga_view_with_inputs};
use crate::sagas::unread::{unread_item, unread_saga};
use crate::stalls::first_stalls;
use crate::start_request::{request_of, traceparent};

/// The longest that a request waits: proxies on the way give up at about this.
const WAIT_MAX: std::time::Duration = std::time::Duration::from_mins(5);

/// Sagas whose steps' inputs are computed at once.
static INPUTS: Semaphore = Semaphore::const_new(2);

/// How a start is answered.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartQuery {
    /// Answer when the saga rests, ended or blocked, or this duration (`30s`, at most `5m`) is
    /// over; at once when absent.
    wait: Option<String>,
}

/// How a saga is read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetQuery {
    /// Answer when the saga rests, ended or blocked, or this duration (`30s`, at most `5m`) is
    /// over; at once when absent.
    wait: Option<String>,
}

/// Which sagas to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// One status, or several with commas between them; `quarantined`, alone: the sagas that cannot
    /// be read or stepped and that nothing touches.
    status: Option<String>,
    /// The name of a definition.
    definition: Option<String>,
    /// `NAME:VALUE`.
    tag: Option<String>,
    /// RFC 3339.
    started_after: Option<String>,
    /// RFC 3339.
    started_before: Option<String>,
    /// The beginning or the end of an id, 8 to 32 hexadecimal digits: the sagas whose ids have it.
    id: Option<String>,
    /// True: say of sagas that have not ended what they do or wait for.
    activity: Option<bool>,
    /// True: only sagas that have not moved for longer than they should.
    stuck: Option<bool>,
    /// From 1 to 1,000; 50 when absent.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which events to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    /// From 1 to 1,000; 50 when absent. A page of large events ends earlier.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Starts a saga.
///
/// What was started is told, whatever happens afterwards: when the saga cannot be read then, the
/// answer is 202 or 200 all the same, with its id, what it was started with, status `running`,
/// `version` 0, no steps and an empty `definition_digest`. How it stands is at `Location`.
#[utoipa::path(post, path = "/v1/sagas", tag = "sagas", params(StartQuery,
    ("Idempotency-Key" = Option<String>, Header, description = "the same key and payload start one saga"),
    ("traceparent" = Option<String>, Header, description = "W3C trace context, handed to every call")),
    request_body = StartBody,
    responses((status = 202, body = SagaView), (status = 200, body = SagaView, description = "started earlier with this key"),
        (status = "default", body = Problem)))]
pub(crate) async fn start(
    State(state): State<ApiState>,
    Query(query): Query<StartQuery>,
    headers: HeaderMap,
    JsonBody(mut body): JsonBody<StartBody>,
) -> Result<Response, ApiError> {
    let wait = query.wait.as_deref().map(wait_of).transpose()?;
    if let Some(text) = header_text(&headers, "idempotency-key")? {
        body.key = Some(start_key(&state, text).await?);
    }
    let request = request_of(body, traceparent(&headers))?;
    let (started, found) = if let Some(wait) = wait {
        state.runtime.start_and_wait(request.clone(), wait).await?
    } else {
        let started = state.runtime.start(request.clone()).await?;
        (started, state.runtime.state(started.id).await)
    };
    // From here on there is a saga: an error without its id would have the caller start another.
    let view = match found {
        Ok(Some(found)) => saga_view(&found),
        Ok(None) => unread_saga(started.id, request),
        Err(error) => {
            tracing::warn!(saga_id = %started.id, %error, "a saga was started and cannot be read");
            unread_saga(started.id, request)
        }
    };
    let status = if started.created { StatusCode::ACCEPTED } else { StatusCode::OK };
    let location = format!("/v1/sagas/{}", started.id);
    Ok((status, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Lists sagas, the newest first.
#[utoipa::path(get, path = "/v1/sagas", tag = "sagas", params(ListQuery),
    responses((status = 200, body = Page<SagaItem>), (status = "default", body = Problem)))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<SagaItem>>, ApiError> {
    let limit = limit(query.limit)?;
    let is_stuck = query.stuck.unwrap_or(false);
    let says_activity = query.activity.unwrap_or(false);
    let is_quarantined = query.status.as_deref().is_some_and(|status| status.trim() == QUARANTINED);
    let query = SagaQuery {
        statuses: if is_quarantined { Vec::new() } else { statuses(query.status.as_deref())? },
        definition: query.definition.map(|name| name.parse()).transpose().map_err(bad_query)?,
        tag: query.tag.as_deref().map(tag).transpose()?,
        started_after: time(query.started_after.as_deref())?,
        started_before: time(query.started_before.as_deref())?,
        id: query.id.as_deref().map(id_part).transpose()?,
        before: cursor(query.cursor.as_deref())?,
        limit: limit + 1,
    };
    if is_stuck {
        let found = state.runtime.stuck().await;
        let items = stuck(&**state.runtime.store(), found, &query).await?;
        return Ok(Json(page(items, limit)));
    }
    let quarantined = state.runtime.quarantined();
    if is_quarantined {
        let items = in_quarantine(&**state.runtime.store(), quarantined, &query).await?;
        return Ok(Json(page(items, limit)));
    }
    let rows = state.runtime.store().list(query).await?;
    let mut items: Vec<_> = rows.into_iter().map(saga_item).collect();
    if !quarantined.is_empty() {
        let reasons: HashMap<_, _> =
            quarantined.into_iter().map(|one| (one.id.to_string(), one.reason)).collect();
        for item in &mut items {
            if let Some(reason) = reasons.get(&item.id) {
                QUARANTINED.clone_into(&mut item.status);
                item.reason = Some(reason.clone());
            }
        }
    }
    let mut page = page(items, limit);
    if says_activity {
        for item in &mut page.items {
            say_activity(&state, item).await;
        }
    }
    Ok(Json(page))
}

/// Says what a saga that has not ended does or waits for. One after another, so that a long list
/// takes no turn of the sagas' own work; one that cannot be read keeps its place without it.
async fn say_activity(state: &ApiState, item: &mut SagaItem) {
    let is_over = item.ended_at.is_some() || item.status == QUARANTINED;
    let Some(id) = item.id.parse().ok().filter(|_| !is_over) else { return };
    let Ok(Some(found)) = state.runtime.state(id).await else { return };
    // What no event tells comes first: nothing else moves the saga.
    let stalls = first_stalls(&found.stalls);
    let all = stalls.into_iter().chain(activity_in_brief(&found.saga, amends_runtime::now()));
    item.activity = Some(all.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty());
}

/// Of one item more than the limit, if there is one, it is told that it comes next.
fn page(mut items: Vec<SagaItem>, limit: u32) -> Page<SagaItem> {
    let has_more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| has_more).map(|item| item.id.clone());
    Page { items, next_cursor }
}

/// Those of `found` that the query wants, as [`Store::list`] has them: the newest first, no more
/// than its limit. What they do not come past is their reason.
async fn stuck(
    store: &dyn Store,
    mut found: Vec<Stuck>,
    query: &SagaQuery,
) -> Result<Vec<SagaItem>, StoreError> {
    found.retain(|stuck| query.before.is_none_or(|before| stuck.id < before));
    found.sort_by_key(|stuck| Reverse(stuck.id));
    let mut items = Vec::new();
    for stuck in found {
        if items.len() == query.limit as usize {
            break;
        }
        let Some(row) = store.saga(stuck.id).await? else { continue };
        if fits(&row, query) {
            let reason = Some(format!("not moved since {}: {}", stuck.since, stuck.reason));
            items.push(SagaItem { reason, ..saga_item(row) });
        }
    }
    Ok(items)
}

fn fits(row: &SagaRow, query: &SagaQuery) -> bool {
    (query.statuses.is_empty() || query.statuses.contains(&row.status))
        && query.definition.as_ref().is_none_or(|name| *name == row.definition)
        && query.started_after.is_none_or(|after| row.started_at > after)
        && query.started_before.is_none_or(|before| row.started_at < before)
        && query.id.as_ref().is_none_or(|part| part.fits(row.id))
        && query.tag.as_ref().is_none_or(|(name, value)| row.tags.get(name) == Some(value))
}

/// As for [`stuck`]. Of a saga whose row cannot be read only the id and the reason are known; it is
/// there unless the query asks for more than an id can tell.
async fn in_quarantine(
    store: &dyn Store,
    mut found: Vec<Quarantined>,
    query: &SagaQuery,
) -> Result<Vec<SagaItem>, StoreError> {
    found.retain(|one| query.before.is_none_or(|before| one.id < before));
    found.sort_by_key(|one| Reverse(one.id));
    let mut items = Vec::new();
    for Quarantined { id, reason } in found {
        if items.len() == query.limit as usize {
            break;
        }
        let item = match store.saga(id).await {
            Ok(Some(row)) if fits(&row, query) => saga_item(row),
            Ok(Some(_)) => continue,
            Ok(None) | Err(StoreError::Damaged { .. }) => {
                if query.definition.is_some() || query.tag.is_some() {
                    continue;
                }
                unread_item(id)
            }
            Err(error) => return Err(error),
        };
        items.push(SagaItem { status: QUARANTINED.to_owned(), reason: Some(reason), ..item });
    }
    Ok(items)
}

/// Reads a saga, at once or when it rests.
#[utoipa::path(get, path = "/v1/sagas/{id}", tag = "sagas",
    params(("id" = String, Path), GetQuery),
    responses((status = 200, body = SagaView), (status = "default", body = Problem)))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(query): Query<GetQuery>,
) -> Result<Json<SagaView>, ApiError> {
    let wait = query.wait.as_deref().map(wait_of).transpose()?;
    let found = match wait {
        None => find(&state, &id).await?,
        Some(wait) => {
            let found = state.runtime.wait(parse_id(&id)?, wait).await?;
            found.ok_or_else(|| unknown(&id))?
        }
    };
    let id = found.saga.id();
    // Computing what the steps were given may take long, and checks of payloads want the threads as well.
    let _turn = INPUTS.acquire().await;
    let view = tokio::task::spawn_blocking(move || saga_view_with_inputs(&found)).await;
    let mut view = view.map_err(|error| ApiError::new(500, "failed", error.to_string()))?;
    if let Some(reason) = state.runtime.quarantine_reason(id) {
        QUARANTINED.clone_into(&mut view.status);
        view.reason = Some(reason);
    }
    Ok(Json(view))
}

/// Reads a saga's events, in order.
#[utoipa::path(get, path = "/v1/sagas/{id}/events", tag = "sagas",
    params(("id" = String, Path), EventsQuery),
    responses((status = 200, body = Page<EventView>), (status = "default", body = Problem)))]
pub(crate) async fn events(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    let id = parse_id(&id)?;
    let limit = limit(query.limit)?;
    let after = cursor(query.cursor.as_deref())?.unwrap_or(0);
    let mut reader = EventPageReader::new(state, Source::Saga(id), after, limit);
    let first = reader.read().await?;
    if first.is_empty() && after == 0 {
        return Err(unknown(&id.to_string()));
    }
    Ok(reader.answer(first))
}

/// The key that a header gives: plain, `order-7`, or as a string of RFC 8941, `"order-7"`, as the
/// draft of the IETF for this header has it. Both are the same key.
async fn start_key(state: &ApiState, text: String) -> Result<String, ApiError> {
    let Some(key) = quoted(&text)? else { return Ok(text) };
    // Versions before this one kept it with its quotes: what was started so is found by that.
    let earlier = state.runtime.store().key(text.clone()).await?;
    Ok(if earlier.is_some() { text } else { key })
}

/// What stands between the quotes of a string of RFC 8941; none: there are no quotes.
fn quoted(text: &str) -> Result<Option<String>, ApiError> {
    let Some(rest) = text.strip_prefix('"') else { return Ok(None) };
    let wrong = || {
        let detail = format!("the header idempotency-key is no whole quoted string: {text}");
        ApiError::new(400, "bad_header", detail).with_remedy("end it with a quote, or use none")
    };
    let (mut key, mut chars) = (String::new(), rest.chars());
    loop {
        match chars.next().ok_or_else(wrong)? {
            '"' if chars.as_str().is_empty() => return Ok(Some(key)),
            '"' => return Err(wrong()),
            '\\' => {
                key.push(chars.next().filter(|next| matches!(next, '"' | '\\')).ok_or_else(wrong)?);
            }
            other => key.push(other),
        }
    }
}

fn wait_of(text: &str) -> Result<std::time::Duration, ApiError> {
    parse_duration(text).map(|wait| wait.min(WAIT_MAX)).map_err(bad_query)
}

fn statuses(text: Option<&str>) -> Result<Vec<SagaStatus>, ApiError> {
    let words = text.into_iter().flat_map(|text| text.split(','));
    words
        .map(|word| {
            SagaStatus::from_word(word.trim()).ok_or_else(|| {
                let all: Vec<_> = SagaStatus::ALL.iter().map(|status| status.as_str()).collect();
                ApiError::new(400, "bad_query", format!("`{word}` is not a status"))
                    .with_remedy(format!("use one of {}, or {QUARANTINED} alone", all.join(", ")))
            })
        })
        .collect()
}

fn tag(text: &str) -> Result<(String, String), ApiError> {
    text.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| {
        ApiError::new(400, "bad_query", format!("`{text}` is not a tag"))
            .with_remedy("write NAME:VALUE")
    })
}

fn time(text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    text.map(str::parse).transpose().map_err(|error: amends_engine::IdError| bad_query(error))
}

fn id_part(text: &str) -> Result<IdPart, ApiError> {
    IdPart::new(text).ok_or_else(|| {
        let detail = format!("`{text}` is no part of an id");
        let least = IdPart::DIGITS_MIN;
        ApiError::new(400, "bad_query", detail).with_remedy(format!(
            "give at least {least} hexadecimal digits of its beginning or end"
        ))
    })
}

fn bad_query(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(400, "bad_query", error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_store::conformance::{at, saga_id, start};
    use amends_store::{Durability, SqliteStore};

    use super::*;

    #[tokio::test]
    async fn stuck_sagas_come_page_by_page_the_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed);
        let store = store.unwrap();
        for number in 0..7 {
            store.append(start(number)).await.unwrap();
        }
        // By shard, as the runtime has them; of one the row is not there yet.
        let found = [4, 0, 6, 2, 5, 1, 3, 99].map(|number| Stuck {
            id: saga_id(number),
            since: at(number),
            reason: "nothing is in flight or due".to_owned(),
        });
        let mut query = SagaQuery { started_after: Some(at(0)), limit: 3, ..SagaQuery::default() };
        let mut pages = Vec::new();
        loop {
            let items = stuck(&store, found.to_vec(), &query).await.unwrap();
            let Page { items, next_cursor } = page(items, query.limit - 1);
            pages.push(items.into_iter().map(|item| item.id).collect::<Vec<_>>());
            let Some(next) = next_cursor else { break };
            query.before = cursor(Some(&next)).unwrap();
        }
        let ids = |numbers: [u32; 2]| numbers.map(|number| saga_id(number).to_string()).to_vec();
        assert_eq!(pages, [ids([6, 5]), ids([4, 3]), ids([2, 1])]);
        store.close().await.unwrap();
    }

    #[test]
    fn a_key_in_quotes_is_the_key() {
        let key = |text: &str| quoted(text).ok();
        assert_eq!(key("order-7"), Some(None));
        assert_eq!(key(r#""order-7""#), Some(Some("order-7".to_owned())));
        assert_eq!(key(r#""a \"b\" \\ c""#), Some(Some(r#"a "b" \ c"#.to_owned())));
        for wrong in ["\"", r#""order-7"#, r#""order"-7""#, r#""order-7";a=1"#, r#""a\b""#] {
            assert_eq!(key(wrong), None, "{wrong}");
        }
    }
}
