//! The keys and values of a CSV file (RFC 4180) whose first line names the columns.

use std::collections::{BTreeMap, HashMap};

use csv::{ErrorKind, Position, ReaderBuilder, StringRecord};
use serde_json::value::{RawValue, to_raw_value};

use amends_api_types::StateItem;
use amends_runtime::StateWrite;

/// The column whose cells are the values, when none is named and there is one of this name.
const VALUE_COLUMN: &str = "value";

/// A piece of a key's template.
enum Piece<'a> {
    Text(&'a str),
    Column(usize),
}

/// Where the value of a row is.
enum Value {
    Column(usize),
    /// All but those that are in the key.
    Object(Vec<usize>),
}

/// The keys and values of a file, in its order; `key` is a template with columns in braces.
///
/// # Errors
/// The first mistake, with its line, its column and what would be right.
pub(super) fn rows(
    file: &str,
    bytes: &[u8],
    key: &str,
    value: Option<&str>,
) -> anyhow::Result<Vec<StateItem>> {
    let mut reader = ReaderBuilder::new().from_reader(bytes);
    let header: Vec<String> = match reader.headers() {
        Ok(header) => header.iter().map(|name| name.trim().to_owned()).collect(),
        Err(error) => return Err(unreadable(file, bytes, &[], &error)),
    };
    check_header(file, &header)?;
    let pieces = pieces(file, &header, key)?;
    let value = value_of(file, &header, &pieces, value)?;
    let (mut items, mut lines) = (Vec::new(), HashMap::new());
    let mut records = reader.records();
    while let Some(row) = records.next() {
        let row = row.map_err(|error| unreadable(file, bytes, &header, &error))?;
        let line = line_of(bytes, row.position());
        let first = row.position().map_or(0, Position::byte);
        check_quotes(bytes, first, records.reader().position().byte())
            .map_err(|error| anyhow::anyhow!("{file} line {line}: {error}"))?;
        let key = key_of(&row, &header, &pieces)
            .map_err(|error| anyhow::anyhow!("{file} line {line}, {error}"))?;
        if let Some(earlier) = lines.insert(key.clone(), line) {
            anyhow::bail!(
                "{file} line {line}: the key `{key}` is on line {earlier} as well\n  help: remove \
                 one of the two, or take more columns into --key"
            );
        }
        let write = StateWrite { key, value: Some(cells(&row, &header, &value)?.get().to_owned()) };
        write.check().map_err(|error| anyhow::anyhow!("{file} line {line}: {error}"))?;
        let StateWrite { key, value } = write;
        items.push(StateItem { key, value: RawValue::from_string(value.unwrap_or_default())? });
    }
    Ok(items)
}

fn check_header(file: &str, header: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(
        header.iter().any(|name| !name.is_empty()),
        "{file} line 1: there is no header\n  help: the first line names the columns, such as \
         key,value"
    );
    for (index, name) in header.iter().enumerate() {
        anyhow::ensure!(
            !header[..index].contains(name),
            "{file} line 1: two columns are named `{name}`\n  help: give each a name of its own"
        );
    }
    Ok(())
}

/// The line that a row begins on. The reader's place of it is before the empty lines above it.
fn line_of(bytes: &[u8], position: Option<&Position>) -> u64 {
    let Some(position) = position else { return 1 };
    let first = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let ends = bytes.get(first..).unwrap_or_default().iter();
    let ends = ends.take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() + ends.filter(|byte| **byte == b'\n').map(|_| 1).sum::<u64>()
}

/// The reader takes a quote that is not closed to the end of the file as one that is: without this
/// a mistake would make one long text of all rows that follow.
fn check_quotes(bytes: &[u8], first: u64, end: u64) -> anyhow::Result<()> {
    let [first, end] = [first, end].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
    let row = bytes.get(first..end).unwrap_or_default();
    anyhow::ensure!(
        row.iter().fold(true, |is_even, byte| is_even != (*byte == b'"')),
        "a double quote is not closed\n  help: a cell that has one in it stands in double quotes, \
         and the one in it is doubled"
    );
    Ok(())
}

/// A template, its columns found in the header.
fn pieces<'t>(
    file: &str,
    header: &[String],
    mut template: &'t str,
) -> anyhow::Result<Vec<Piece<'t>>> {
    let mut pieces = Vec::new();
    while let Some((text, rest)) = template.split_once('{') {
        let (name, rest) = rest.split_once('}').ok_or_else(|| {
            anyhow::anyhow!("--key: a brace is not closed\n  help: write columns as {{NAME}}")
        })?;
        pieces.push(Piece::Text(text));
        pieces.push(Piece::Column(column(file, header, "--key", name)?));
        template = rest;
    }
    anyhow::ensure!(
        !pieces.is_empty(),
        "--key: without a column every row has the same key\n  help: write columns as {{NAME}}; \
         the columns of {file} are {}",
        header.join(", ")
    );
    pieces.push(Piece::Text(template));
    Ok(pieces)
}

