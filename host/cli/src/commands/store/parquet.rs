//! `store export --parquet`: the events of ended sagas as tables, one file for each month.
//!
//! A saga is in the file of the month (UTC) in which it ended, with all its events. The host is asked month by
//! month, first for sagas in the store and then for archived ones, and one saga after the other. A saga that is
//! archived meanwhile is found twice and written once.
//!
//! Deliberately absent: sagas that have not ended. Their events would be in another file later.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use serde::Deserialize;

use amends_api_types::{EventView, LIMIT_MAX, Page, SagaItem};
use amends_engine::{Definition, Digest, Event, SagaEvent, SagaId, Timestamp};

use super::download::{Draft, exists};
use super::withhold::{definition_of, withhold};
use crate::commands::client::{Client, escape};
use crate::commands::exit::{EXIT_DONE, is_not_found};
use crate::commands::output::{counted, say};
use crate::commands::sagas::events;

/// The columns. A time is that of the event, in milliseconds since 1970 (UTC).
const SCHEMA: &str = "message events {
    required binary saga (STRING);
    required binary definition (STRING);
    required int64 version;
    required int64 at (TIMESTAMP(MILLIS,true));
    required binary type (STRING);
    optional binary step (STRING);
    required binary data (STRING);
}";

/// The bytes of data and the rows after which a row group ends. This much is held in memory, and the events of
/// one saga more.
const GROUP_BYTES: usize = 8 << 20;
const GROUP_ROWS: usize = 100_000;

/// The level of compression.
const LEVEL: i32 = 3;

/// A month of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Month {
    year: u16,
    /// From 1.
    month: u8,
}

impl Month {
    /// Returns the month of a time as the API writes it.
    fn of(time: &str) -> Option<Self> {
        time.get(..7)?.parse().ok()
    }

    const fn next(self) -> Self {
        match self.month {
            12 => Self { year: self.year + 1, month: 1 },
            month => Self { month: month + 1, ..self },
        }
    }

    /// Returns the last moment before it, and the first one after it.
    fn limits(self) -> [Timestamp; 2] {
        let begin =
            |month: Self| format!("{month}-01T00:00:00Z").parse::<Timestamp>().unwrap_or_default();
        [begin(self).before(Duration::from_millis(1)), begin(self.next())]
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a month is written as 2026-11";
        let (year, month) = text.split_once('-').ok_or(wrong)?;
        let is_right = year.len() == 4
            && month.len() == 2
            && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let (year, month) = (year.parse().map_err(|_| wrong)?, month.parse().map_err(|_| wrong)?);
        if is_right && year < 9999 && (1..=12).contains(&month) {
            Ok(Self { year, month })
        } else {
            Err(wrong)
        }
    }
}

/// What is exported, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    /// Only sagas that ended in this month.
    pub month: Option<Month>,
    /// A file that exists is replaced.
    pub replace: bool,
    /// Personal values are written, too.
    pub personal: bool,
}

/// Writes the files. Each appears under its name when it is complete.
pub(super) async fn export(
    client: &Client,
    folder: &Path,
    Tables { month, replace: may_replace, personal }: Tables,
) -> anyhow::Result<u8> {
    let file = |month: Month| folder.join(format!("events-{month}.parquet"));
    let months = match month {
        Some(month) => BTreeSet::from([month]),
        None => months(client).await?,
    };
    // Before any work.
    if let Some(month) = months.iter().find(|month| !may_replace && is_there(&file(**month))) {
        return Err(exists(&file(*month)).into());
    }
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{} cannot be made", folder.display()))?;
    for month in months {
        let target = file(month);
        let mut draft = Draft::create(&target)?;
        let Written { sagas, events, deleted } =
            write_month(client, (month, personal), draft.file()?).await.with_context(|| {
                format!("{} cannot be written; nothing of it is kept", target.display())
            })?;
        if sagas > 0 {
            draft.finish(&target, may_replace)?;
            let (events, sagas) = (counted(events, "event"), counted(sagas, "saga"));
            say!("{} has {events} of {sagas}", target.display())?;
        } else {
            say!("no saga ended in {month}")?;
        }
        if deleted > 0 {
            say!(
                "  not in it, because they were deleted: {} of {month}",
                counted(deleted, "saga")
            )?;
        }
    }
    Ok(EXIT_DONE)
}

fn is_there(file: &Path) -> bool {
    file.symlink_metadata().is_ok()
}

/// Pages of ended sagas, the newest first.
struct Sagas<'c> {
    client: &'c Client,
    /// The query, without a cursor.
    query: String,
    cursor: Option<String>,
    is_over: bool,
}

impl<'c> Sagas<'c> {
    /// All that ended within a month, archived or not.
    fn of(client: &'c Client, month: Option<Month>, is_archived: bool) -> Self {
        let status = "status=completed,compensated,abandoned";
        let within = month.map_or_else(String::new, |month| {
            let [after, before] = month.limits().map(|at| escape(&at.to_string()));
            format!("&ended_after={after}&ended_before={before}")
        });
        let query = format!("/v1/sagas?{status}{within}&archived={is_archived}&limit={LIMIT_MAX}");
        Self { client, query, cursor: None, is_over: false }
    }

