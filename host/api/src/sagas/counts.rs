//! Counts sagas.

use std::collections::BTreeSet;

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{SagaCounts, SagaGroupItem};
use amends_engine::IndexName;
use amends_runtime::{GroupBy, SagaGroups};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::extract::{Repeated, RepeatedQuery};
use crate::sagas::saga_query::{ListQuery, known_names};

/// By what to group the sagas.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes the parameter")]
pub(crate) struct ByQuery {
    /// What the sagas of a group have in common: `status`, `definition`, `reason`, `step`, `code`, the name
    /// of an index value, or several with commas between them. `step` and `code` are those of the last failure
    /// of a saga. All sagas are one group when it is absent.
    by: Option<String>,
}

/// Which sagas to count, and by what to group them.
#[derive(Debug, Deserialize)]
#[serde(from = "ListQuery")]
pub(crate) struct CountQuery {
    list: ListQuery,
    by: Vec<String>,
}

impl From<ListQuery> for CountQuery {
    fn from(list: ListQuery) -> Self {
        Self { list, by: Vec::new() }
    }
}

impl Repeated for CountQuery {
    const KEYS: &'static [&'static str] = &["tag", "where", "by"];

    fn push(&mut self, key: &str, value: String) {
        if key == "by" {
            self.by.extend(value.split(',').map(|word| word.trim().to_owned()));
        } else {
            self.list.push(key, value);
        }
    }
}

impl CountQuery {
    /// By what to group the sagas. `known` are the names of index values; a word comes before a name.
    ///
    /// # Errors
    /// 400 when a word is none of those, or comes twice.
    fn by(&self, known: &BTreeSet<IndexName>) -> Result<Vec<GroupBy>, ApiError> {
        let mut by = Vec::new();
        for word in &self.by {
            let all: Vec<_> = GroupBy::WORDS.iter().map(GroupBy::as_str).collect();
            let refuse = |detail: String| {
                let all = all.join(", ");
                let names = known_names(known);
                ApiError::new(400, "bad_query", detail).with_remedy(format!(
                    "use one or more of {all}, or names of index values, with commas between them; of \
                     index values: {names}"
                ))
            };
            let named = || known.iter().find(|name| name.as_str() == word).cloned();
            let what = GroupBy::from_word(word).or_else(|| named().map(GroupBy::Index));
            let Some(what) = what else {
                return Err(refuse(format!("sagas are not grouped by `{word}`")));
            };
            if by.contains(&what) {
                return Err(refuse(format!("`{word}` is there twice")));
            }
            by.push(what);
        }
        Ok(by)
    }
}

/// Counts sagas, by what they have in common.
#[utoipa::path(get, path = "/v1/sagas/counts", operation_id = "count_sagas", tag = "sagas",
    security(("token" = ["read"])),
    params(ListQuery, ByQuery),
    responses(
        (status = 200, body = SagaCounts, description = "How many sagas the filters find, and their groups.")))]
pub(crate) async fn counts(
    State(state): State<ApiState>,
    RepeatedQuery(query): RepeatedQuery<CountQuery>,
) -> Result<Json<SagaCounts>, ApiError> {
    let known = state.host.index_names();
    let by = query.by(&known)?;
    query.list.check_count()?;
    let query = query.list.into_saga_query(0, &known)?;
    let SagaGroups { sagas, groups, more } = state.host.saga_groups(query, by.clone()).await?;
    let groups = groups.into_iter().map(|group| SagaGroupItem {
        by: by.iter().map(|by| by.as_str().to_owned()).zip(group.values).collect(),
        sagas: group.sagas,
        oldest: group.oldest,
        example: group.example.to_string(),
    });
    Ok(Json(SagaCounts { sagas, groups: groups.collect(), more_groups: more }))
}
