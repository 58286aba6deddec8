//! Whether the files of the archive are sound, and have the sagas that the database says they have.

use std::collections::{BTreeMap, BTreeSet};

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
    let mut after = 0;
    while let Some((number, file, hash)) = read::segments_after(connection, after)? {
        after = number;
        let name = files.place().of(&file);
        let held = files.check(&file, &hash).and_then(|found| {
            findings.extend(found.into_iter().map(|what| format!("{name}: {what}")));
            Ok(files.segment(&file)?.ids().collect::<BTreeSet<_>>())
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
        let mut statement =
            connection.prepare_cached("SELECT saga FROM archived WHERE segment = ?1")?;
        let mut rows = statement.query([number])?;
        while let Some(row) = rows.next()? {
            let id = SagaId::from_bytes(row.get(0)?);
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
