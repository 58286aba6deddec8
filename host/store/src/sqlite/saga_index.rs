//! The table `saga_index`: the index values of sagas, to find them by.

use amends_engine::{IndexValue, SagaId};
use rusqlite::types::Value;
use rusqlite::{Connection, params};

use crate::index_query::{IndexTest, Side};
use crate::saga_row::SagaRow;

/// The most characters that follow the beginning of an indexed text.
const CHARACTERS_MAX: usize = amends_engine::INDEX_TEXT_BYTES_MAX;

/// Writes the index values of a new row.
pub(super) fn put_index(connection: &Connection, row: &SagaRow) -> rusqlite::Result<()> {
    // The key is the whole row: one that damage has left there is the same.
    for (name, value) in &row.index {
        connection
            .prepare_cached("INSERT OR IGNORE INTO saga_index VALUES (?1, ?2, ?3)")?
            .execute(params![name.as_str(), value_column(value), row.id.as_bytes()])?;
    }
    Ok(())
}

/// Removes the index values of a saga.
pub(super) fn remove_index(connection: &Connection, saga: SagaId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM saga_index WHERE saga = ?1")?
        .execute([saga.as_bytes()])?;
    Ok(())
}

/// Returns the column `value` of an index value.
pub(super) fn value_column(value: &IndexValue) -> Value {
    match value {
        IndexValue::Bool(value) => Value::Blob(vec![u8::from(*value)]),
        IndexValue::Number(number) => match number.as_i64() {
            Some(whole) => Value::Integer(whole),
            None => Value::Real(number.as_f64().unwrap_or_default()),
        },
        IndexValue::Text(text) => Value::Text(text.clone()),
    }
}

/// Returns a test of the column `value` as SQL, with the values of its marks. `{value}` in it stands for
/// the column.
pub(super) fn condition_of(test: &IndexTest) -> (String, Vec<Value>) {
    match test {
        IndexTest::Equals(any) => {
            let values: Vec<_> = any.iter().map(value_column).collect();
            let marks = vec!["?"; values.len()].join(", ");
            let is = if values.len() == 1 { "= ?".to_owned() } else { format!("IN ({marks})") };
            (format!("{{value}} {is}"), values)
        }
        IndexTest::Compares(side, limit) => {
            // Values of other kinds sort before or after all of this kind.
            let others = match (limit, side) {
                (IndexValue::Number(_), Side::From | Side::Above) => " AND {value} < ''",
                (IndexValue::Text(_), Side::From | Side::Above) => " AND {value} < x''",
                (IndexValue::Text(_), Side::Below | Side::UpTo) => " AND {value} >= ''",
                (IndexValue::Number(_), Side::Below | Side::UpTo) | (IndexValue::Bool(_), _) => "",
            };
            (format!("{{value}} {} ?{others}", side.as_str()), vec![value_column(limit)])
        }
        IndexTest::BeginsWith(beginning) => {
            // No text that begins so is greater, because none is longer and has greater characters.
            let last: String =
                beginning.chars().chain(std::iter::repeat_n(char::MAX, CHARACTERS_MAX)).collect();
            let values = [beginning.clone(), last].map(Value::Text);
            ("{value} BETWEEN ? AND ?".to_owned(), values.into())
        }
    }
}
