//! Lists of sagas, by many conditions.

use rusqlite::types::Value;
use rusqlite::{Connection, Result, Row, params_from_iter};

use super::selection::selections;
use crate::saga_query::SagaQuery;
use crate::saga_row::SagaRow;
use crate::sqlite::column::{id_text, readable};
use crate::sqlite::saga_columns::{SAGA_COLUMNS, saga_row};

/// Returns the sagas that match, see [`crate::Store::list`].
pub(crate) fn list(connection: &Connection, query: &SagaQuery) -> Result<Vec<SagaRow>> {
    let mut found = Vec::new();
    for selection in selections(connection, query)? {
        let sql = selection.to_sql(&columns_of_sagas());
        let read = |row: &Row<'_>| readable(saga_row(row), SAGA_COLUMNS);
        found.extend(page(connection, &sql, selection.values, query.limit, read)?);
    }
    found.sort_by_key(|row| std::cmp::Reverse(row.id));
    found.truncate(query.limit as usize);
    Ok(found)
}

/// Returns the columns of a saga, with their table: others have columns of the same name.
fn columns_of_sagas() -> String {
    let columns: Vec<_> =
        SAGA_COLUMNS.split(", ").map(|column| format!("sagas.{}", column.trim())).collect();
    columns.join(", ")
}

