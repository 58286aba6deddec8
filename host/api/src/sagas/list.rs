//! Lists sagas.

use std::cmp::Reverse;
use std::collections::HashMap;

use axum::extract::State;

use amends_api_types::{Page, QUARANTINED, SagaItem};
use amends_engine::{SagaId, activity_in_brief};
use amends_runtime::{Quarantined, SagaQuery, SagaRow, StoreError, Stuck};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::extract::RepeatedQuery;
use crate::forward::{activities_of_others, unmoved_of_others};
use crate::paging::limit;
use crate::sagas::saga_item::{archived_item, saga_item};
use crate::sagas::saga_query::ListQuery;
use crate::sagas::stalls::held_back;
use crate::sagas::unread::unread_item;

/// Lists sagas, the newest first.
#[utoipa::path(get, path = "/v1/sagas", operation_id = "list_sagas", tag = "sagas",
    security(("token" = ["read"])),
    params(ListQuery),
    responses((status = 200, body = Page<SagaItem>, description = "A page of sagas, the latest first.")))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    RepeatedQuery(query): RepeatedQuery<ListQuery>,
) -> Result<Json<Page<SagaItem>>, ApiError> {
    query.check()?;
    let limit = limit(query.limit())?;
    let (is_stuck, says_activity) = (query.is_stuck(), query.says_activity());
    let (is_quarantined, is_archived) = (query.is_quarantined(), query.is_archived()?);
    // One more than the page has: it only shows that there is a next page.
    let query = query.into_saga_query(limit + 1, &state.host.index_names())?;
    if is_archived {
        let found = state.host.archived_sagas(query).await?;
        return Ok(Json(page(found.into_iter().map(archived_item).collect(), limit)));
    }
    if is_stuck {
        let mut found = state.host.stuck().await;
        let (of_others, _, failed) = unmoved_of_others(&state).await;
        if let Some(error) = failed {
            return Err(error);
        }
        found.extend(of_others);
        let items = stuck(|id| state.host.saga(id), found, &query).await?;
        return Ok(Json(page(items, limit)));
    }
    let mut quarantined = state.host.quarantined();
    let (_, of_others, failed) = unmoved_of_others(&state).await;
    quarantined.extend(of_others);
    if is_quarantined {
        if let Some(error) = failed {
            return Err(error);
        }
        let items = in_quarantine(|id| state.host.saga(id), quarantined, &query).await?;
        return Ok(Json(page(items, limit)));
    }
    let rows = state.host.sagas(query).await?;
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
        say_activities(&state, &mut page.items).await;
    }
    Ok(Json(page))
}

/// Adds what each saga does or waits for, if it has not ended. A saga that cannot be read, or whose host does not
/// answer, stays in the list without that.
async fn say_activities(state: &ApiState, items: &mut [SagaItem]) {
    let is_over = |item: &SagaItem| item.ended_at.is_some() || item.status == QUARANTINED;
    let live = items.iter().filter(|item| !is_over(item));
    let live: Vec<SagaId> = live.filter_map(|item| item.id.parse().ok()).collect();
    let mut of_others = activities_of_others(state, live.into_iter()).await;
    // One after another, so that a long list does not slow sagas down.
    for item in items.iter_mut().filter(|item| !is_over(item)) {
        let Ok(id) = item.id.parse() else { continue };
        item.activity = match of_others.remove(&id) {
            Some(activity) => Some(activity),
            None => activity_of(state, id).await,
        };
    }
}

/// What a saga does or waits for. None when it cannot be read.
pub(crate) async fn activity_of(state: &ApiState, id: SagaId) -> Option<String> {
    let found = state.host.state(id).await.ok()??;
    // What no event tells comes first: nothing else moves the saga.
    let all = held_back(&found).into_iter().chain(activity_in_brief(&found.saga, found.now));
    Some(all.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
}

/// Makes a page of at most `limit` items. `items` may have one more, which shows that there is a next page.
fn page(mut items: Vec<SagaItem>, limit: u32) -> Page<SagaItem> {
    let has_more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| has_more).map(|item| item.id.clone());
    Page { items, next_cursor }
}

/// Shows the stuck sagas that the query asks for: the newest first, at most its limit, as
/// [`Host::sagas`](amends_runtime::Host::sagas) would. `row` reads the row of a saga. The reason of a saga is
/// what it does not come past.
async fn stuck<F: Future<Output = Result<Option<SagaRow>, StoreError>>>(
    row: impl Fn(SagaId) -> F,
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
        let Some(row) = row(stuck.id).await? else { continue };
        if query.fits(&row) {
            let reason = Some(format!("not moved since {}: {}", stuck.since, stuck.reason));
            items.push(SagaItem { reason, ..saga_item(row) });
        }
    }
    Ok(items)
}

/// Shows the quarantined sagas that the query asks for, as [`stuck`] does. When the row of a saga cannot be
/// read, only its id and its reason are known. It is in the list unless the query asks for a definition, a
/// tag, an index value or a key.
async fn in_quarantine<F: Future<Output = Result<Option<SagaRow>, StoreError>>>(
    row: impl Fn(SagaId) -> F,
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
        let item = match row(id).await {
            Ok(Some(row)) if query.fits(&row) => saga_item(row),
            Ok(Some(_)) => continue,
            Ok(None) | Err(StoreError::Damaged { .. }) => {
                let is_unknown = query.definition.is_some()
                    || !query.tags.is_empty()
                    || !query.index.is_empty()
                    || query.key.is_some();
                if is_unknown {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::sync::Arc;

    use amends_store::conformance::{TestStore, at, saga_id, start};
    use amends_store::{Durability, SqliteStore};

    use super::*;
    use crate::paging::cursor;

    #[tokio::test]
    async fn stuck_sagas_come_page_by_page_the_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed);
        let store = TestStore::of(Arc::new(store.unwrap())).await.unwrap();
        for number in 0..7 {
            store.append(start(number)).await.unwrap();
        }
        // By worker, as the runtime has them; of one the row is not there yet.
        let found = [4, 0, 6, 2, 5, 1, 3, 99].map(|number| Stuck {
            id: saga_id(number),
            since: at(number),
            reason: "nothing is in flight or due".to_owned(),
        });
        let mut query = SagaQuery { started_after: Some(at(0)), limit: 3, ..SagaQuery::default() };
        let mut pages = Vec::new();
        loop {
            let items = stuck(|id| store.sagas().row(id), found.to_vec(), &query).await.unwrap();
            let Page { items, next_cursor } = page(items, query.limit - 1);
            pages.push(items.into_iter().map(|item| item.id).collect::<Vec<_>>());
            let Some(next) = next_cursor else { break };
            query.before = cursor(Some(&next)).unwrap();
        }
        let ids = |numbers: [u32; 2]| numbers.map(|number| saga_id(number).to_string()).to_vec();
        assert_eq!(pages, [ids([6, 5]), ids([4, 3]), ids([2, 1])]);
        store.close().await.unwrap();
    }
}