    /// Returns the next page; none after the last.
    async fn next(&mut self) -> anyhow::Result<Option<Vec<SagaItem>>> {
        if self.is_over {
            return Ok(None);
        }
        let cursor =
            self.cursor.as_ref().map_or_else(String::new, |at| format!("&cursor={}", escape(at)));
        let page: Page<SagaItem> = self.client.get(&format!("{}{cursor}", self.query)).await?;
        self.is_over = page.next_cursor.is_none();
        self.cursor = page.next_cursor;
        Ok(Some(page.items))
    }
}

/// Returns the month in which a saga ended.
fn month_of(saga: &SagaItem) -> Option<Month> {
    saga.ended_at.and_then(|at| Month::of(&at.to_string()))
}

/// Returns the months in which sagas ended.
async fn months(client: &Client) -> anyhow::Result<BTreeSet<Month>> {
    let mut months = BTreeSet::new();
    for is_archived in [false, true] {
        let mut sagas = Sagas::of(client, None, is_archived);
        while let Some(page) = sagas.next().await? {
            months.extend(page.iter().filter_map(month_of));
        }
    }
    Ok(months)
}

/// What was written of a month.
#[derive(Default)]
struct Written {
    sagas: u64,
    events: u64,
    /// Sagas that were deleted after their retention.
    deleted: u64,
}

/// Writes the sagas of a month.
async fn write_month(
    client: &Client,
    (month, personal): (Month, bool),
    file: File,
) -> anyhow::Result<Written> {
    let mut table = Table::new(file)?;
    let mut written = Written::default();
    let mut withheld = Withheld { client, definitions: HashMap::new() };
    let mut in_store = HashSet::new();
    for is_archived in [false, true] {
        let mut pages = Sagas::of(client, Some(month), is_archived);
        while let Some(page) = pages.next().await? {
            for saga in page.iter().filter(|saga| month_of(saga) == Some(month)) {
                // What was in the store may have been archived since.
                let id: SagaId = saga.id.parse()?;
                if is_archived && in_store.contains(&id) {
                    continue;
                }
                let mut events = match events(client, &saga.id).await {
                    Ok(events) => events,
                    // Its tombstone is listed, too.
                    Err(error) if is_not_found(&error) => {
                        written.deleted += 1;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                if !personal {
                    withheld.withhold(&saga.id, &mut events).await?;
                }
                if !is_archived {
                    in_store.insert(id);
                }
                written.sagas += 1;
                written.events += events.len() as u64;
                for event in events {
                    table.push(saga, &event)?;
                }
            }
        }
    }
    table.close()?;
    Ok(written)
}

/// Withholds the personal values of sagas.
struct Withheld<'c> {
    client: &'c Client,
    /// The definitions that were needed, by digest.
    definitions: HashMap<Digest, Arc<Definition>>,
}

impl Withheld<'_> {
    /// Replaces the personal values of a saga, if they are sealed.
    async fn withhold(&mut self, id: &str, events: &mut [EventView]) -> anyhow::Result<()> {
        let Some(first) = events.first() else { return Ok(()) };
        if !first.data.get().contains("\"sealed_key\"") {
            return Ok(());
        }
        let digest = match Event::decode(&first.kind, first.data.get()) {
            Ok(Event::Saga(SagaEvent::Started(started))) => started.definition_digest,
            Ok(_) | Err(_) => bail!("the first event of saga {id} cannot be read"),
        };
        let definition = if let Some(known) = self.definitions.get(&digest) {
            Arc::clone(known)
        } else {
            let path = format!("/v1/sagas/{}/definition", escape(id));
            let definition = definition_of(&self.client.get(&path).await?)?;
            self.definitions.insert(digest, Arc::clone(&definition));
            definition
        };
        withhold(&definition, id, events)
    }
}

/// The field of an event's data that is a column.
#[derive(Deserialize)]
struct OfStep {
    step: Option<String>,
}

/// A file that is being written, and the rows of its current row group.
struct Table {
    writer: SerializedFileWriter<File>,
    saga: Vec<ByteArray>,
    definition: Vec<ByteArray>,
    version: Vec<i64>,
    at: Vec<i64>,
    kind: Vec<ByteArray>,
    /// Those that there are; `has_step` says in which rows.
    step: Vec<ByteArray>,
    has_step: Vec<i16>,
    data: Vec<ByteArray>,
    data_bytes: usize,
}

impl Table {
    fn new(file: File) -> anyhow::Result<Self> {
        let level = ZstdLevel::try_new(LEVEL)?;
        let properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_compression(Compression::ZSTD(level))
            // Each is another one.
            .set_column_dictionary_enabled(ColumnPath::from("data"), false)
            .set_created_by(format!("amends {}", env!("CARGO_PKG_VERSION")))
            .build();
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
        let (saga, definition, version, at, kind) = Default::default();
        let (step, has_step, data) = Default::default();
        Ok(Self {
            writer,
            saga,
            definition,
            version,
            at,
            kind,
            step,
            has_step,
            data,
            data_bytes: 0,
        })
    }