fn value_of(
    file: &str,
    header: &[String],
    pieces: &[Piece<'_>],
    asked: Option<&str>,
) -> anyhow::Result<Value> {
    if let Some(name) = asked {
        return Ok(Value::Column(column(file, header, "--value", name)?));
    }
    let is_in_key = |index: usize| {
        pieces.iter().any(|piece| matches!(piece, Piece::Column(column) if *column == index))
    };
    let mut others = (0..header.len()).filter(|index| !is_in_key(*index));
    Ok(match others.clone().find(|index| header[*index] == VALUE_COLUMN) {
        Some(index) => Value::Column(index),
        None => Value::Object(others.by_ref().collect()),
    })
}

fn column(file: &str, header: &[String], flag: &str, name: &str) -> anyhow::Result<usize> {
    header.iter().position(|column| column == name).ok_or_else(|| {
        anyhow::anyhow!(
            "{flag}: {file} has no column `{name}`\n  help: its columns are {}",
            header.join(", ")
        )
    })
}

/// The key of a row, or which column has no part of it.
fn key_of(row: &StringRecord, header: &[String], pieces: &[Piece<'_>]) -> anyhow::Result<String> {
    let mut key = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => key.push_str(text),
            Piece::Column(index) => {
                let cell = row[*index].trim();
                anyhow::ensure!(
                    !cell.is_empty(),
                    "column `{}`: it is empty, and the key is made of it\n  help: fill it in, or \
                     remove the row",
                    header[*index]
                );
                key.push_str(cell);
            }
        }
    }
    Ok(key)
}

/// The value of a row.
fn cells(row: &StringRecord, header: &[String], value: &Value) -> anyhow::Result<Box<RawValue>> {
    match value {
        Value::Column(index) => cell(&row[*index]),
        Value::Object(indexes) => {
            let mut object = BTreeMap::new();
            for index in indexes {
                object.insert(&header[*index], cell(&row[*index])?);
            }
            Ok(to_raw_value(&object)?)
        }
    }
}

/// A number, true, false or null is that, with every digit that it has; everything else is text.
fn cell(text: &str) -> anyhow::Result<Box<RawValue>> {
    let is_scalar = !text.trim_start().starts_with(['"', '[', '{']);
    match serde_json::from_str::<Box<RawValue>>(text) {
        Ok(value) if is_scalar => Ok(value),
        Ok(_) | Err(_) => Ok(to_raw_value(text)?),
    }
}

