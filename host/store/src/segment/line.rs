//! One saga as a line of a segment: its row and its appends, as they were stored.

use std::collections::BTreeMap;

use amends_engine::{
    DefinitionName, Digest, IndexName, IndexValue, Position, SagaId, SagaStatus, SubjectKeyId,
    Timestamp, Version,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::format::{ARCHIVED_SAGA_BYTES_MAX, SegmentError, damaged};
use crate::archive::{ArchivedSaga, ImportedSaga};
use crate::error::StoreError;
use crate::events_text::events_column;
use crate::saga_row::SagaRow;
use crate::stored_event::StoredEvent;
use crate::stream::Stream;

/// The JSON of a line. Times are milliseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SagaLine {
    id: String,
    definition: String,
    definition_digest: String,
    status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    started_at: i64,
    ended_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_at: Option<i64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    index: BTreeMap<IndexName, IndexValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject_key: Option<SubjectKeyId>,
    /// It ended on another host, and its positions count within it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    imported: bool,
    appends: Vec<AppendLine>,
}

/// One append: the place of its last event in the log and in the saga, and its events.
#[derive(Debug, Serialize, Deserialize)]
struct AppendLine {
    position: u64,
    version: u64,
    at: i64,
    /// `[["step.succeeded",{…}],…]`; the same as a JSON string when it has a line feed.
    events: Box<RawValue>,
}

impl SagaLine {
    /// Makes the line of a saga without its appends. None when it has not ended.
    pub(crate) fn new(row: &SagaRow) -> Option<Self> {
        Some(Self {
            id: row.id.to_string(),
            definition: row.definition.to_string(),
            definition_digest: row.definition_digest.to_string(),
            status: row.status.as_str().to_owned(),
            reason: row.reason.clone(),
            started_at: row.started_at.as_millis(),
            ended_at: row.ended_at?.as_millis(),
            deadline_at: row.deadline_at.map(Timestamp::as_millis),
            tags: row.tags.clone(),
            index: row.index.clone(),
            key: row.key.clone(),
            subject_key: row.subject_key,
            imported: false,
            appends: Vec::new(),
        })
    }

    /// Returns true when the saga ended on another host.
    pub(crate) const fn is_imported(&self) -> bool {
        self.imported
    }

    /// Adds an append. `events` is the column of the store.
    ///
    /// # Errors
    /// When the column is no JSON.
    pub(crate) fn push(
        &mut self,
        position: Position,
        version: Version,
        at: Timestamp,
        events: &str,
    ) -> serde_json::Result<()> {
        let raw = RawValue::from_string(events.to_owned())?;
        // A line feed outside of strings is sound JSON, and would end the line.
        let is_one_line = !events.contains(['\n', '\r']) && raw.get() == events;
        let events = if is_one_line { raw } else { serde_json::value::to_raw_value(events)? };
        let (position, version, at) = (position.0, version.0, at.as_millis());
        self.appends.push(AppendLine { position, version, at, events });
        Ok(())
    }

    /// Returns the text of the line, without a line feed.
    ///
    /// # Errors
    /// Never, as far as is known: every part of a line can be written.
    pub(crate) fn to_text(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Returns the places and the stored text of the appends.
    ///
    /// # Errors
    /// When the text of an append is a JSON string that cannot be read.
    pub(crate) fn appends(&self) -> Result<Vec<(u64, u64, i64, String)>, SegmentError> {
        self.appends
            .iter()
            .map(|append| Ok((append.position, append.version, append.at, append.stored()?)))
            .collect()
    }

    /// Reads a line.
    pub(crate) fn from_text(text: &[u8]) -> Result<Self, SegmentError> {
        serde_json::from_slice(text).map_err(|error| damaged(format!("a line: {error}")))
    }

    /// Returns the row of the saga.
    pub(crate) fn row(&self) -> Result<SagaRow, SegmentError> {
        let wrong = |what: &str| damaged(format!("the line of saga {}: {what}", self.id));
        let time = Timestamp::from_millis;
        Ok(SagaRow {
            id: self.id.parse().map_err(|_| wrong("its id"))?,
            definition: self
                .definition
                .parse::<DefinitionName>()
                .map_err(|_| wrong("its definition"))?,
            definition_digest: self
                .definition_digest
                .parse::<Digest>()
                .map_err(|_| wrong("the digest of its definition"))?,
            status: SagaStatus::from_word(&self.status).ok_or_else(|| wrong("its status"))?,
            reason: self.reason.clone(),
            started_at: time(self.started_at),
            ended_at: Some(time(self.ended_at)),
            deadline_at: self.deadline_at.map(time),
            wake_at: None,
            tags: self.tags.clone(),
            index: self.index.clone(),
            key: self.key.clone(),
            subject_key: self.subject_key,
        })
    }
}

/// Returns the line of a saga that ended on another host.
///
/// # Errors
/// [`StoreError::Invalid`] when it has not ended, has no event or is too large.
pub(crate) fn imported_line(saga: &ImportedSaga) -> Result<String, StoreError> {
    let invalid = StoreError::Invalid;
    let line = SagaLine::new(&saga.row).ok_or(invalid("a saga that is imported has ended"))?;
    let mut line = SagaLine { imported: true, ..line };
    if saga.events.is_empty() {
        return Err(invalid("a saga that is imported has events"));
    }
    for (version, (at, event)) in (1..).zip(&saga.events) {
        let column = events_column(std::slice::from_ref(event));
        line.push(Position(version), Version(version), *at, &column)
            .map_err(|_| invalid("the data of an event is JSON"))?;
    }
    let text = line.to_text().map_err(|_| invalid("the data of an event is JSON"))?;
    if text.len() > ARCHIVED_SAGA_BYTES_MAX {
        return Err(invalid("a saga that is imported has at most 64 MiB"));
    }
    Ok(text)
}

impl AppendLine {
    /// Returns the events as the store had them.
    fn stored(&self) -> Result<String, SegmentError> {
        let text = self.events.get();
        if text.starts_with('"') {
            return serde_json::from_str(text).map_err(|error| damaged(format!("events: {error}")));
        }
        Ok(text.to_owned())
    }
}

/// Reads the line of a saga, and checks that its events are all there.
pub(crate) fn parse_line(text: &[u8], id: SagaId) -> Result<ArchivedSaga, SegmentError> {
    let line = SagaLine::from_text(text)?;
    let row = line.row()?;
    if row.id != id {
        return Err(damaged(format!("the line of saga {} is in the place of saga {id}", row.id)));
    }
    let mut log: Vec<StoredEvent> = Vec::new();
    for (position, version, at, text) in line.appends()? {
        let wrong =
            |what: String| damaged(format!("the line of saga {id}, version {version}: {what}"));
        let events: Vec<(String, &RawValue)> =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let count = events.len() as u64;
        let before = log.last().map_or(0, |last| last.version.0);
        if count == 0 || before.checked_add(count) != Some(version) || position < count {
            return Err(wrong(format!("{count} events do not follow version {before}")));
        }
        for (back, (kind, data)) in (0..count).rev().zip(events) {
            log.push(StoredEvent {
                position: Position(position - back),
                stream: Stream::Saga(id),
                version: Version(version - back),
                at: Timestamp::from_millis(at),
                kind,
                data: data.get().to_owned(),
            });
        }
    }
    if log.is_empty() {
        return Err(damaged(format!("the line of saga {id} has no events")));
    }
    Ok(ArchivedSaga { row, events: log, is_imported: line.is_imported() })
}
