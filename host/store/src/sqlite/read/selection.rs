//! Which rows of the sagas table a query selects, and along which index.

use amends_engine::{SagaId, SagaStatus, StepName};
use rusqlite::types::Value;
use rusqlite::{Connection, Result};

use crate::blob::BlobKind;
use crate::failure_query::FailureQuery;
use crate::index_query::{IndexCondition, IndexTest};
use crate::saga_query::{IdPart, SagaQuery};
use crate::sqlite::column::parse;
use crate::sqlite::failures::element_of;
use crate::sqlite::saga_index::condition_of;
use crate::sqlite::saga_life::longest_life;
use crate::sqlite::start_delay::{first_id, last_id, start_delay};

/// A part of the sagas that a query selects. No saga is in two parts.
pub(super) struct Selection {
    /// The tables, and the index that is walked along.
    pub(super) from: &'static str,
    /// The column of the saga's id that the index has.
    pub(super) id: &'static str,
    /// The conditions as SQL, joined by `AND`.
    pub(super) wheres: String,
    /// The values of their marks.
    pub(super) values: Vec<Value>,
    /// True when a saga may be there more than once.
    pub(super) repeats: bool,
}

impl Selection {
    /// Returns the query for some columns of each saga once, the newest saga first.
    pub(super) fn to_sql(&self, columns: &str) -> String {
        let Self { from, id, wheres, .. } = self;
        // SQLite walks the index backwards for both clauses, and sorts nothing.
        let once = if self.repeats { format!("GROUP BY {id}") } else { String::new() };
        // A limit of -1 means none, and lets SQLite prefer an index in this order to sorting. Readers
        // stop when they have enough rows, so that unreadable ones do not count.
        format!("SELECT {columns} FROM {from} WHERE {wheres} {once} ORDER BY {id} DESC LIMIT -1")
    }
}

/// The table or index that a selection walks along, from the greatest id down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    /// All sagas.
    All,
    /// The sagas of one definition.
    Definition,
    /// The sagas that have not ended and do not wait.
    Live,
    /// The sagas that wait.
    Waiting,
    /// The sagas of one status that few sagas have.
    Rare,
    /// The sagas with one tag.
    Tag,
    /// The sagas with one index value.
    Index,
    /// The sagas with index values of one name in a range, sorted by the value.
    IndexRange,
    /// The sagas with a failure that has some words.
    FailureText,
    /// The sagas with a failure of one code.
    FailureCode,
    /// The sagas with a failure of one step.
    FailureStep,
    /// The sagas with a failure of some components.
    FailureDigest,
    /// The saga that was started with one key.
    Key,
}

/// Returns what a query selects. The limit is not applied.
pub(super) fn selections(connection: &Connection, query: &SagaQuery) -> Result<Vec<Selection>> {
    let Some(digest) = query.definition_digest.as_ref().filter(|_| query.definition.is_none())
    else {
        return named_selections(connection, query);
    };
    // No index has the digests. The definitions that the store keeps have their names, and these have one.
    let mut names = connection.prepare_cached(
        "SELECT DISTINCT name FROM blobs WHERE kind = ?1 AND digest BETWEEN ?2 AND ?3",
    )?;
    let [first, last] = digest.range();
    let names =
        names.query_map((BlobKind::Definition.as_str(), first, last), |row| parse(row, 0))?;
    let mut all = Vec::new();
    for name in names {
        let query = SagaQuery { definition: Some(name?), ..query.clone() };
        all.extend(named_selections(connection, &query)?);
    }
    if all.is_empty() {
        // No saga has an id before the first one.
        let none = SagaQuery { before: Some(SagaId::from_bytes([0; 16])), ..query.clone() };
        return named_selections(connection, &none);
    }
    Ok(all)
}

/// Returns what a query selects that has the name of a definition, or no digest of one.
fn named_selections(connection: &Connection, query: &SagaQuery) -> Result<Vec<Selection>> {
    if narrow_walk(query) != Some(Walk::Index) {
        return selections_of(connection, query);
    }
    // One walk for each kind of the value, so that none has to sort.
    let mut all = Vec::new();
    for (number, condition) in query.index.iter().enumerate() {
        let IndexTest::Equals(values) = &condition.test else { continue };
        for value in values {
            let mut query = query.clone();
            query.index[number].test = IndexTest::Equals(vec![value.clone()]);
            all.extend(selections_of(connection, &query)?);
        }
        break;
    }
    Ok(all)
}

