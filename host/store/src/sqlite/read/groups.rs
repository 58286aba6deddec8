//! Counts of sagas by what they have in common.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use amends_engine::{SagaId, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, Result, Row, params_from_iter};

use super::selection::{one_failure, selections};
use crate::failure_query::FailureQuery;
use crate::saga_groups::{GROUPS_MAX, GroupBy, SagaGroup, SagaGroups};
use crate::saga_query::SagaQuery;
use crate::sqlite::column::{id_text, readable};

/// The most groups that one count holds in memory. Later groups are only counted.
const GROUPS_HELD_MAX: usize = 10_000;

/// The columns that [`group`] reads first.
const COLUMNS: &str = "example, sagas, oldest";

/// Returns the counts, see [`crate::SagaIndex::groups`].
pub(crate) fn groups(
    connection: &Connection,
    query: &SagaQuery,
    by: &[GroupBy],
) -> Result<SagaGroups> {
    let snapshot = connection.unchecked_transaction()?;
    let mut found: HashMap<Vec<Option<String>>, SagaGroup> = HashMap::new();
    let mut counted = SagaGroups::default();
    for (sql, values) in group_queries(&snapshot, query, by)? {
        let mut statement = snapshot.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let group = match readable(group(row, by.len()), COLUMNS)? {
                Ok(group) => group,
                Err(reason) => {
                    tracing::error!(saga_id = id_text(row), reason, "sagas are not counted");
                    continue;
                }
            };
            counted.sagas += group.sagas;
            let is_full = found.len() >= GROUPS_HELD_MAX;
            match found.entry(group.values.clone()) {
                Entry::Occupied(mut known) => {
                    let known = known.get_mut();
                    known.sagas += group.sagas;
                    if (group.oldest, group.example) < (known.oldest, known.example) {
                        (known.oldest, known.example) = (group.oldest, group.example);
                    }
                }
                Entry::Vacant(_) if is_full => counted.more += 1,
                Entry::Vacant(new) => drop(new.insert(group)),
            }
        }
    }
    counted.groups = found.into_values().collect();
    counted.groups.sort_by(|one, other| {
        other.sagas.cmp(&one.sagas).then_with(|| one.values.cmp(&other.values))
    });
    counted.more += counted.groups.len().saturating_sub(GROUPS_MAX) as u64;
    counted.groups.truncate(GROUPS_MAX);
    Ok(counted)
}

/// Reads one group.
fn group(row: &Row<'_>, by: usize) -> Result<SagaGroup> {
    Ok(SagaGroup {
        example: SagaId::from_bytes(row.get(0)?),
        sagas: row.get::<_, i64>(1)?.unsigned_abs(),
        oldest: Timestamp::from_millis(row.get(2)?),
        values: (0..by).map(|number| row.get(3 + number)).collect::<Result<_>>()?,
    })
}

/// Returns the statements that count, with the values of their marks: one for each part of the sagas
/// that the query selects.
pub(crate) fn group_queries(
    connection: &Connection,
    query: &SagaQuery,
    by: &[GroupBy],
) -> Result<Vec<(String, Vec<Value>)>> {
    let selections = selections(connection, query)?.into_iter().map(|selection| {
        let mut columns = vec![format!("{} AS saga_id, sagas.started_at AS began", selection.id)];
        let mut values = Vec::new();
        for (number, by) in by.iter().enumerate() {
            let (value, marks) = value_of(by, selection.id, &query.failure);
            columns.push(format!("{value} AS value{number}"));
            values.extend(marks);
        }
        values.extend(selection.values.iter().cloned());
        let each = selection.to_sql(&columns.join(", "));
        let names: Vec<_> = (0..by.len()).map(|number| format!("value{number}")).collect();
        // With `min`, SQLite takes the other columns from the row that has it.
        let columns = [&["saga_id", "count(*)", "min(began)"].map(str::to_owned)[..], &names];
        let grouped = if names.is_empty() {
            "HAVING count(*) > 0".to_owned()
        } else {
            format!("GROUP BY {}", names.join(", "))
        };
        (format!("SELECT {} FROM ({each}) {grouped}", columns.concat().join(", ")), values)
    });
    Ok(selections.collect())
}

/// Returns what a saga has, as SQL, and the values of its marks. Of its failures, the last counts that
/// fulfils the conditions on step, code and component. A block is no failure of a call.
fn value_of(by: &GroupBy, id: &str, failure: &FailureQuery) -> (String, Vec<Value>) {
    let of_failure = |value: &str| {
        let (failures, values) = one_failure(&FailureQuery { text: None, ..failure.clone() });
        let last = format!(
            "(SELECT {value} {failures} AND failed.saga = {id} AND failed.call <> 'block' \
             ORDER BY failed.position DESC LIMIT 1)"
        );
        (last, values)
    };
    match by {
        GroupBy::Status => ("sagas.status".to_owned(), Vec::new()),
        GroupBy::Definition => ("sagas.definition".to_owned(), Vec::new()),
        GroupBy::Reason => ("sagas.reason".to_owned(), Vec::new()),
        GroupBy::Step => of_failure("failed.step || iif(failed.call = 'compensate', ' undo', '')"),
        GroupBy::Code => of_failure("failed.code"),
        GroupBy::Index(name) => {
            let text = "CASE value WHEN x'00' THEN 'false' WHEN x'01' THEN 'true' \
                        ELSE CAST(value AS TEXT) END";
            let sql = format!(
                "(SELECT {text} FROM saga_index INDEXED BY saga_index_saga \
                 WHERE saga = {id} AND name = ?)"
            );
            (sql, vec![Value::Text(name.to_string())])
        }
    }
}