    fn push(&mut self, saga: &SagaItem, event: &EventView) -> anyhow::Result<()> {
        let data = event.data.get();
        let in_data = || serde_json::from_str::<OfStep>(data).ok().and_then(|data| data.step);
        let step = event.step.clone().or_else(in_data);
        self.saga.push(saga.id.as_str().into());
        self.definition.push(saga.definition.as_str().into());
        self.version.push(i64::try_from(event.version)?);
        self.at.push(event.at.as_millis());
        self.kind.push(event.kind.as_str().into());
        self.has_step.push(step.is_some().into());
        self.step.extend(step.as_deref().map(ByteArray::from));
        self.data_bytes += data.len();
        self.data.push(data.into());
        if self.data_bytes >= GROUP_BYTES || self.data.len() >= GROUP_ROWS {
            self.end_group()?;
        }
        Ok(())
    }

    fn end_group(&mut self) -> anyhow::Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        column::<ByteArrayType>(&mut group, &mut self.saga, None)?;
        column::<ByteArrayType>(&mut group, &mut self.definition, None)?;
        column::<Int64Type>(&mut group, &mut self.version, None)?;
        column::<Int64Type>(&mut group, &mut self.at, None)?;
        column::<ByteArrayType>(&mut group, &mut self.kind, None)?;
        column::<ByteArrayType>(&mut group, &mut self.step, Some(&self.has_step))?;
        column::<ByteArrayType>(&mut group, &mut self.data, None)?;
        drop(group.close()?);
        self.has_step.clear();
        self.data_bytes = 0;
        Ok(())
    }

    fn close(mut self) -> anyhow::Result<()> {
        self.end_group()?;
        drop(self.writer.close()?);
        Ok(())
    }
}

/// Writes the next column of a row group, and forgets its values.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &mut Vec<T::T>,
    is_there: Option<&[i16]>,
) -> anyhow::Result<()> {
    let mut column = group.next_column()?.context("the table has fewer columns")?;
    let written = column.typed::<T>().write_batch(values, is_there, None)?;
    ensure!(written == values.len(), "{written} of {} values were written", values.len());
    column.close()?;
    values.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::RowAccessor as _;
    use serde_json::value::RawValue;

    use super::*;

    fn month(text: &str) -> Month {
        text.parse().unwrap()
    }

    #[test]
    fn a_month_is_read_and_followed_by_the_next() {
        assert_eq!(month("2026-11").next(), month("2026-12"));
        assert_eq!(month("2026-12").next(), month("2027-01"));
        let limits = month("2026-02").limits().map(|at| at.to_string());
        assert_eq!(limits, ["2026-01-31T23:59:59.999Z", "2026-03-01T00:00:00.000Z"]);
        assert_eq!(Month::of("2026-11-30T00:06:00.123Z"), Some(month("2026-11")));
        for text in ["2026", "2026-13", "2026-00", "2026-1", "26-11", "+026-11", "2026-11-30", ""] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_row_by_row() {
        let at = Timestamp::from_millis(1_764_000_000_123);
        let saga = SagaItem {
            id: "0198c0de-0000-7000-8000-000000000000".to_owned(),
            definition: "order".to_owned(),
            status: "completed".to_owned(),
            reason: None,
            started_at: at,
            ended_at: Some(at),
            deadline_at: None,
            next_at: None,
            key: None,
            tags: std::collections::BTreeMap::new(),
            index: std::collections::BTreeMap::new(),
            activity: None,
            archived: true,
        };
        let file = tempfile::tempfile().unwrap();
        let mut table = Table::new(file.try_clone().unwrap()).unwrap();
        let large = format!("{{\"output\":\"{}\"}}", "ä".repeat(GROUP_BYTES / 4));
        // Several row groups, with and without a step.
        let data =
            [r#"{"step":"reserve","n":1.50}"#, "{}", &large, r#"{"step":null}"#, &large, &large];
        for (number, data) in (1..).zip(data) {
            let data = RawValue::from_string(data.to_owned()).unwrap();
            let event = EventView {
                version: number,
                position: number,
                at,
                saga: None,
                plugin: None,
                service: None,
                kind: "step.started".to_owned(),
                data,
                step: None,
                idempotency_key: None,
            };
            table.push(&saga, &event).unwrap();
        }
        table.close().unwrap();

        let reader = SerializedFileReader::new(file).unwrap();
        assert!(reader.metadata().num_row_groups() > 1);
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        assert_eq!(rows.len(), data.len());
        for ((number, row), data) in (1_i64..).zip(&rows).zip(data) {
            assert_eq!(row.get_string(0).unwrap(), &saga.id);
            assert_eq!(row.get_string(1).unwrap(), "order");
            assert_eq!(row.get_long(2).unwrap(), number);
            assert_eq!(row.get_timestamp_millis(3).unwrap(), 1_764_000_000_123);
            assert_eq!(row.get_string(4).unwrap(), "step.started");
            assert_eq!(row.get_string(5).is_ok_and(|step| step == "reserve"), number == 1);
            assert_eq!(row.get_string(6).unwrap(), data);
        }
    }
}
