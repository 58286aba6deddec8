//! Whether the projections are what the events say.

use std::collections::BTreeMap;

use amends_engine::{Digest, SagaId, SubjectKeyId, Timestamp, on_one_line};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Result, Row, ToSql, params, params_from_iter};

use crate::derived::DerivedSaga;
use crate::rebuild::{KeyPart, Projection, RowKey};
use crate::saga_row::SagaRow;
use crate::sqlite::column::readable;
use crate::sqlite::derive::{PinnedDefinitions, derive};
use crate::sqlite::failures::element_of;
use crate::sqlite::saga_columns::{SAGA_COLUMNS, saga_row};
use crate::sqlite::saga_index::value_column;

/// The most findings of one check. More would say nothing new.
const FINDINGS_MAX: usize = 100;

/// The most rows of a table that one page looks at, and the most that it finds.
const ROWS_SEEN_MAX: usize = 10_000;
const STRAYS_MAX: usize = 256;

/// The most bytes of a value that a finding quotes.
const VALUE_BYTES_QUOTED: usize = 100;

/// What comparing the projections with the events came to.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// The sagas whose events cannot be folded, so that nothing was compared, with the first of them
    /// and its reason.
    pub(crate) not_folded: u64,
    pub(crate) first_not_folded: Option<(SagaId, String)>,
    /// What differs, each a sentence.
    pub(crate) findings: Vec<String>,
    /// How many of the findings a rebuild mends: all but the rows of sagas without events.
    pub(crate) mendable: usize,
    /// How many differences there are that a rebuild mends.
    differences: usize,
    /// How many rows there are of sagas without events.
    kept: usize,
}

impl Compared {
    /// Adds what a rebuild mends.
    fn add_difference(&mut self, finding: String) {
        self.differences += 1;
        if self.differences <= FINDINGS_MAX {
            self.findings.push(finding);
            self.mendable += 1;
        }
    }

    /// Adds a row of a saga that has no events.
    fn add_kept(&mut self, saga: SagaId, table: &str) {
        self.kept += 1;
        if self.kept <= FINDINGS_MAX {
            self.findings
                .push(format!("saga {saga}, table {table}: there is a row, and no events"));
        }
    }
}

/// Compares the projections with the events, one saga after another.
pub(crate) fn compare_projections(connection: &Connection) -> Result<Compared> {
    let mut compared = Compared::default();
    let mut definitions = PinnedDefinitions::default();
    let mut after = None;
    while let ids = saga_ids(connection, after, 1_000)?
        && let Some(last) = ids.last()
    {
        after = Some(*last);
        for id in &ids {
            match derive(connection, &mut definitions, *id)? {
                Ok(derived) => {
                    for difference in differences(connection, &derived)? {
                        compared.add_difference(format!("saga {id}, {difference}"));
                    }
                }
                Err(reason) => {
                    compared.not_folded += 1;
                    compared.first_not_folded.get_or_insert((*id, reason));
                }
            }
        }
    }
    for table in Projection::ALL {
        // A row without events is found by whoever compares rows and streams.
        if table == Projection::Sagas {
            continue;
        }
        let mut after = None;
        loop {
            let page = strays(connection, &mut definitions, table, after.as_ref())?;
            let name = table.as_str();
            for Stray { saga, key } in page.rows {
                let of = saga.map_or_else(|| "no saga".to_owned(), |id| format!("saga {id}"));
                let row: Vec<_> = key.0.iter().map(|part| shown(&part_value(part))).collect();
                let row = row.join(", ");
                compared.add_difference(format!(
                    "{of}, table {name}: there is the row {row}, and by its events there is none"
                ));
            }
            page.kept.into_iter().for_each(|saga| compared.add_kept(saga, name));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    if compared.differences > FINDINGS_MAX {
        let more = compared.differences - FINDINGS_MAX;
        compared.findings.push(format!("{more} more differences of the projections"));
        compared.mendable += 1;
    }
    Ok(compared)
}

/// Returns the sagas that have events, by ascending id after one.
pub(crate) fn saga_ids(
    connection: &Connection,
    after: Option<SagaId>,
    limit: u32,
) -> Result<Vec<SagaId>> {
    let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
    let sql = "SELECT DISTINCT stream FROM appends WHERE stream > ?1 AND length(stream) = 16
               AND typeof(stream) = 'blob' ORDER BY stream LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map(params![after, limit], |row| row.get(0).map(SagaId::from_bytes))?.collect()
}

/// One column, or row, that is not what the events say.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) table: Projection,
    what: String,
    /// True when the words of a failure may be indexed that its text has not.
    pub(crate) is_of_words: bool,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table {}{}", self.table.as_str(), self.what)
    }
}