fn selections_of(connection: &Connection, query: &SagaQuery) -> Result<Vec<Selection>> {
    let one = |walk| Ok(vec![select(connection, query, walk, None)?]);
    if query.key.is_some() {
        // One saga at most.
        return one(Walk::Key);
    }
    let narrow = narrow_walk(query);
    if let Some(part) = &query.id {
        let walk = narrow.unwrap_or(Walk::All);
        let parts = [IdCondition::BeginsWith(part), IdCondition::EndsWith(part)];
        return parts.map(|part| select(connection, query, walk, Some(part))).into_iter().collect();
    }
    if let Some(walk) = narrow {
        return one(walk);
    }
    let all = if query.definition.is_some() { Walk::Definition } else { Walk::All };
    if query.statuses.is_empty() {
        return one(all);
    }
    // One walk for each kind of status, so that each stops after `limit`.
    let mut statuses = query.statuses.clone();
    statuses.sort_unstable();
    statuses.dedup();
    let (rare, common): (Vec<SagaStatus>, Vec<SagaStatus>) =
        statuses.into_iter().partition(|status| is_rare(*status));
    let (ended, live): (Vec<_>, Vec<_>) = common.into_iter().partition(|status| status.is_end());
    let (waiting, live): (Vec<_>, Vec<_>) =
        live.into_iter().partition(|status| *status == SagaStatus::Waiting);
    let mut walks: Vec<_> = rare.into_iter().map(|status| (Walk::Rare, vec![status])).collect();
    walks.extend([(Walk::Live, live), (Walk::Waiting, waiting), (all, ended)]);
    let walks = walks.into_iter().filter(|(_, statuses)| !statuses.is_empty());
    walks
        .map(|(walk, statuses)| {
            let query = SagaQuery { statuses, ..query.clone() };
            select(connection, &query, walk, None)
        })
        .collect()
}

/// Returns the walk along what few sagas have: first what is asked for of a failure, because most
/// sagas have none, then an index value, which is of few sagas, and then a tag.
fn narrow_walk(query: &SagaQuery) -> Option<Walk> {
    let FailureQuery { step, code, digest, text } = &query.failure;
    // A range may be wide: `total>=0`. The sagas that have not completed are fewer.
    let is_of_few = !query.statuses.is_empty() && !query.statuses.contains(&SagaStatus::Completed);
    let walks = [
        (text.is_some(), Walk::FailureText),
        (code.is_some(), Walk::FailureCode),
        (step.is_some(), Walk::FailureStep),
        (digest.is_some(), Walk::FailureDigest),
        (query.index.iter().any(is_equality), Walk::Index),
        (!query.tags.is_empty(), Walk::Tag),
        (!query.index.is_empty() && !is_of_few, Walk::IndexRange),
    ];
    walks.into_iter().find_map(|(is_asked, walk)| is_asked.then_some(walk))
}

fn is_equality(condition: &IndexCondition) -> bool {
    matches!(condition.test, IndexTest::Equals(_))
}

/// Adds the conditions on index values. Those on the name that is walked along bound the walk.
fn index_conditions(query: &SagaQuery, walk: Walk, id: &str, conditions: &mut Conditions) {
    let walked = match walk {
        Walk::Index => query.index.iter().find(|condition| is_equality(condition)),
        Walk::IndexRange => query.index.first(),
        Walk::All
        | Walk::Definition
        | Walk::Live
        | Walk::Waiting
        | Walk::Rare
        | Walk::Tag
        | Walk::FailureText
        | Walk::FailureCode
        | Walk::FailureStep
        | Walk::FailureDigest
        | Walk::Key => None,
    };
    for condition in &query.index {
        let (test, values) = condition_of(&condition.test);
        let values = [Value::Text(condition.name.to_string())].into_iter().chain(values);
        let sql = if walked.is_some_and(|walked| walked.name == condition.name) {
            format!("found.name = ? AND {}", test.replace("{value}", "found.value"))
        } else {
            format!(
                "EXISTS (SELECT 1 FROM saga_index INDEXED BY saga_index_saga \
                 WHERE saga = {id} AND name = ? AND {})",
                test.replace("{value}", "value")
            )
        };
        conditions.add(&sql, values);
    }
}

/// Returns true when the index `sagas_rare` has the sagas of this status.
fn is_rare(status: SagaStatus) -> bool {
    !matches!(status, SagaStatus::Running | SagaStatus::Waiting | SagaStatus::Completed)
}

/// A condition on the id of a saga. No id fulfils both.
#[derive(Clone, Copy)]
pub(super) enum IdCondition<'query> {
    BeginsWith(&'query IdPart),
    /// The id ends with the part and does not begin with it.
    EndsWith(&'query IdPart),
}

impl IdCondition<'_> {
    /// Adds the condition. Ids with the same beginning are neighbours. A search by the end looks at
    /// all ids, in an index that has little else.
    fn add(self, id: &str, conditions: &mut Conditions) {
        match self {
            Self::BeginsWith(part) => {
                conditions.add(&format!("{id} BETWEEN ? AND ?"), part.range().map(Value::Blob));
            }
            Self::EndsWith(part) => {
                let digits = part.as_upper();
                let from = Value::Integer(33 - i64::try_from(digits.len()).unwrap_or(32));
                // The last four bytes exclude nearly all ids without converting them to text.
                let ends = "SELECT id FROM sagas INDEXED BY sagas_definition \
                            WHERE substr(id, 13) = ? AND substr(hex(id), ?) = ?";
                let values = [Value::Blob(part.last_bytes()), from, Value::Text(digits)];
                conditions.add(&format!("{id} IN ({ends})"), values);
                conditions.add(&format!("{id} NOT BETWEEN ? AND ?"), part.range().map(Value::Blob));
            }
        }
    }
}

