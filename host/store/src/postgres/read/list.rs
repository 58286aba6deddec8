//! Lists of sagas, by many conditions.
//!
//! Each condition has an index, and the planner of the database chooses between them by its statistics.

use std::sync::atomic::Ordering;

use amends_engine::StepName;
use uuid::Uuid;

use crate::archive::Tombstone;
use crate::failure_query::FailureQuery;
use crate::id_time::{START_DELAY, first_id, last_id};
use crate::postgres::columns::{
    SAGA_COLUMNS, TOMBSTONE_COLUMNS, TOMBSTONES, saga, saga_row, tombstone,
};
use crate::postgres::connection::{Pg, Value};
use crate::postgres::error::{Failure, Result};
use crate::postgres::plan::LIFE_USUAL_MS;
use crate::postgres::rows::{element_of, lexeme};
use crate::postgres::text::{KeyRange, key_range, like_text, stored_text, uuid_of};
use crate::postgres::writer::Longest;
use crate::saga_query::SagaQuery;
use crate::saga_row::SagaRow;

/// The most rows that one statement returns.
const ROWS_MAX: u32 = 1_000;

/// Conditions as SQL, and their values.
pub(super) struct Conditions {
    wheres: Vec<String>,
    pub(super) values: Vec<Value>,
}

impl Conditions {
    pub(super) fn none() -> Self {
        Self { wheres: vec!["true".to_owned()], values: Vec::new() }
    }

    /// Adds a value, and returns its mark.
    pub(super) fn mark(&mut self, value: impl Into<ValueOf>) -> String {
        self.values.push(value.into().0);
        format!("${}", self.values.len())
    }

    fn add(&mut self, condition: String) {
        self.wheres.push(condition);
    }

    pub(super) fn sql(&self) -> String {
        self.wheres.join(" AND ")
    }
}

/// A value of a statement.
pub(super) struct ValueOf(Value);

macro_rules! value_of {
    ($($of:ty),*) => {$(
        impl From<$of> for ValueOf {
            fn from(value: $of) -> Self {
                Self(Box::new(value))
            }
        }
    )*};
}

value_of!(String, i64, Uuid, Vec<u8>, Vec<Vec<u8>>, Vec<String>, Vec<Uuid>);

/// Returns the sagas that match, see [`crate::SagaIndex::list`].
pub(in crate::postgres) async fn list(
    pg: &Pg,
    query: &SagaQuery,
    longest: &Longest,
) -> Result<Vec<SagaRow>> {
    let sql = |conditions: &Conditions, limit| {
        let wheres = conditions.sql();
        format!(
            "SELECT {SAGA_COLUMNS} FROM sagas WHERE {wheres} ORDER BY sagas.id DESC LIMIT {limit}"
        )
    };
    pages(
        pg,
        query,
        |query| saga_conditions(query, longest),
        sql,
        |row| Ok((saga(row, 0)?, saga_row(row))),
    )
    .await
}

/// Returns the tombstones that match, see [`crate::Archive::list`].
pub(in crate::postgres) async fn tombstones(
    pg: &Pg,
    query: &SagaQuery,
    longest: &Longest,
) -> Result<Vec<Tombstone>> {
    let sql = |conditions: &Conditions, limit| {
        let wheres = conditions.sql();
        format!(
            "SELECT {TOMBSTONE_COLUMNS} FROM {TOMBSTONES} WHERE {wheres}
             ORDER BY archived.saga DESC LIMIT {limit}"
        )
    };
    let conditions = |query: &SagaQuery| {
        let mut conditions = Conditions::none();
        common(query, longest, "archived", "archived.saga", &mut conditions);
        conditions
    };
    pages(pg, query, conditions, sql, |row| Ok((saga(row, 0)?, tombstone(row)))).await
}

/// Reads rows until there are as many as asked for. A row that cannot be read is left out, and logged.
async fn pages<T>(
    pg: &Pg,
    query: &SagaQuery,
    conditions: impl Fn(&SagaQuery) -> Conditions,
    sql: impl Fn(&Conditions, u32) -> String,
    read: impl Fn(&tokio_postgres::Row) -> Result<(amends_engine::SagaId, Result<T>)>,
) -> Result<Vec<T>> {
    let (mut found, mut query) = (Vec::new(), query.clone());
    while found.len() < query.limit as usize {
        let left = u32::try_from(query.limit as usize - found.len()).unwrap_or(u32::MAX);
        let limit = left.min(ROWS_MAX);
        let conditions = conditions(&query);
        let rows = pg.query_values(&sql(&conditions, limit), &conditions.values).await?;
        for row in &rows {
            let (id, read) = read(row)?;
            query.before = Some(id);
            match read {
                Ok(row) => found.push(row),
                Err(Failure::Unreadable(reason)) => {
                    tracing::error!(saga_id = %id, reason, "saga is not listed");
                }
                Err(failure) => return Err(failure),
            }
        }
        if rows.len() < limit as usize {
            break;
        }
    }
    Ok(found)
}