/// Reads the rows of a list until it has `limit` of them. A row that cannot be read is left out, and
/// logged.
pub(super) fn page<T>(
    connection: &Connection,
    sql: &str,
    values: Vec<Value>,
    limit: u32,
    read: impl Fn(&Row<'_>) -> Result<std::result::Result<T, String>>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while found.len() < limit as usize
        && let Some(row) = rows.next()?
    {
        match read(row)? {
            Ok(row) => found.push(row),
            Err(reason) => {
                tracing::error!(saga_id = id_text(row), reason, "saga is not listed");
            }
        }
    }
    Ok(found)
}

/// Returns the statements that [`list`] runs for a query.
#[cfg(test)]
fn list_queries(connection: &Connection, query: &SagaQuery) -> Result<Vec<String>> {
    let all = selections(connection, query)?;
    Ok(all.into_iter().map(|selection| selection.to_sql(&columns_of_sagas())).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use amends_engine::{SagaStatus, Timestamp};

    use super::*;
    use crate::config::Durability;
    use crate::sqlite::open::open;
    use crate::{DigestPart, FailureQuery, FailureText, IdPart, IndexCondition};

    /// Returns the plan of every statement of a list.
    fn plans(connection: &Connection, query: &SagaQuery) -> Vec<Vec<String>> {
        let queries = list_queries(connection, query).unwrap();
        let plan = |sql: String| {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps = plan.raw_query().mapped(|row| row.get("detail"));
            steps.map(Result::unwrap).collect()
        };
        queries.into_iter().map(plan).collect()
    }

    /// No filter looks at sagas one after another: each finds them by an index, or looks at a range of
    /// ids.
    #[test]
    fn no_filter_scans_the_table_of_sagas() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open(
            &folder.path().join("amends.db"),
            &tempfile::tempfile().unwrap(),
            Durability::Relaxed,
        )
        .unwrap();
        let word = || Some("word".to_owned());
        let failure = |failure| SagaQuery { failure, ..SagaQuery::default() };
        let text = || FailureQuery { text: FailureText::new("no route"), ..Default::default() };
        let digest = || DigestPart::new("0123456789");
        let tags = |count: usize| vec![("name".to_owned(), "value".to_owned()); count];
        let at = Some(Timestamp::from_millis(1_767_225_600_000));
        let part = || IdPart::new("0123456789");
        let index = |conditions: &[&str]| {
            let conditions = conditions.iter().map(|text| IndexCondition::parse(text).unwrap());
            SagaQuery { index: conditions.collect(), ..SagaQuery::default() }
        };
        let filters = [
            (failure(FailureQuery { code: word(), ..Default::default() }), "failures_code"),
            (
                failure(FailureQuery { step: "a".parse().ok(), ..Default::default() }),
                "failures_step",
            ),
            (failure(FailureQuery { digest: digest(), ..Default::default() }), "failures_digest"),
            (SagaQuery { definition_digest: digest(), ..Default::default() }, "PRIMARY KEY (id<?)"),
            (failure(text()), "failure_texts VIRTUAL TABLE"),
            (failure(FailureQuery { code: word(), ..text() }), "failure_texts VIRTUAL TABLE"),
            (index(&["a=x"]), "found USING PRIMARY KEY (name=? AND value=?)"),
            (
                index(&["a=7", "b>=3"]),
                "EXISTS USING COVERING INDEX saga_index_saga (saga=? AND name=?",
            ),
            (index(&["a>=3"]), "found USING PRIMARY KEY (name=? AND value>? AND value<?)"),
            (index(&["a<3"]), "found USING PRIMARY KEY (name=? AND value<?)"),
            (index(&["a>=3", "a<5"]), "found USING PRIMARY KEY (name=? AND value>? AND value<?)"),
            (SagaQuery { statuses: vec![SagaStatus::Blocked], ..index(&["a>=0"]) }, "sagas_rare"),
            (
                SagaQuery { statuses: vec![SagaStatus::Running], ..index(&["a>=0"]) },
                "EXISTS USING COVERING INDEX saga_index_saga (saga=? AND name=? AND value>?",
            ),
            (index(&["a^=x"]), "found USING PRIMARY KEY (name=? AND value>? AND value<?)"),
            (
                SagaQuery { tags: tags(1), ..index(&["a>=3"]) },
                "EXISTS USING COVERING INDEX saga_index_saga (saga=? AND name=? AND value>?",
            ),
            (SagaQuery { key: word(), ..SagaQuery::default() }, "start_keys"),
            (SagaQuery { key: word(), tags: tags(1), ..failure(text()) }, "start_keys"),
            (SagaQuery { tags: tags(1), ..SagaQuery::default() }, "tag USING PRIMARY KEY"),
            (
                SagaQuery { tags: tags(3), ..SagaQuery::default() },
                "saga_tags EXISTS USING PRIMARY KEY",
            ),
            (SagaQuery { tags: tags(1), ..failure(text()) }, "saga_tags EXISTS USING PRIMARY KEY"),
            (SagaQuery { definition: "a".parse().ok(), ..Default::default() }, "sagas_definition"),
            (SagaQuery { statuses: vec![SagaStatus::Blocked], ..Default::default() }, "sagas_rare"),
            (SagaQuery { started_after: at, ..Default::default() }, "PRIMARY KEY (id>?)"),
            (SagaQuery { started_before: at, ..Default::default() }, "PRIMARY KEY (id<?)"),
            (SagaQuery { ended_after: at, ..Default::default() }, "PRIMARY KEY (id>?)"),
            (SagaQuery { ended_before: at, ..Default::default() }, "PRIMARY KEY (id<?)"),
            (
                SagaQuery { id: part(), tags: tags(1), ..Default::default() },
                "tag USING PRIMARY KEY",
            ),
        ];
        for (query, index) in filters {
            let before = crate::SagaQuery {
                before: Some(amends_engine::SagaId::from_bytes([7; 16])),
                ..query.clone()
            };
            for query in [query, before] {
                let plans = plans(&connection, &query);
                for plan in &plans {
                    // The whole-id search by the end walks an index, as ARCHITECTURE.md says.
                    let scans = plan.iter().filter(|step| step.starts_with("SCAN"));
                    // The index of those that are live has no others.
                    let is_small = |step: &&String| {
                        step.contains("VIRTUAL TABLE") || step.contains("USING INDEX sagas_live")
                    };
                    let mut scans = scans.filter(|step| !is_small(step));
                    let is_id = query.id.is_some();
                    assert!(is_id || scans.next().is_none(), "{query:?}: {plan:?}");
                }
                let is_used = plans.iter().flatten().any(|step| step.contains(index));
                // A cursor narrows the range of ids.
                let index = index.trim_end_matches(')');
                let is_narrowed = plans.iter().flatten().any(|step| step.contains(index));
                assert!(is_used || query.before.is_some() && is_narrowed, "{index}: {plans:?}");
                let is_sorted = plans.iter().flatten().any(|step| step.contains("TEMP B-TREE"));
                let failure = &query.failure;
                // The words and the components of a search may lead to sagas in any order.
                let may_sort =
                    failure.text.is_some()
                        || failure.digest.is_some()
                        || plans.iter().flatten().any(|step| {
                            step.contains("found USING PRIMARY KEY (name=? AND value>")
                        })
                        || plans.iter().flatten().any(|step| {
                            step.contains("found USING PRIMARY KEY (name=? AND value<")
                        });
                assert!(!is_sorted || may_sort, "{query:?}: {plans:?}");
            }
        }
    }
}
