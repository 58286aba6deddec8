//! Sagas that may go to the archive.

use std::collections::HashMap;

use amends_engine::{SagaId, Timestamp, Version};
use uuid::Uuid;

use crate::archive::{EndedContent, EndedPage, EndedSaga};
use crate::id_time::last_id;
use crate::paging::PageBudget;
use crate::postgres::columns::{
    APPEND_COLUMNS, AppendRow, SAGA_COLUMNS, append_row, saga, saga_row,
};
use crate::postgres::connection::Pg;
use crate::postgres::error::{Failure, Result};
use crate::postgres::readers::{begin, end};
use crate::postgres::text::uuid_of;
use crate::saga_row::SagaRow;
use crate::segment::{ARCHIVED_SAGA_BYTES_MAX, SagaLine};

/// The bytes of lines after which a page of them ends.
const LINES_BYTES: usize = 4 << 20;

/// Returns a page of ended sagas, see [`crate::Archive::ended`].
pub(in crate::postgres) async fn ended(
    pg: &Pg,
    before: Timestamp,
    after: Option<SagaId>,
    budget: PageBudget,
) -> Result<EndedPage> {
    let sql =
        format!("SELECT {SAGA_COLUMNS} FROM sagas WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3");
    let after = after.map_or(Uuid::nil(), uuid_of);
    let limit = i64::from(budget.items);
    begin(pg).await?;
    let rows = pg.query(&sql, &[&after, &Uuid::from_bytes(last_id(before)), &limit]).await?;
    let last = rows.last().map(|row| saga(row, 0)).transpose()?;
    let (mut page, mut found) = (Vec::new(), Vec::new());
    for row in &rows {
        let id = saga(row, 0)?;
        match saga_row(row) {
            Ok(row) if row.ended_at.is_none_or(|at| at >= before) => {}
            Ok(row) => found.push(row),
            Err(Failure::Unreadable(reason)) => {
                page.push(EndedSaga { id, content: Err(format!("its row: {reason}")) });
            }
            Err(failure) => return Err(failure),
        }
    }
    let ids: Vec<_> = found.iter().map(|row| uuid_of(row.id)).collect();
    let ends = format!(
        "SELECT {APPEND_COLUMNS}, first FROM appends WHERE saga = ANY($1) AND (first = 1 OR first =
             (SELECT max(last.first) FROM appends AS last WHERE last.saga = appends.saga))
         ORDER BY saga, first"
    );
    let mut appends: HashMap<SagaId, Vec<AppendRow>> = HashMap::new();
    for row in pg.query(&ends, &[&ids]).await? {
        appends.entry(saga(&row, 1)?).or_default().push(append_row(&row)?);
    }
    end(pg).await?;
    for row in found {
        let id = row.id;
        page.push(EndedSaga { id, content: ended_content(row, appends.remove(&id)) });
    }
    page.sort_by_key(|saga| saga.id);
    let is_full = rows.len() == budget.items as usize && !rows.is_empty();
    Ok(EndedPage { sagas: page, next: last.filter(|_| is_full) })
}

fn ended_content(
    row: SagaRow,
    appends: Option<Vec<AppendRow>>,
) -> std::result::Result<EndedContent, String> {
    let appends = appends.unwrap_or_default();
    let (Some(first), Some(last)) = (appends.first(), appends.last()) else {
        return Err("it has no events".to_owned());
    };
    let no_events = || "one of its appends has no events".to_owned();
    let first = first.events()?.into_iter().next().ok_or_else(no_events)?;
    let last = last.events()?.pop().ok_or_else(no_events)?;
    Ok(EndedContent { row, first, last })
}

/// The version and the line of a saga; or why it stays.
pub(in crate::postgres) type Line = std::result::Result<(Version, String), String>;

/// Returns the lines of the first of some sagas, as many as a page holds; at least one.
pub(in crate::postgres) async fn lines(pg: &Pg, ids: &[SagaId]) -> Result<Vec<Line>> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for id in ids {
        let line = line(pg, *id).await?;
        bytes += line.as_ref().map_or(0, |(_, text)| text.len());
        page.push(line);
        if bytes >= LINES_BYTES {
            break;
        }
    }
    Ok(page)
}

/// Returns the line of a saga, or the reason why it has none. All of it is one snapshot.
async fn line(pg: &Pg, id: SagaId) -> Result<Line> {
    begin(pg).await?;
    let row = match super::lookup::saga(pg, id).await {
        Ok(Some(row)) => Ok(row),
        Ok(None) => Err("it has no row".to_owned()),
        Err(Failure::Unreadable(reason)) => Err(format!("its row: {reason}")),
        Err(failure) => return Err(failure),
    };
    let size = "SELECT coalesce(sum(octet_length(events)), 0)::int8 FROM appends WHERE saga = $1";
    let size = pg.first(size, &[&uuid_of(id)]).await?;
    let bytes: i64 = size.map_or(Ok(0), |row| row.try_get(0))?;
    let mut appends = Vec::new();
    if usize::try_from(bytes).is_ok_and(|bytes| bytes <= ARCHIVED_SAGA_BYTES_MAX) {
        let sql = format!("SELECT {APPEND_COLUMNS} FROM appends WHERE saga = $1 ORDER BY first");
        for row in pg.query(&sql, &[&uuid_of(id)]).await? {
            appends.push(append_row(&row)?);
        }
    }
    end(pg).await?;
    if bytes > 0 && appends.is_empty() {
        return Ok(Err(too_large()));
    }
    Ok(row.and_then(|row| line_of(&row, &appends)))
}

fn line_of(row: &SagaRow, appends: &[AppendRow]) -> Line {
    let mut line = SagaLine::new(row).ok_or_else(|| "it has not ended".to_owned())?;
    let mut version = Version(0);
    for append in appends {
        let number = version.0 + 1;
        let events = append.events().map_err(|reason| format!("its event {number}: {reason}"))?;
        let first = events.first().map(|event| event.version.0);
        let Some(last) = events.last().filter(|_| first == Some(number)) else {
            return Err(format!("its event {number} is missing"));
        };
        line.push(last.position, last.version, last.at, &append.text)
            .map_err(|error| format!("its event {number}: {error}"))?;
        version = last.version;
    }
    if version == Version(0) {
        return Err("it has no events".to_owned());
    }
    match line.to_text() {
        Ok(text) if text.len() > ARCHIVED_SAGA_BYTES_MAX => Err(too_large()),
        Ok(text) => Ok((version, text)),
        Err(error) => Err(error.to_string()),
    }
}

fn too_large() -> String {
    format!("it has more than {} MiB, so it stays in the store", ARCHIVED_SAGA_BYTES_MAX >> 20)
}
