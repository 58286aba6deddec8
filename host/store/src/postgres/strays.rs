//! Rows of projections that no saga has.

use amends_engine::SagaId;
use uuid::Uuid;

use super::columns::saga;
use super::connection::{Pg, Value, references};
use super::derive::{PinnedDefinitions, derive_saga};
use super::error::Result;
use super::readers::unreadable;
use super::text::{read_text, stored_text, uuid_of};
use crate::rebuild::{KeyPart, Projection, RowKey};

/// The rows of a table that one page looks at.
const ROWS_SEEN_MAX: i64 = 5_000;

/// A row of a projection that no saga has.
#[derive(Debug, Clone)]
pub(super) struct Stray {
    /// The saga that the row names.
    pub(super) saga: SagaId,
    pub(super) key: RowKey,
}

/// What a page of a table has of rows that no saga has.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// Those that may be removed.
    pub(super) rows: Vec<Stray>,
    /// The sagas without events whose rows stay: the row of a saga, or its start key.
    pub(super) kept: Vec<SagaId>,
    /// The last row of the page; none at the end of the table.
    pub(super) next: Option<RowKey>,
}

/// Looks for rows that no saga has in one page of a table, after the row with a key.
pub(super) async fn strays(
    pg: &Pg,
    definitions: &mut PinnedDefinitions,
    table: Projection,
    after: Option<&RowKey>,
) -> Result<Strays> {
    let (columns, name) = (key_columns(table), table.as_str());
    let keys = columns.join(", ");
    let values = after.map_or_else(|| Ok(Vec::new()), |key| bound_values(table, key))?;
    let after = after.map_or_else(String::new, |_| {
        let marks: Vec<_> = (1..=columns.len()).map(|number| format!("${number}")).collect();
        format!("WHERE ({keys}) > ({})", marks.join(", "))
    });
    let sql = format!(
        "WITH page AS (SELECT * FROM {name} {after} ORDER BY {keys} LIMIT {ROWS_SEEN_MAX})
         SELECT {keys}, {}, {} FROM page AS {name} ORDER BY {keys}",
        saga_column(table),
        stray_condition(table)
    );
    let rows = pg.query_values(&sql, &values).await?;
    let mut page = Strays::default();
    for (number, row) in rows.iter().enumerate() {
        let key = (0..columns.len()).map(|column| key_part(table, row, column));
        let key = RowKey(key.collect::<Result<_>>()?);
        if i64::try_from(number).is_ok_and(|number| number + 1 == ROWS_SEEN_MAX) {
            page.next = Some(key.clone());
        }
        if row.try_get(columns.len() + 1)? {
            let saga = saga(row, columns.len())?;
            match fate(pg, definitions, table, saga, &key).await? {
                Fate::Goes => page.rows.push(Stray { saga, key }),
                Fate::Stays => page.kept.push(saga),
                Fate::IsUnsure => {}
            }
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

async fn fate(
    pg: &Pg,
    definitions: &mut PinnedDefinitions,
    table: Projection,
    saga: SagaId,
    key: &RowKey,
) -> Result<Fate> {
    let is_precious = matches!(table, Projection::Sagas | Projection::Keys);
    if !pg.exists("SELECT 1 FROM appends WHERE saga = $1", &[&uuid_of(saga)]).await? {
        return Ok(if is_precious { Fate::Stays } else { Fate::Goes });
    }
    let Ok(derived) = derive_saga(pg, definitions, saga).await? else { return Ok(Fate::IsUnsure) };
    // The row of the saga may be the one that is wrong.
    let is_own_key = table == Projection::Keys
        && derived
            .start_key
            .is_some_and(|(own, _)| *key == RowKey(vec![KeyPart::Text(own.key.into_bytes())]));
    Ok(if is_own_key || table != Projection::Keys { Fate::IsUnsure } else { Fate::Goes })
}

/// Removes a row, if still no saga has it. Returns how many rows went.
pub(super) async fn remove_stray(pg: &Pg, table: Projection, key: &RowKey) -> Result<u64> {
    let columns = key_columns(table).iter().zip(1..);
    let is: Vec<_> = columns.map(|(column, number)| format!("{column} = ${number}")).collect();
    let sql = format!(
        "DELETE FROM {} WHERE {} AND {}",
        table.as_str(),
        is.join(" AND "),
        stray_condition(table)
    );
    let values = bound_values(table, key)?;
    pg.execute(&sql, &references(&values)).await
}

/// Reads a column of a key.
fn key_part(table: Projection, row: &tokio_postgres::Row, column: usize) -> Result<KeyPart> {
    let name = key_columns(table)[column];
    Ok(match (table, name) {
        (_, "id" | "saga") => KeyPart::Blob(row.try_get::<_, Uuid>(column)?.as_bytes().to_vec()),
        (_, "number") => KeyPart::Integer(row.try_get(column)?),
        (Projection::Index, "value") => KeyPart::Blob(row.try_get(column)?),
        _ => KeyPart::Text(read_text(row.try_get(column)?).into_bytes()),
    })
}

/// Returns the parts of a key as values of a statement.
fn bound_values(table: Projection, key: &RowKey) -> Result<Vec<Value>> {
    let bound = |(part, name): (&KeyPart, &&str)| -> Result<Value> {
        let wrong = || unreadable(format!("`{key}` is no place in the table {}", table.as_str()));
        Ok(match part {
            KeyPart::Integer(number) => Box::new(*number),
            KeyPart::Text(bytes) => {
                let text = String::from_utf8(bytes.clone()).map_err(|_| wrong())?;
                Box::new(stored_text(&text))
            }
            KeyPart::Blob(bytes) if table == Projection::Index && *name == "value" => {
                Box::new(bytes.clone())
            }
            KeyPart::Blob(bytes) => Box::new(Uuid::from_slice(bytes).map_err(|_| wrong())?),
            KeyPart::Real(_) => return Err(wrong()),
        })
    };
    key.0.iter().zip(key_columns(table)).map(bound).collect()
}

/// Returns the columns by which the rows of a table are walked.
const fn key_columns(table: Projection) -> &'static [&'static str] {
    match table {
        // A number of the row: what has one position alone is an event, and its batch may have no place yet.
        Projection::Failures => &["number"],
        Projection::Sagas | Projection::Tags | Projection::Index | Projection::Keys => {
            table.key_columns()
        }
    }
}

const fn saga_column(table: Projection) -> &'static str {
    match table {
        Projection::Sagas => "id",
        Projection::Tags | Projection::Index | Projection::Failures | Projection::Keys => "saga",
    }
}

/// Returns the condition on a row that no saga has. The rows of sagas are right by then.
const fn stray_condition(table: Projection) -> &'static str {
    match table {
        Projection::Sagas => "NOT EXISTS (SELECT 1 FROM appends WHERE appends.saga = sagas.id)",
        Projection::Tags => "NOT EXISTS (SELECT 1 FROM sagas WHERE sagas.id = saga_tags.saga)",
        Projection::Index => "NOT EXISTS (SELECT 1 FROM sagas WHERE sagas.id = saga_index.saga)",
        Projection::Failures => "NOT EXISTS (SELECT 1 FROM sagas WHERE sagas.id = failures.saga)",
        Projection::Keys => {
            "NOT EXISTS (SELECT 1 FROM sagas WHERE sagas.id = start_keys.saga
                 AND sagas.key = start_keys.key)
             AND NOT EXISTS (SELECT 1 FROM archived WHERE archived.saga = start_keys.saga)"
        }
    }
}