/// Conditions as SQL, and the values of their marks in the same order.
pub(super) struct Conditions {
    wheres: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    fn none() -> Self {
        Self { wheres: vec!["true".to_owned()], values: Vec::new() }
    }

    pub(super) fn add(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.wheres.push(condition.to_owned());
        self.values.extend(values);
    }

    pub(super) fn into_parts(self) -> (String, Vec<Value>) {
        (self.wheres.join(" AND "), self.values)
    }
}

fn text(value: &(impl ToString + ?Sized)) -> [Value; 1] {
    [Value::Text(value.to_string())]
}

/// Returns the selection along one walk.
pub(super) fn select(
    connection: &Connection,
    query: &SagaQuery,
    walk: Walk,
    part: Option<IdCondition<'_>>,
) -> Result<Selection> {
    let mut conditions = Conditions::none();
    let (from, id) = tables(walk, &mut conditions);
    if let Some(key) = query.key.as_ref().filter(|_| walk == Walk::Key) {
        let is_saga = "id = (SELECT saga FROM start_keys WHERE start_keys.key = ?)";
        conditions.add(is_saga, text(key));
        if let Some(part) = &query.id {
            id_part(part, id, &mut conditions);
        }
    }
    for (number, (name, value)) in query.tags.iter().enumerate() {
        let values = [name, value].map(|part| Value::Text(part.clone()));
        if walk == Walk::Tag && number == 0 {
            conditions.add("tag.name = ? AND tag.value = ?", values);
        } else {
            let other = format!(
                "EXISTS (SELECT 1 FROM saga_tags WHERE name = ? AND value = ? AND saga = {id})"
            );
            conditions.add(&other, values);
        }
    }
    index_conditions(query, walk, id, &mut conditions);
    let repeats = from.contains("failures");
    if repeats {
        if let Some(sought) = query.failure.text.as_ref() {
            let has_text = if walk == Walk::FailureText {
                "failure_texts MATCH ?"
            } else {
                "failure.position IN (SELECT rowid FROM failure_texts WHERE failure_texts MATCH ?)"
            };
            conditions.add(has_text, text(&sought.to_match()));
        }
        failure_conditions(&query.failure, "failure", &mut conditions);
    } else if !query.failure.is_empty() {
        let (one, values) = one_failure(&query.failure);
        conditions.add(&format!("EXISTS (SELECT 1 {one} AND failed.saga = {id})"), values);
    }
    if let Some(part) = part {
        part.add(id, &mut conditions);
    }
    if let Some(digest) = &query.definition_digest {
        conditions.add("definition_digest BETWEEN ? AND ?", digest.range().map(Value::Blob));
    }
    common_conditions(connection, query, id, &mut conditions)?;
    let (wheres, values) = conditions.into_parts();
    Ok(Selection { from, id, wheres, values, repeats })
}

/// Returns the tables of a walk with their index, and the column of the saga's id.
fn tables(walk: Walk, conditions: &mut Conditions) -> (&'static str, &'static str) {
    match walk {
        Walk::All => ("sagas NOT INDEXED", "id"),
        Walk::Definition => ("sagas INDEXED BY sagas_definition", "id"),
        Walk::Live => {
            // The same words as in the index, so that SQLite knows that it may use it.
            conditions.add("ended_at IS NULL AND status <> 'waiting'", []);
            ("sagas INDEXED BY sagas_live", "id")
        }
        Walk::Waiting => {
            conditions.add("status = 'waiting'", []);
            ("sagas INDEXED BY sagas_waiting", "id")
        }
        Walk::Rare => {
            let rare = "status <> 'running' AND status <> 'waiting' AND status <> 'completed'";
            conditions.add(rare, []);
            ("sagas INDEXED BY sagas_rare", "id")
        }
        Walk::Tag => ("saga_tags AS tag CROSS JOIN sagas ON id = tag.saga", "tag.saga"),
        Walk::Index | Walk::IndexRange => {
            ("saga_index AS found CROSS JOIN sagas ON id = found.saga", "found.saga")
        }
        Walk::FailureText => (
            "failure_texts CROSS JOIN failures AS failure ON position = failure_texts.rowid \
             CROSS JOIN sagas ON id = failure.saga",
            "failure.saga",
        ),
        Walk::FailureCode => (
            "failures AS failure INDEXED BY failures_code CROSS JOIN sagas ON id = failure.saga",
            "failure.saga",
        ),
        Walk::FailureStep => (
            "failures AS failure INDEXED BY failures_step CROSS JOIN sagas ON id = failure.saga",
            "failure.saga",
        ),
        Walk::FailureDigest => {
            conditions.add("failure.digest IS NOT NULL", []);
            (
                "failures AS failure INDEXED BY failures_digest \
                 CROSS JOIN sagas ON id = failure.saga",
                "failure.saga",
            )
        }
        Walk::Key => ("sagas", "id"),
    }
}

