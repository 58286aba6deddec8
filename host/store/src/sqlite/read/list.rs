//! Lists of sagas, by many conditions.

use amends_engine::SagaStatus;
use rusqlite::types::Value;
use rusqlite::{Connection, Result, params_from_iter};

use crate::saga_query::{IdPart, SagaQuery};
use crate::saga_row::SagaRow;
use crate::sqlite::column::{id_text, readable};
use crate::sqlite::saga_columns::{SAGA_COLUMNS, saga_row};
use crate::sqlite::start_delay::{first_id, last_id, start_delay};

/// Returns the sagas that match, see [`crate::Store::list`].
pub(crate) fn list(connection: &Connection, query: &SagaQuery) -> Result<Vec<SagaRow>> {
    let all = match &query.definition {
        Some(_) => Walk::Definition,
        None => Walk::All,
    };
    if let Some(part) = &query.id {
        let found = [IdCondition::BeginsWith(part), IdCondition::EndsWith(part)].map(|part| {
            let walk = if query.tag.is_some() { Walk::Tag } else { Walk::All };
            list_along(connection, query, walk, Some(part))
        });
        let [begins, ends] = found;
        return Ok(newest([begins?, ends?].concat(), query.limit));
    }
    if query.tag.is_some() {
        return list_along(connection, query, Walk::Tag, None);
    }
    if query.statuses.is_empty() {
        return list_along(connection, query, all, None);
    }
    // One walk for each kind of status, so that each stops after `limit`.
    let (rare, common): (Vec<SagaStatus>, Vec<SagaStatus>) =
        query.statuses.iter().partition(|status| is_rare(**status));
    let (ended, live): (Vec<_>, Vec<_>) = common.into_iter().partition(|status| status.is_end());
    let mut walks: Vec<_> = rare.into_iter().map(|status| (Walk::Rare, vec![status])).collect();
    walks.push((Walk::Live, live));
    walks.push((all, ended));
    let mut found = Vec::new();
    for (walk, statuses) in walks.into_iter().filter(|(_, statuses)| !statuses.is_empty()) {
        let query = SagaQuery { statuses, ..query.clone() };
        found.extend(list_along(connection, &query, walk, None)?);
    }
    Ok(newest(found, query.limit))
}

/// Merges the rows of several walks into one list, the newest saga first.
fn newest(mut found: Vec<SagaRow>, limit: u32) -> Vec<SagaRow> {
    found.sort_by_key(|row| std::cmp::Reverse(row.id));
    found.dedup_by_key(|row| row.id);
    found.truncate(limit as usize);
    found
}

/// A condition on the id of a saga.
#[derive(Clone, Copy)]
enum IdCondition<'query> {
    BeginsWith(&'query IdPart),
    EndsWith(&'query IdPart),
}

impl IdCondition<'_> {
    /// Returns the condition as SQL, and the values of its marks. Ids with the same beginning are
    /// neighbours. A search by the end looks at all ids, in an index that has little else.
    fn to_sql(self, id: &str) -> (String, Vec<Value>) {
        match self {
            Self::BeginsWith(part) => {
                (format!("{id} BETWEEN ? AND ?"), part.range().map(Value::Blob).to_vec())
            }
            Self::EndsWith(part) => {
                let digits = part.as_upper();
                let from = Value::Integer(33 - i64::try_from(digits.len()).unwrap_or(32));
                // The last four bytes exclude nearly all ids without converting them to text.
                let ends = "SELECT id FROM sagas INDEXED BY sagas_definition \
                            WHERE substr(id, 13) = ? AND substr(hex(id), ?) = ?";
                let values = vec![Value::Blob(part.last_bytes()), from, Value::Text(digits)];
                (format!("{id} IN ({ends})"), values)
            }
        }
    }
}

/// The table or index that a list walks along, from the greatest id down, until it has enough rows.
#[derive(Clone, Copy)]
enum Walk {
    /// All sagas.
    All,
    /// The sagas of one definition.
    Definition,
    /// The sagas that have not ended.
    Live,
    /// The sagas of one status that few sagas have.
    Rare,
    /// The sagas with one tag.
    Tag,
}

/// Returns true when the index `sagas_rare` has the sagas of this status.
fn is_rare(status: SagaStatus) -> bool {
    !matches!(status, SagaStatus::Running | SagaStatus::Waiting | SagaStatus::Completed)
}

/// Returns the rows that match along one walk.
fn list_along(
    connection: &Connection,
    query: &SagaQuery,
    walk: Walk,
    part: Option<IdCondition<'_>>,
) -> Result<Vec<SagaRow>> {
    let mut wheres = vec!["true".to_owned()];
    let mut values = Vec::new();
    let (from, id) = match walk {
        Walk::All => ("sagas NOT INDEXED", "id"),
        Walk::Definition => ("sagas INDEXED BY sagas_definition", "id"),
        Walk::Live => {
            wheres.push("ended_at IS NULL".to_owned());
            ("sagas INDEXED BY sagas_live", "id")
        }
        Walk::Rare => {
            // The same words as in the index, so that SQLite knows that it may use it.
            let rare = "status <> 'running' AND status <> 'waiting' AND status <> 'completed'";
            wheres.push(rare.to_owned());
            ("sagas INDEXED BY sagas_rare", "id")
        }
        Walk::Tag => ("saga_tags AS tag CROSS JOIN sagas ON id = tag.saga", "tag.saga"),
    };
    if let Some((name, value)) = &query.tag {
        wheres.push("tag.name = ? AND tag.value = ?".to_owned());
        values.push(Value::Text(name.clone()));
        values.push(Value::Text(value.clone()));
    }
    if let Some(before) = query.before {
        wheres.push(format!("{id} < ?"));
        values.push(Value::Blob(before.as_bytes().to_vec()));
    }
    if let Some(after) = query.started_after {
        wheres.push(format!("{id} >= ? AND started_at > ?"));
        values.push(Value::Blob(first_id(after, start_delay(connection)?).to_vec()));
        values.push(Value::Integer(after.as_millis()));
    }
    if let Some(before) = query.started_before {
        wheres.push(format!("{id} < ? AND started_at < ?"));
        values.push(Value::Blob(last_id(before).to_vec()));
        values.push(Value::Integer(before.as_millis()));
    }
    if let Some((condition, parts)) = part.map(|part| part.to_sql(id)) {
        wheres.push(condition);
        values.extend(parts);
    }
    if let Some(definition) = &query.definition {
        wheres.push("definition = ?".to_owned());
        values.push(Value::Text(definition.to_string()));
    }
    if !query.statuses.is_empty() {
        let marks = vec!["?"; query.statuses.len()].join(", ");
        wheres.push(format!("status IN ({marks})"));
        let words = query.statuses.iter().map(|status| Value::Text(status.as_str().to_owned()));
        values.extend(words);
    }
    let wheres = wheres.join(" AND ");
    // A limit of -1 means none, and lets SQLite prefer an index in this order to sorting. The limit
    // is applied below, so that a page is full even when unreadable rows are left out.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {SAGA_COLUMNS} FROM {from} WHERE {wheres} ORDER BY {id} DESC LIMIT -1"
    ))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while found.len() < query.limit as usize
        && let Some(row) = rows.next()?
    {
        match readable(saga_row(row), SAGA_COLUMNS)? {
            Ok(row) => found.push(row),
            Err(reason) => {
                tracing::error!(saga_id = id_text(row), reason, "saga is not listed");
            }
        }
    }
    Ok(found)
}
