//! Copies a whole store: from a file that no host has open into an empty PostgreSQL database.
//!
//! Positions stay, so cursors of readers and subscribers are as good in the copy. Deliberately absent: the way back, the
//! files of the archive, and the file of keys, which stay where they are.

use std::path::PathBuf;

use crate::copied_row::CopiedTable;
use crate::error::OpenError;
use crate::postgres::CopyTarget;
use crate::sqlite::StoppedStore;

/// After so many rows, how far a copy is is told.
const ROWS_TOLD: u64 = 1_000;

/// The findings that an error names.
const FINDINGS_NAMED_MAX: usize = 5;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyProgress {
    /// The source is read and checked.
    Checking,
    /// Rows are written: so many of all.
    Writing {
        /// The rows that were written.
        done: u64,
        /// All rows.
        all: u64,
    },
    /// The copy is read and compared.
    Comparing,
}

/// What a copy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopySummary {
    /// The sagas in the store, without those in the archive.
    pub sagas: u64,
    /// The sagas in the archive, or deleted.
    pub archived: u64,
    /// The events that were ever stored: the position of the last one.
    pub events: u64,
    /// The rows of all tables.
    pub rows: u64,
}

/// The reason why a store is not copied. Nothing of the copy stays.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source or the target cannot be used. Operator.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The source is damaged. Operator: mend it first.
    #[error(
        "{} is not copied, because it is not in order: {}; `amends store verify` says more, `amends store rebuild` \
         mends what lists read, and a backup has what is lost", .path.display(), named(findings)
    )]
    Damaged {
        /// The file of the source.
        path: PathBuf,
        /// What is wrong.
        findings: Vec<String>,
    },
    /// What was written is not what is read. Operator: look at the server's disk and memory.
    #[error("the copy is not what was copied, and was undone: {}; look at the log of the server", named(.0))]
    Differs(Vec<String>),
}

/// Returns the first findings, for people.
fn named(findings: &[String]) -> String {
    let more = findings.len().saturating_sub(FINDINGS_NAMED_MAX);
    let first = findings.iter().take(FINDINGS_NAMED_MAX).cloned().collect::<Vec<_>>().join("; ");
    if more > 0 { format!("{first}; and {more} more") } else { first }
}

/// Copies a store into an empty PostgreSQL database, and compares the copy with what was written. Blocks its thread
/// while it reads. When the future is dropped, nothing of the copy stays.
///
/// # Errors
/// See [`CopyError`]. The source is as it was in any case. A database that was begun with is no store until a copy into
/// it is complete.
pub async fn copy_store(
    source: &StoppedStore,
    target: &str,
    mut told: impl FnMut(CopyProgress),
) -> Result<CopySummary, CopyError> {
    // What is wrong with the target is said before the source is read for long.
    let mut target = CopyTarget::connect(target).await?;
    told(CopyProgress::Checking);
    let findings = source.findings()?;
    if !findings.is_empty() {
        return Err(CopyError::Damaged { path: source.path().to_owned(), findings });
    }
    target.begin().await?;
    amends_failpoint::failpoint("store.copy.marked");
    let counts = CopiedTable::ALL.map(|table| source.count(table));
    let counts = counts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (all, mut done) = (counts.iter().sum(), 0);
    for table in CopiedTable::ALL {
        target.begin_table(table).await?;
        let write = async |row| {
            done += 1;
            if done % ROWS_TOLD == 0 {
                told(CopyProgress::Writing { done, all });
            }
            target.write(row).await
        };
        source.each_row(table, write).await?;
        target.end_table().await?;
        amends_failpoint::failpoint("store.copy.table");
    }
    told(CopyProgress::Comparing);
    let of_store = source.counts()?;
    target.put_counts(of_store).await?;
    let findings = target.verify().await?;
    if !findings.is_empty() {
        return Err(CopyError::Differs(findings));
    }
    amends_failpoint::failpoint("store.copy.compared");
    target.finish().await?;
    amends_failpoint::failpoint("store.copy.done");
    let rows_of = |table| {
        let place = CopiedTable::ALL.iter().position(|other| *other == table);
        place.map_or(0, |place| counts[place])
    };
    Ok(CopySummary {
        sagas: rows_of(CopiedTable::Sagas),
        archived: rows_of(CopiedTable::Archived),
        events: of_store.last_position.unsigned_abs(),
        rows: all,
    })
}
