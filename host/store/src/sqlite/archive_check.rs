//! Whether the files of the archive are sound, and have the sagas that the database says they have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use amends_engine::SagaId;

use super::read;
use crate::segment::{Segment, SegmentError};

/// Reads a whole segment. Each finding is a sentence that names the frame where that is known.
pub(super) fn check_segment(path: &Path, hash: &[u8; 32]) -> Vec<String> {
    let checked = || -> Result<Vec<String>, SegmentError> {
        let mut findings = Segment::open(path)?.check();
        if findings.is_empty() {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(fs::File::open(path)?)?;
            if hasher.finalize() != *hash {
                findings.push("its hash is not the one that the store has".to_owned());
            }
        }
        Ok(findings)
    };
    checked().unwrap_or_else(|error| vec![error.to_string()])
}

/// Checks the files of the archive against the tombstones of a database. Each finding names the file.
pub(super) fn check_archive(
    connection: &rusqlite::Connection,
    folder: &Path,
) -> rusqlite::Result<Vec<String>> {
    let mut findings = Vec::new();
    let mut after = 0;
    while let Some((number, file, hash)) = read::segments_after(connection, after)? {
        after = number;
        let path = folder.join(&file);
        let name = path.display();
        findings
            .extend(check_segment(&path, &hash).into_iter().map(|what| format!("{name}: {what}")));
        let Ok(segment) = Segment::open(&path) else { continue };
        let held: BTreeSet<_> = segment.ids().collect();
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