/// Returns the conditions on the rows of sagas.
pub(super) fn saga_conditions(query: &SagaQuery, longest: &Longest) -> Conditions {
    let mut conditions = Conditions::none();
    common(query, longest, "sagas", "sagas.id", &mut conditions);
    if let Some(digest) = &query.definition_digest {
        let [first, last] = digest.range();
        let (first, last) = (conditions.mark(first), conditions.mark(last));
        conditions.add(format!("sagas.definition_digest BETWEEN {first} AND {last}"));
    }
    for (name, value) in &query.tags {
        let (name, value) =
            (conditions.mark(stored_text(name)), conditions.mark(stored_text(value)));
        conditions.add(format!(
            "sagas.id IN (SELECT saga FROM saga_tags WHERE name = {name} AND value = {value})"
        ));
    }
    for condition in &query.index {
        let name = conditions.mark(condition.name.to_string());
        let test = match key_range(&condition.test) {
            KeyRange::AnyOf(keys) => format!("value = ANY({})", conditions.mark(keys)),
            KeyRange::Between { first: (first, is_from), last: (last, is_to) } => {
                let (first, last) = (conditions.mark(first), conditions.mark(last));
                let (from, to) = (if is_from { ">=" } else { ">" }, if is_to { "<=" } else { "<" });
                format!("value {from} {first} AND value {to} {last}")
            }
        };
        conditions.add(format!(
            "sagas.id IN (SELECT saga FROM saga_index WHERE name = {name} AND {test})"
        ));
    }
    if !query.failure.is_empty() {
        let failed = failure_conditions(&query.failure, &mut conditions);
        conditions.add(format!(
            "sagas.id IN (SELECT failed.saga FROM failures AS failed WHERE {failed})"
        ));
    }
    conditions
}

/// Returns the conditions on one failure, in the table `failed`.
pub(super) fn failure_conditions(query: &FailureQuery, conditions: &mut Conditions) -> String {
    let mut wheres = vec!["true".to_owned()];
    if let Some(text) = &query.text {
        let mut lexemes = Vec::new();
        for (words, is_beginning) in text.parts() {
            for (number, word) in words.iter().enumerate() {
                let is_last = number + 1 == words.len();
                let star = if is_last && is_beginning || lexeme(word) != word { ":*" } else { "" };
                // Words have letters and digits alone.
                lexemes.push(format!("'{}'{star}", lexeme(word)));
            }
            let end = if is_beginning { "" } else { " " };
            let phrase = like_text(&words.join(" ")).into_owned();
            let phrase = conditions.mark(format!("% {phrase}{end}%"));
            wheres.push(format!("failed.words LIKE {phrase}"));
        }
        let lexemes = conditions.mark(lexemes.join(" & "));
        wheres.push(format!("failed.lexemes @@ {lexemes}::text::tsquery"));
    }
    if let Some(step) = &query.step {
        let name = conditions.mark(StepName::step(step).to_owned());
        wheres.push(format!("failed.step = {name}"));
        if step.number().is_some() {
            let element = conditions.mark(element_of(Some(step)));
            wheres.push(format!("failed.element = {element}"));
        }
    }
    if let Some(code) = &query.code {
        // A block has no code.
        let code = conditions.mark(stored_text(code));
        wheres.push(format!("failed.code = {code} AND failed.call <> 'block'"));
    }
    if let Some(digest) = &query.digest {
        let [first, last] = digest.range();
        let (first, last) = (conditions.mark(first), conditions.mark(last));
        wheres.push(format!("failed.digest BETWEEN {first} AND {last}"));
    }
    wheres.join(" AND ")
}

/// Adds the conditions that a list of sagas and one of archived sagas share. Each time bounds the ids as
/// well, so that only a range of them is walked.
fn common(
    query: &SagaQuery,
    longest: &Longest,
    table: &str,
    id: &str,
    conditions: &mut Conditions,
) {
    let usual = i64::try_from(START_DELAY.as_millis()).unwrap_or(i64::MAX);
    let delay = longest.start_delay.load(Ordering::Relaxed).max(usual);
    let life = longest.life.load(Ordering::Relaxed).max(LIFE_USUAL_MS);
    if let Some(before) = query.before {
        let before = conditions.mark(uuid_of(before));
        conditions.add(format!("{id} < {before}"));
    }
    for (column, after, first) in [
        ("started_at", query.started_after, delay),
        ("ended_at", query.ended_after, delay.saturating_add(life)),
    ] {
        let Some(after) = after else { continue };
        let first = conditions.mark(Uuid::from_bytes(first_id(after, first)));
        let after = conditions.mark(after.as_millis());
        conditions.add(format!("{id} >= {first} AND {table}.{column} > {after}"));
    }
    for (column, before) in [("started_at", query.started_before), ("ended_at", query.ended_before)]
    {
        let Some(before) = before else { continue };
        let last = conditions.mark(Uuid::from_bytes(last_id(before)));
        let before = conditions.mark(before.as_millis());
        conditions.add(format!("{id} < {last} AND {table}.{column} < {before}"));
    }
    if let Some(definition) = &query.definition {
        let definition = conditions.mark(definition.to_string());
        conditions.add(format!("{table}.definition = {definition}"));
    }
    if !query.statuses.is_empty() {
        let words: Vec<_> =
            query.statuses.iter().map(|status| status.as_str().to_owned()).collect();
        let words = conditions.mark(words);
        conditions.add(format!("{table}.status = ANY({words})"));
    }
    if let Some(key) = &query.key {
        let key = conditions.mark(stored_text(key));
        conditions
            .add(format!("{id} = (SELECT saga FROM start_keys WHERE start_keys.key = {key})"));
    }
    if let Some(part) = &query.id {
        let [first, last] = part.range().map(|bytes| Uuid::from_slice(&bytes).unwrap_or_default());
        let digits = conditions.mark(part.as_upper().to_ascii_lowercase());
        let (first, last) = (conditions.mark(first), conditions.mark(last));
        conditions.add(format!(
            "({id} BETWEEN {first} AND {last}
              OR right(replace({id}::text, '-', ''), length({digits}::text)) = {digits}::text)"
        ));
    }
}