/// Compares what is stored of a saga with what was derived.
pub(crate) fn differences(
    connection: &Connection,
    derived: &DerivedSaga,
) -> Result<Vec<Difference>> {
    let mut found = Found(Vec::new());
    compare_row(connection, &derived.row, &mut found)?;
    compare_tags(connection, &derived.row, &mut found)?;
    compare_index(connection, &derived.row, &mut found)?;
    compare_failures(connection, derived, &mut found)?;
    compare_key(connection, derived, &mut found)?;
    Ok(found.0)
}

/// The differences that were found.
struct Found(Vec<Difference>);

impl Found {
    fn add(&mut self, table: Projection, what: String) {
        self.0.push(Difference { table, what, is_of_words: false });
    }

    /// Says of the differences from this place on that words may be wrong.
    fn are_of_words(&mut self, from: usize) {
        self.0.iter_mut().skip(from).for_each(|one| one.is_of_words = true);
    }

    /// Compares two values of a column. `row` says which row it is, when a saga has several.
    fn column(&mut self, table: Projection, row: &str, column: &str, is: &Value, should: &Value) {
        if is != should {
            let (is, should) = (shown(is), shown(should));
            let what =
                format!("{row}, column {column}: it is {is}, and by its events it is {should}");
            self.add(table, what);
        }
    }
}

/// Reads any value. A text that is not UTF-8 is read as bytes, so that it ends no check.
fn value(row: &Row<'_>, column: usize) -> Result<Value> {
    let found = row.get_ref(column)?;
    Ok(Value::try_from(found)
        .unwrap_or_else(|_| Value::Blob(found.as_bytes().map(<[u8]>::to_vec).unwrap_or_default())))
}

/// Writes a value for people.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => {
            let cut = &text[..text.floor_char_boundary(VALUE_BYTES_QUOTED)];
            format!("`{}`", on_one_line(cut))
        }
        Value::Blob(bytes) => match (bytes.as_slice().try_into(), bytes.as_slice().try_into()) {
            (Ok(id), _) => SagaId::from_bytes(id).to_string(),
            (_, Ok(digest)) => Digest::from_bytes(digest).to_string(),
            _ => format!("{bytes:02x?}"),
        },
    }
}

fn text(text: &(impl ToString + ?Sized)) -> Value {
    Value::Text(text.to_string())
}

fn time(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, |time| Value::Integer(time.as_millis()))
}

/// The columns of a row that can be compared, in the order of the table.
fn columns(row: &SagaRow) -> [(&'static str, Value); 12] {
    let json = |json: serde_json::Result<String>| json.map_or(Value::Null, Value::Text);
    let bytes = |key: SubjectKeyId| Value::Blob(key.as_bytes().to_vec());
    [
        ("definition", text(&row.definition)),
        ("definition_digest", Value::Blob(row.definition_digest.as_bytes().to_vec())),
        ("status", text(&row.status)),
        ("reason", row.reason.as_ref().map_or(Value::Null, text)),
        ("started_at", time(Some(row.started_at))),
        ("ended_at", time(row.ended_at)),
        ("deadline_at", time(row.deadline_at)),
        ("wake_at", time(row.wake_at)),
        ("tags", json(serde_json::to_string(&row.tags))),
        ("key", row.key.as_ref().map_or(Value::Null, text)),
        ("index_values", json(serde_json::to_string(&row.index))),
        ("subject_key", row.subject_key.map_or(Value::Null, bytes)),
    ]
}

fn compare_row(connection: &Connection, should: &SagaRow, found: &mut Found) -> Result<()> {
    let table = Projection::Sagas;
    let stored = connection
        .prepare_cached(&format!("SELECT {SAGA_COLUMNS} FROM sagas WHERE id = ?1"))?
        .query_row([should.id.as_bytes()], |row| readable(saga_row(row), SAGA_COLUMNS))
        .optional()?;
    match stored {
        None => found.add(table, ": there is no row, and it has events".to_owned()),
        Some(Err(reason)) => found.add(table, format!(", column {reason}")),
        Some(Ok(is)) => {
            for ((column, is), (_, should)) in columns(&is).iter().zip(&columns(should)) {
                found.column(table, "", column, is, should);
            }
        }
    }
    Ok(())
}

fn compare_tags(connection: &Connection, should: &SagaRow, found: &mut Found) -> Result<()> {
    let sql = "SELECT 1 FROM saga_tags WHERE name = ?1 AND value = ?2 AND saga = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    for (name, value) in &should.tags {
        if !statement.exists(params![name, value, should.id.as_bytes()])? {
            let tag = shown(&text(&format!("{name}={value}")));
            found.add(Projection::Tags, format!(": the tag {tag} is missing"));
        }
    }
    Ok(())
}