/// Returns the failures that fulfil all conditions, as `FROM failures AS failed WHERE …`.
pub(super) fn one_failure(query: &FailureQuery) -> (String, Vec<Value>) {
    let mut conditions = Conditions::none();
    if let Some(sought) = &query.text {
        conditions.add(
            "failed.position IN (SELECT rowid FROM failure_texts WHERE failure_texts MATCH ?)",
            text(&sought.to_match()),
        );
    }
    failure_conditions(query, "failed", &mut conditions);
    let (wheres, values) = conditions.into_parts();
    (format!("FROM failures AS failed WHERE {wheres}"), values)
}

/// Adds the conditions on a failure, all but the text.
fn failure_conditions(query: &FailureQuery, table: &str, conditions: &mut Conditions) {
    if let Some(step) = &query.step {
        conditions.add(&format!("{table}.step = ?"), text(StepName::step(step)));
        if step.number().is_some() {
            let element = Value::Integer(element_of(Some(step)));
            conditions.add(&format!("{table}.element = ?"), [element]);
        }
    }
    if let Some(code) = &query.code {
        // A block has no code.
        conditions.add(&format!("{table}.code = ? AND {table}.call <> 'block'"), text(code));
    }
    if let Some(digest) = &query.digest {
        conditions.add(&format!("{table}.digest BETWEEN ? AND ?"), digest.range().map(Value::Blob));
    }
}

/// Adds that an id begins or ends with a part. Whoever asks looks at few sagas.
pub(super) fn id_part(part: &IdPart, id: &str, conditions: &mut Conditions) {
    let digits = part.as_upper();
    let [first, last] = part.range().map(Value::Blob);
    let count = Value::Integer(i64::try_from(digits.len()).unwrap_or(32));
    let either = format!("({id} BETWEEN ? AND ? OR substr(hex({id}), -?) = ?)");
    conditions.add(&either, [first, last, count, Value::Text(digits)]);
}

/// Returns the conditions that a list of sagas and one of archived sagas share. `id` is the column of
/// the saga's id.
pub(super) fn shared_conditions(
    connection: &Connection,
    query: &SagaQuery,
    id: &str,
) -> Result<Conditions> {
    let mut conditions = Conditions::none();
    common_conditions(connection, query, id, &mut conditions)?;
    Ok(conditions)
}

/// Adds those conditions. Each time bounds the ids as well, so that only a range of them is walked.
fn common_conditions(
    connection: &Connection,
    query: &SagaQuery,
    id: &str,
    conditions: &mut Conditions,
) -> Result<()> {
    let blob = |bytes: [u8; 16]| Value::Blob(bytes.to_vec());
    if let Some(before) = query.before {
        conditions.add(&format!("{id} < ?"), [blob(*before.as_bytes())]);
    }
    if let Some(after) = query.started_after {
        let first = first_id(after, start_delay(connection)?);
        let values = [blob(first), Value::Integer(after.as_millis())];
        conditions.add(&format!("{id} >= ? AND started_at > ?"), values);
    }
    if let Some(before) = query.started_before {
        let values = [blob(last_id(before)), Value::Integer(before.as_millis())];
        conditions.add(&format!("{id} < ? AND started_at < ?"), values);
    }
    if let Some(after) = query.ended_after {
        let before_end = start_delay(connection)?.saturating_add(longest_life(connection)?);
        let values = [blob(first_id(after, before_end)), Value::Integer(after.as_millis())];
        conditions.add(&format!("{id} >= ? AND ended_at > ?"), values);
    }
    if let Some(before) = query.ended_before {
        let values = [blob(last_id(before)), Value::Integer(before.as_millis())];
        conditions.add(&format!("{id} < ? AND ended_at < ?"), values);
    }
    if let Some(definition) = &query.definition {
        conditions.add("definition = ?", text(definition));
    }
    if !query.statuses.is_empty() {
        let marks = vec!["?"; query.statuses.len()].join(", ");
        let words = query.statuses.iter().map(|status| Value::Text(status.as_str().to_owned()));
        conditions.add(&format!("status IN ({marks})"), words);
    }
    Ok(())
}
