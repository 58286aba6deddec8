//! Whether the projections are what the events say.

use std::collections::BTreeSet;
use std::fmt::Debug;

use amends_engine::{SagaId, on_one_line};
use uuid::Uuid;

use super::columns::{count, digest, saga, text, time};
use super::connection::Pg;
use super::derive::{PinnedDefinitions, derive_saga};
use super::error::{Failure, Result};
use super::read;
use super::rows::{element_of, words_column};
use super::strays::{Stray, strays};
use super::text::{index_key, index_text, stored_text, uuid_of};
use crate::derived::DerivedSaga;
use crate::rebuild::Projection;
use crate::saga_failure::SagaFailure;
use crate::saga_row::SagaRow;

/// The most findings of one check. More would say nothing new.
const FINDINGS_MAX: usize = 100;

/// The most bytes of a value that a finding quotes.
const VALUE_BYTES_QUOTED: usize = 100;

/// Compares the projections with the events, one saga after another. Each finding is a sentence.
pub(super) async fn compare_projections(pg: &Pg) -> Result<Vec<String>> {
    let (mut findings, mut found) = (Vec::new(), 0);
    let mut add = |finding: String| {
        found += 1;
        if found <= FINDINGS_MAX {
            findings.push(finding);
        }
    };
    let mut definitions = PinnedDefinitions::default();
    let (mut after, mut not_folded, mut first_not_folded) = (None, 0_u64, None);
    loop {
        let ids = saga_ids(pg, after, 1_000).await?;
        let Some(last) = ids.last() else { break };
        after = Some(*last);
        for id in ids {
            match derive_saga(pg, &mut definitions, id).await? {
                Ok(derived) => {
                    let differences = differences(pg, &derived).await?;
                    for one in differences {
                        add(format!("saga {id}, {one}"));
                    }
                }
                Err(reason) => {
                    not_folded += 1;
                    first_not_folded.get_or_insert((id, reason));
                }
            }
        }
    }
    if let Some((id, reason)) = first_not_folded {
        tracing::warn!(sagas = not_folded, saga_id = %id, reason, "sagas are not compared with their events");
    }
    for table in Projection::ALL {
        // A row without events is found by whoever compares rows and streams.
        if table == Projection::Sagas {
            continue;
        }
        let (mut after, name) = (None, table.as_str());
        loop {
            let page = strays(pg, &mut definitions, table, after.as_ref()).await?;
            for Stray { saga, key } in page.rows {
                add(format!(
                    "saga {saga}, table {name}: there is the row {key}, and by its events there is none"
                ));
            }
            for saga in page.kept {
                add(format!("saga {saga}, table {name}: there is a row, and no events"));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    if found > FINDINGS_MAX {
        findings.push(format!("{} more differences of the projections", found - FINDINGS_MAX));
    }
    Ok(findings)
}

/// Returns the sagas that have events, by ascending id after one.
pub(super) async fn saga_ids(pg: &Pg, after: Option<SagaId>, limit: i64) -> Result<Vec<SagaId>> {
    // Each saga has one append with its first event.
    let sql = "SELECT saga FROM appends WHERE saga > $1 AND first = 1 ORDER BY saga LIMIT $2";
    let after = after.map_or(Uuid::nil(), uuid_of);
    let rows = pg.query(sql, &[&after, &limit]).await?;
    rows.iter().map(|row| saga(row, 0)).collect()
}

/// Returns what is stored of a saga and is not what was derived, each as a clause that names table and column.
pub(super) async fn differences(pg: &Pg, derived: &DerivedSaga) -> Result<Vec<String>> {
    let mut found = Vec::new();
    compare_row(pg, &derived.row, &mut found).await?;
    compare_tags(pg, &derived.row, &mut found).await?;
    compare_index(pg, &derived.row, &mut found).await?;
    compare_failures(pg, derived, &mut found).await?;
    compare_key(pg, derived, &mut found).await?;
    Ok(found)
}

/// Writes a value for people.
fn shown(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let cut = &text[..text.floor_char_boundary(VALUE_BYTES_QUOTED)];
    on_one_line(cut).into_owned()
}

fn differs(
    found: &mut Vec<String>,
    (table, row, column): (Projection, &str, &str),
    is: &(impl Debug + PartialEq),
    should: &(impl Debug + PartialEq),
) {
    let (is, should) = (shown(is), shown(should));
    let table = table.as_str();
    found.push(format!(
        "table {table}{row}, column {column}: it is {is}, and by its events it is {should}"
    ));
}

async fn compare_row(pg: &Pg, should: &SagaRow, found: &mut Vec<String>) -> Result<()> {
    let is = match read::saga(pg, should.id).await {
        Ok(Some(row)) => row,
        Ok(None) => {
            found.push("table sagas: there is no row, and it has events".to_owned());
            return Ok(());
        }
        Err(Failure::Unreadable(reason)) => {
            found.push(format!("table sagas, column {reason}"));
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    macro_rules! compare {
        ($($field:ident: $name:literal),* $(,)?) => {$(
            if is.$field != should.$field {
                differs(found, (Projection::Sagas, "", $name), &is.$field, &should.$field);
            }
        )*};
    }
    compare!(
        definition: "definition",
        definition_digest: "definition_digest",
        status: "status",
        reason: "reason",
        started_at: "started_at",
        ended_at: "ended_at",
        deadline_at: "deadline_at",
        wake_at: "wake_at",
        tags: "tags",
        key: "key",
        index: "index_values",
        subject_key: "subject_key",
    );
    Ok(())
}

async fn compare_tags(pg: &Pg, should: &SagaRow, found: &mut Vec<String>) -> Result<()> {
    let sql = "SELECT name, value FROM saga_tags WHERE saga = $1";
    let rows = pg.query(sql, &[&uuid_of(should.id)]).await?;
    let is = rows.iter().map(|row| Ok((text(row, 0)?, text(row, 1)?)));
    let is: BTreeSet<_> = is.collect::<Result<_>>()?;
    let should: BTreeSet<_> =
        should.tags.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, value) in should.difference(&is) {
        let tag = shown(&format!("{name}={value}"));
        found.push(format!("table saga_tags: the tag {tag} is missing"));
    }
    for (name, value) in is.difference(&should) {
        let tag = shown(&format!("{name}={value}"));
        found.push(format!(
            "table saga_tags: there is the tag {tag}, and by its events there is none"
        ));
    }
    Ok(())
}

async fn compare_index(pg: &Pg, should: &SagaRow, found: &mut Vec<String>) -> Result<()> {
    let sql = "SELECT name, value FROM saga_index WHERE saga = $1";
    let rows = pg.query(sql, &[&uuid_of(should.id)]).await?;
    let is = rows.iter().map(|row| Ok((text(row, 0)?, row.try_get::<_, Vec<u8>>(1)?)));
    let is: BTreeSet<_> = is.collect::<Result<_>>()?;
    let should: BTreeSet<_> =
        should.index.iter().map(|(name, value)| (name.to_string(), index_key(value))).collect();
    for (name, value) in should.difference(&is) {
        let value = shown(&index_text(value));
        found.push(format!("table saga_index: `{name}` is missing, by its events it is {value}"));
    }
    for (name, value) in is.difference(&should) {
        let value = shown(&index_text(value));
        found.push(format!("table saga_index: `{name}` is {value}, and by its events it is not"));
    }
    Ok(())
}

/// The columns of a failure, but the saga: those of the key first.
type FailureColumns = (String, i64, String, i64, String, Option<Vec<u8>>, String, String);

async fn compare_failures(pg: &Pg, derived: &DerivedSaga, found: &mut Vec<String>) -> Result<()> {
    let sql = "SELECT step, element, call, version, code, digest, text, words FROM failures
               WHERE saga = $1";
    let rows = pg.query(sql, &[&uuid_of(derived.row.id)]).await?;
    let is = rows.iter().map(|row| -> Result<FailureColumns> {
        Ok((
            text(row, 0)?,
            row.try_get(1)?,
            text(row, 2)?,
            row.try_get(3)?,
            text(row, 4)?,
            row.try_get(5)?,
            text(row, 6)?,
            row.try_get(7)?,
        ))
    });
    let is: BTreeSet<_> = is.collect::<Result<_>>()?;
    let should = derived.failures.iter().map(|(_, failure)| -> FailureColumns {
        let step = failure.step.as_ref();
        (
            step.map_or("", |step| step.step()).to_owned(),
            element_of(step),
            failure.call.as_str().to_owned(),
            version_of_failure(failure),
            failure.code.clone(),
            failure.digest.map(|digest| digest.as_bytes().to_vec()),
            failure.text.clone(),
            words_column(&failure.text),
        )
    });
    let should: BTreeSet<_> = should.collect();
    for (step, _, call, version, ..) in should.difference(&is) {
        found.push(format!(
            "table failures, step `{step}`, call {call}: there is not the failure of event {version}"
        ));
    }
    for (step, _, call, version, ..) in is.difference(&should) {
        found.push(format!(
            "table failures, step `{step}`, call {call}: the failure of event {version} is not that of its events"
        ));
    }
    Ok(())
}

/// Returns the version of the event that says a failure, of a saga whose events are all there.
pub(super) fn version_of_failure(failure: &SagaFailure) -> i64 {
    i64::try_from(failure.event).unwrap_or(i64::MAX - 1) + 1
}

async fn compare_key(pg: &Pg, derived: &DerivedSaga, found: &mut Vec<String>) -> Result<()> {
    let Some((should, at)) = &derived.start_key else { return Ok(()) };
    let id = derived.row.id;
    if has_other_owner(pg, &should.key, id).await? {
        return Ok(());
    }
    let sql = "SELECT saga, payload_digest, at FROM start_keys WHERE key = $1";
    let key = shown(&should.key);
    match pg.first(sql, &[&stored_text(&should.key)]).await? {
        None if derived.may_lack_key => {}
        None => found.push(format!("table start_keys, key {key}: the row is missing")),
        Some(row) => {
            let is = (saga(&row, 0)?, digest(&row, 1)?, time(&row, 2)?);
            let should = (id, should.payload_digest, *at);
            if is != should {
                let row = format!(", key {key}");
                differs(found, (Projection::Keys, &row, "saga, payload_digest, at"), &is, &should);
            }
        }
    }
    Ok(())
}

/// Returns true when another saga has a key: an earlier one that has it in its row as well, or one that
/// is archived.
pub(super) async fn has_other_owner(pg: &Pg, key: &str, id: SagaId) -> Result<bool> {
    let sql = "SELECT 1 FROM start_keys AS kept WHERE kept.key = $1 AND kept.saga <> $2 AND (
                   EXISTS (SELECT 1 FROM sagas WHERE id = kept.saga AND sagas.key = kept.key)
                   OR EXISTS (SELECT 1 FROM archived WHERE archived.saga = kept.saga))";
    pg.exists(sql, &[&stored_text(key), &uuid_of(id)]).await
}

/// Returns the version of a saga; none when it has no events.
pub(super) async fn version_of(pg: &Pg, id: SagaId) -> Result<Option<u64>> {
    let sql = "SELECT version FROM appends WHERE saga = $1 ORDER BY first DESC LIMIT 1";
    pg.first(sql, &[&uuid_of(id)]).await?.map(|row| count(&row, 0)).transpose()
}

/// Removes everything that is derived from the events of a saga, but its start key.
pub(super) async fn remove_rows(pg: &Pg, id: SagaId) -> Result<()> {
    for sql in [
        "DELETE FROM saga_tags WHERE saga = $1",
        "DELETE FROM saga_index WHERE saga = $1",
        "DELETE FROM failures WHERE saga = $1",
        "DELETE FROM sagas WHERE id = $1",
    ] {
        pg.execute(sql, &[&uuid_of(id)]).await?;
    }
    Ok(())
}