fn compare_index(connection: &Connection, should: &SagaRow, found: &mut Found) -> Result<()> {
    let table = Projection::Index;
    let sql = "SELECT name, value FROM saga_index INDEXED BY saga_index_saga WHERE saga = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([should.id.as_bytes()])?;
    let mut left: BTreeMap<String, Value> =
        should.index.iter().map(|(name, value)| (name.to_string(), value_column(value))).collect();
    while let Some(row) = rows.next()? {
        let (name, is) = (value(row, 0)?, value(row, 1)?);
        let Value::Text(name) = name else { continue };
        if let Some(should) = left.remove(&name) {
            found.column(table, &format!(", `{name}`"), "value", &is, &should);
        } else {
            let is = shown(&is);
            found.add(table, format!(": `{name}` is {is}, and by its events there is none"));
        }
    }
    for (name, value) in left {
        found.add(table, format!(": `{name}` is missing, by its events it is {}", shown(&value)));
    }
    Ok(())
}

/// The columns of a failure, all but the saga.
const FAILURE_COLUMNS: [&str; 7] =
    ["step", "element", "call", "position", "code", "digest", "text"];

fn compare_failures(
    connection: &Connection,
    derived: &DerivedSaga,
    found: &mut Found,
) -> Result<()> {
    let table = Projection::Failures;
    let sql = format!("SELECT {} FROM failures WHERE saga = ?1", FAILURE_COLUMNS.join(", "));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([derived.row.id.as_bytes()])?;
    let mut left: Vec<[Value; 7]> = derived.failures.iter().map(failure_columns).collect();
    while let Some(row) = rows.next()? {
        let mut is = [const { Value::Null }; 7];
        for (number, column) in is.iter_mut().enumerate() {
            *column = value(row, number)?;
        }
        let name = failure_name(&is);
        let before = found.0.len();
        let Some(place) = left.iter().position(|should| should[..3] == is[..3]) else {
            found.add(table, format!("{name}: there is a row, and by its events there is none"));
            // Its text may be another than the one that was indexed.
            found.are_of_words(before);
            continue;
        };
        let should = left.swap_remove(place);
        for (number, column) in FAILURE_COLUMNS.iter().enumerate() {
            found.column(table, &name, column, &is[number], &should[number]);
        }
        let is_other_text = is[6] != should[6] || is[3] != should[3];
        if is_other_text || !has_words(connection, &should)? {
            if found.0.len() == before {
                found.add(table, format!("{name}: its words are not in the index of words"));
            }
            found.are_of_words(before);
        }
    }
    for should in &left {
        found.add(table, format!("{}: the row is missing", failure_name(should)));
        found.are_of_words(found.0.len() - 1);
    }
    Ok(())
}

fn failure_columns(
    (position, failure): &(amends_engine::Position, crate::SagaFailure),
) -> [Value; 7] {
    let step = failure.step.as_ref();
    [
        text(step.map_or("", |step| step.step())),
        Value::Integer(element_of(step)),
        text(failure.call.as_str()),
        Value::Integer(crate::sqlite::column::to_integer(position.0)),
        text(&failure.code),
        failure.digest.map_or(Value::Null, |digest| Value::Blob(digest.as_bytes().to_vec())),
        text(&failure.text),
    ]
}

/// Names a failure as `, step payment, execute`.
fn failure_name(columns: &[Value; 7]) -> String {
    format!(", step {}, call {}", shown(&columns[0]), shown(&columns[2]))
}

/// Returns true when the index of words has those of a failure at its position.
fn has_words(connection: &Connection, failure: &[Value; 7]) -> Result<bool> {
    let (Value::Text(text), Value::Integer(position)) = (&failure[6], &failure[3]) else {
        return Ok(true);
    };
    if !text.contains(|letter: char| letter.is_ascii_alphanumeric()) {
        return Ok(true);
    }
    // One phrase, which FTS5 splits into words as it did the text.
    let phrase = format!("\"{}\"", text.replace('\0', " ").replace('"', "\"\""));
    let sql = "SELECT 1 FROM failure_texts WHERE failure_texts MATCH ?1 AND rowid = ?2";
    connection.prepare_cached(sql)?.exists(params![phrase, position])
}