/// What keeps a file from being read, in words.
fn unreadable(file: &str, bytes: &[u8], header: &[String], error: &csv::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::Utf8 { pos, err } => {
            let line = line_of(bytes, pos.as_ref());
            let number = format!("{}", err.field() + 1);
            let column = header.get(err.field()).unwrap_or(&number);
            anyhow::anyhow!(
                "{file} line {line}, column `{column}`: it is not UTF-8\n  help: save the file as \
                 UTF-8"
            )
        }
        ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = line_of(bytes, pos.as_ref());
            let which = usize::try_from((*len).min(*expected_len)).unwrap_or(usize::MAX);
            let what = header.get(which).map_or_else(
                || format!("the header ends with column `{}`", header[header.len() - 1]),
                |name| format!("there is nothing for column `{name}`"),
            );
            anyhow::anyhow!(
                "{file} line {line}: the row has {len} cells, the header {expected_len}; {what}\n  \
                 help: a cell that has a comma in it stands in double quotes"
            )
        }
        ErrorKind::Io(_)
        | ErrorKind::Seek
        | ErrorKind::Serialize(_)
        | ErrorKind::Deserialize { .. }
        | _ => anyhow::anyhow!("{file} cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::rows;

    /// What a file says: `key=value`, a line each.
    fn read(bytes: &[u8], key: &str, value: Option<&str>) -> String {
        match rows("stock.csv", bytes, key, value) {
            Ok(rows) => {
                let line = |row: &super::StateItem| format!("{}={}", row.key, row.value.get());
                rows.iter().map(line).collect::<Vec<_>>().join("\n")
            }
            Err(error) => error.to_string(),
        }
    }

    /// A file, `--key`, `--value`, and words of what is told.
    type Case<'a> = (&'a [u8], &'a str, Option<&'a str>, &'a [&'a str]);

    const STOCK: &[u8] = b"warehouse,sku,quantity,note\nnorth,metformin,40,\"cool, dry\"\n\
                           south,aspirin,0.50,007\n";

    #[test]
    fn a_row_is_a_key_and_a_value() {
        let by_column = read(STOCK, "stock/{warehouse}/{sku}", Some("quantity"));
        assert_eq!(by_column, "stock/north/metformin=40\nstock/south/aspirin=0.50");
        let whole = read(STOCK, "{sku}@{warehouse}", None);
        let expected = "metformin@north={\"note\":\"cool, dry\",\"quantity\":40}\n\
                        aspirin@south={\"note\":\"007\",\"quantity\":0.50}";
        assert_eq!(whole, expected);
        assert_eq!(read(b"value,key\n1,a\n", "{key}", None), "a=1");
        assert_eq!(read(b"value,kind\n1,a\n", "{value}", None), "1={\"kind\":\"a\"}");
        assert_eq!(read(b"key,value\n", "{key}", None), "", "a header alone has no rows");
    }

    #[test]
    fn a_cell_that_is_json_of_one_word_is_that() {
        let cells = ["-1.5e3", "12345678901234567890123", "true", "false", "null"];
        for cell in cells {
            assert_eq!(
                read(format!("key,value\na,{cell}\n").as_bytes(), "{key}", None),
                format!("a={cell}")
            );
        }
        for text in ["", "True", "01", "1.", "NaN", "[1]", "{}", "north", "2026-11-24"] {
            let file = format!("key,value\na,{text}\n");
            assert_eq!(read(file.as_bytes(), "{key}", None), format!("a=\"{text}\""));
        }
        assert_eq!(read(b"key,value\na,\"\"\"x\"\"\"\n", "{key}", None), r#"a="\"x\"""#);
        assert_eq!(read(b"key,value\na,\"1\n2\"\n", "{key}", None), r#"a="1\n2""#);
    }

    #[test]
    fn what_spreadsheets_write_is_read() {
        let file = b"\xEF\xBB\xBFkey, value\r\na,1\r\n\r\n b ,2";
        assert_eq!(read(file, "{key}", None), "a=1\nb=2");
        let file = b"\xEF\xBB\xBF\"key\",\"value\"\n\"a\",\"say \"\"x\"\"\"\n\"b\",\"\"";
        assert_eq!(read(file, "{key}", None), "a=\"say \\\"x\\\"\"\nb=\"\"");
    }

    #[test]
    fn a_mistake_is_told_with_its_place_and_what_would_be_right() {
        let cases: [Case<'_>; 16] = [
            (
                STOCK,
                "{sk}",
                None,
                &["--key: stock.csv has no column `sk`", "warehouse, sku, quantity, note"],
            ),
            (STOCK, "{sku}", Some("count"), &["--value: stock.csv has no column `count`"]),
            (STOCK, "{sku", None, &["--key: a brace is not closed"]),
            (STOCK, "stock", None, &["--key: without a column", "warehouse, sku"]),
            (b"", "{key}", None, &["stock.csv line 1: there is no header"]),
            (b"key,key\n", "{key}", None, &["line 1: two columns are named `key`"]),
            (
                b"key,value\na,1\nb,\"2\nc,3\nd,4\n",
                "{key}",
                None,
                &["line 3: a double quote is not closed"],
            ),
            (b"key,value\na,5\" pipe\n", "{key}", None, &["line 2: a double quote is not closed"]),
            (b"key,value\na,1\n\n ,2\n", "{key}", None, &["line 4, column `key`: it is empty"]),
            (
                b"key,value\na,1\nb,\"1\n2\"\na,3\n",
                "{key}",
                None,
                &["line 5: the key `a` is on line 2 as well"],
            ),
            (
                b"key,value\na,1\nb\n",
                "{key}",
                None,
                &["line 3: the row has 1 cells, the header 2", "nothing for column `value`"],
            ),
            (
                b"key,value\na,1\n\nb,2,3\n",
                "{key}",
                None,
                &["line 4: the row has 3 cells", "ends with column `value`"],
            ),
            (
                b"key,value\na,1\nb,\xFF\n",
                "{key}",
                None,
                &["line 3, column `value`: it is not UTF-8"],
            ),
            (
                b"key,value\r\na,1\r\n\r\nb,2\r\na,3\r\n",
                "{key}",
                None,
                &["line 5: the key `a` is on line 2 as"],
            ),
            (b"key,v\xFF\na,1\n", "{key}", None, &["line 1, column `2`: it is not UTF-8"]),
            (b"key,value\na\x07,1\n", "{key}", None, &["line 2: \"a\\u{7}\" is not a key"]),
        ];
        for (file, key, value, expected) in cases {
            let told = read(file, key, value);
            for words in expected {
                assert!(told.contains(words), "{words}:\n{told}");
            }
        }
        let long = format!("key,value\na,{}\n", "x".repeat(300 << 10));
        let told = read(long.as_bytes(), "{key}", None);
        assert!(told.starts_with("stock.csv line 2: the value of `a` has"), "{told}");
    }
}
