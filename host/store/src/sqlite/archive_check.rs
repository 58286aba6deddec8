//! Whether the files of the archive are sound, and have the sagas that the database says they have.

use std::collections::{BTreeMap, HashMap, HashSet};

use amends_engine::SagaId;

use super::read;
use crate::archive_files::ArchiveFiles;
use crate::segment::SegmentError;

/// Checks the files of the archive against the tombstones of a database. Each finding names the file. When
/// the archive cannot be reached, one finding says so, and the rest of the files is not checked.
pub(super) fn check_archive(
    connection: &rusqlite::Connection,
    files: &ArchiveFiles,
) -> rusqlite::Result<Vec<String>> {
    let mut findings = Vec::new();
    // Read once: there is no index by file. 16 bytes a saga.
    let mut in_files = HashMap::<i64, Vec<SagaId>>::new();
    let sql = "SELECT segment, saga FROM archived WHERE segment IS NOT NULL";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        in_files.entry(row.get(0)?).or_default().push(SagaId::from_bytes(row.get(1)?));
    }
    let mut after = 0;
    while let Some((number, file, hash)) = read::segments_after(connection, after)? {
        after = number;
        let name = files.place().of(&file);
        let held = files.check(&file, &hash).and_then(|found| {
            findings.extend(found.into_iter().map(|what| format!("{name}: {what}")));
            Ok(files.segment(&file)?.ids().collect::<HashSet<_>>())
        });
        let held = match held {
            Ok(held) => held,
            Err(SegmentError::Unreachable(what)) => {
                findings.push(format!("{name}: the archive cannot be reached: {what}; this file and those after it were not checked"));
                break;
            }
            // It is among the findings.
            Err(SegmentError::File(_) | SegmentError::Damaged(_)) => continue,
        };
        for id in in_files.remove(&number).unwrap_or_default() {
            if !held.contains(&id) {
                findings.push(format!("{name}: saga {id} is not in it"));
            }
        }
    }
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for (what, sql) in [
        (
            "archived sagas have a segment that the store does not know",
            "SELECT count(*) FROM archived WHERE segment IS NOT NULL
             AND segment NOT IN (SELECT id FROM segments)",
        ),
        (
            "sagas are in the store and archived at once",
            "SELECT count(*) FROM archived WHERE saga IN (SELECT id FROM sagas)",
        ),
    ] {
        counts.insert(what, connection.query_row(sql, [], |row| row.get(0))?);
    }
    let wrong = counts.into_iter().filter(|(_, count)| *count > 0);
    findings.extend(wrong.map(|(what, count)| format!("{count} {what}")));
    Ok(findings)
}