fn compare_key(connection: &Connection, derived: &DerivedSaga, found: &mut Found) -> Result<()> {
    let Some((should, at)) = &derived.start_key else { return Ok(()) };
    let table = Projection::Keys;
    let id = derived.row.id;
    let row = format!(", key {}", shown(&text(&should.key)));
    if has_other_owner(connection, &should.key, id)? {
        return Ok(());
    }
    let columns = ["saga", "payload_digest", "at"];
    let should = [
        Value::Blob(id.as_bytes().to_vec()),
        Value::Blob(should.payload_digest.as_bytes().to_vec()),
        Value::Integer(at.as_millis()),
    ];
    let sql = "SELECT saga, payload_digest, at FROM start_keys WHERE key = ?1";
    let key = &derived.row.key;
    let stored = connection
        .prepare_cached(sql)?
        .query_row([key], |row| Ok([value(row, 0)?, value(row, 1)?, value(row, 2)?]));
    match stored.optional()? {
        None if derived.may_lack_key => {}
        None => found.add(table, format!("{row}: the row is missing")),
        Some(is) => {
            for (column, (is, should)) in columns.iter().zip(is.iter().zip(&should)) {
                found.column(table, &row, column, is, should);
            }
        }
    }
    Ok(())
}

/// Returns true when another saga has a key: an earlier one that has it in its row as well, or one that
/// is archived.
pub(crate) fn has_other_owner(connection: &Connection, key: &str, id: SagaId) -> Result<bool> {
    let sql = "SELECT 1 FROM start_keys AS kept WHERE kept.key = ?1 AND kept.saga <> ?2 AND (
                   EXISTS (SELECT 1 FROM sagas WHERE id = kept.saga AND sagas.key = kept.key)
                   OR EXISTS (SELECT 1 FROM archived WHERE archived.saga = kept.saga))";
    connection.prepare_cached(sql)?.exists(params![key, id.as_bytes()])
}

/// A row of a projection that no saga has.
#[derive(Debug, Clone)]
pub(crate) struct Stray {
    /// The saga that the row names.
    pub(crate) saga: Option<SagaId>,
    pub(crate) key: RowKey,
}

/// What a page of a table has of rows that no saga has.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    /// Those that may be removed.
    pub(crate) rows: Vec<Stray>,
    /// The sagas without events whose rows stay: the row of a saga, or its start key. The events may be
    /// there, and damage keeps them from being found.
    pub(crate) kept: Vec<SagaId>,
    /// The last row of the page; none at the end of the table.
    pub(crate) next: Option<RowKey>,
}

/// Looks for rows that no saga has in one page of a table, after the row with a key.
pub(crate) fn strays(
    connection: &Connection,
    definitions: &mut PinnedDefinitions,
    table: Projection,
    after: Option<&RowKey>,
) -> Result<Strays> {
    let (keys, saga) = (table.key_columns(), saga_column(table));
    let columns = keys.join(", ");
    let after_key = after.map_or_else(String::new, |RowKey(parts)| {
        format!("WHERE ({columns}) > ({})", vec!["?"; parts.len()].join(", "))
    });
    // A limit of -1 lets SQLite prefer the order of the table to sorting.
    let sql = format!(
        "SELECT {columns}, {saga}, {} FROM {} NOT INDEXED {after_key} ORDER BY {columns} LIMIT -1",
        stray_condition(table),
        table.as_str(),
    );
    let values = after.iter().flat_map(|key| &key.0);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut page, mut seen) = (Strays::default(), 0);
    while let Some(row) = rows.next()? {
        seen += 1;
        let key = (0..keys.len()).map(|column| row.get_ref(column).map(key_part));
        let key = RowKey(key.collect::<Result<_>>()?);
        let is_last = (seen >= ROWS_SEEN_MAX || page.rows.len() + page.kept.len() >= STRAYS_MAX)
            && key.is_short();
        let next = is_last.then(|| key.clone());
        if row.get(keys.len() + 1)? {
            let saga = row.get(keys.len()).ok().map(SagaId::from_bytes);
            match fate(connection, definitions, table, saga, &key)? {
                Fate::Goes => page.rows.push(Stray { saga, key }),
                Fate::Stays => page.kept.extend(saga),
                Fate::IsUnsure => {}
            }
        }
        if next.is_some() {
            page.next = next;
            break;
        }
    }
    Ok(page)
}

/// What becomes of a row that the rows of sagas do not have.
enum Fate {
    Goes,
    /// Its saga has no events.
    Stays,
    /// It may be right.
    IsUnsure,
}

fn fate(
    connection: &Connection,
    definitions: &mut PinnedDefinitions,
    table: Projection,
    saga: Option<SagaId>,
    key: &RowKey,
) -> Result<Fate> {
    let is_precious = matches!(table, Projection::Sagas | Projection::Keys);
    let Some(saga) = saga else {
        return Ok(if is_precious { Fate::Stays } else { Fate::Goes });
    };
    if !has_events(connection, saga)? {
        let row = "SELECT 1 FROM sagas WHERE id = ?1";
        return Ok(if is_precious {
            Fate::Stays
        } else if connection.prepare_cached(row)?.exists([saga.as_bytes()])? {
            // Its row stays, so all else of it does.
            Fate::IsUnsure
        } else {
            Fate::Goes
        });
    }
    let Ok(derived) = derive(connection, definitions, saga)? else { return Ok(Fate::IsUnsure) };
    // The row of the saga may be the one that is wrong.
    let is_own_key = table == Projection::Keys
        && derived
            .start_key
            .is_some_and(|(own, _)| *key == RowKey(vec![KeyPart::Text(own.key.into_bytes())]));
    Ok(if is_own_key || table == Projection::Sagas { Fate::IsUnsure } else { Fate::Goes })
}

/// Removes a row, if still no saga has it. Returns how many rows went.
pub(crate) fn remove_stray(
    connection: &Connection,
    table: Projection,
    stray: &Stray,
) -> Result<usize> {
    let is: Vec<_> = table.key_columns().iter().map(|column| format!("{column} IS ?")).collect();
    let sql = format!(
        "DELETE FROM {} WHERE {} AND {}",
        table.as_str(),
        is.join(" AND "),
        stray_condition(table)
    );
    connection.prepare_cached(&sql)?.execute(params_from_iter(&stray.key.0))
}

/// Reads a column of a key, also a text that is not UTF-8.
fn key_part(value: ValueRef<'_>) -> KeyPart {
    match value {
        ValueRef::Integer(number) => KeyPart::Integer(number),
        ValueRef::Real(number) => KeyPart::Real(number),
        ValueRef::Text(bytes) => KeyPart::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => KeyPart::Blob(bytes.to_vec()),
        // No key has one.
        ValueRef::Null => KeyPart::Blob(Vec::new()),
    }
}

/// A text is bound as a text also when it is not UTF-8, so that the search for the rows after it uses the key.
impl ToSql for KeyPart {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Returns a part of a key as it is shown.
fn part_value(part: &KeyPart) -> Value {
    match part {
        KeyPart::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        KeyPart::Integer(number) => Value::Integer(*number),
        KeyPart::Real(number) => Value::Real(*number),
        KeyPart::Blob(bytes) => Value::Blob(bytes.clone()),
    }
}

fn has_events(connection: &Connection, id: SagaId) -> Result<bool> {
    connection.prepare_cached("SELECT 1 FROM appends WHERE stream = ?1")?.exists([id.as_bytes()])
}

const fn saga_column(table: Projection) -> &'static str {
    match table {
        Projection::Sagas => "id",
        Projection::Tags | Projection::Index | Projection::Failures | Projection::Keys => "saga",
    }
}

/// Returns the condition on a row that no saga has. The rows of sagas are right by then.
fn stray_condition(table: Projection) -> &'static str {
    match table {
        Projection::Sagas => "NOT EXISTS (SELECT 1 FROM appends WHERE stream = sagas.id)",
        Projection::Tags => {
            "NOT EXISTS (SELECT 1 FROM sagas,
                 json_each(CASE json_valid(sagas.tags) WHEN 1 THEN sagas.tags END) AS own
                 WHERE sagas.id = saga_tags.saga AND own.key = saga_tags.name
                 AND own.value = saga_tags.value)"
        }
        Projection::Index => "NOT EXISTS (SELECT 1 FROM sagas WHERE id = saga_index.saga)",
        Projection::Failures => "NOT EXISTS (SELECT 1 FROM sagas WHERE id = failures.saga)",
        Projection::Keys => {
            "NOT EXISTS (SELECT 1 FROM sagas WHERE id = start_keys.saga
                 AND sagas.key = start_keys.key)
             AND NOT EXISTS (SELECT 1 FROM archived WHERE archived.saga = start_keys.saga)"
        }
    }
}
