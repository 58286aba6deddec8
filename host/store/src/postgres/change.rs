//! The statements of jobs that are no appends.

use amends_engine::{Digest, Timestamp};

use super::rows::Write;
use super::text::{stored_text, stream_text, uuid_of};
use crate::blob::{BlobChange, BlobKind};
use crate::outbox::SubscriptionChange;
use crate::paging::Cursor;
use crate::schedules::ScheduleRow;

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the statement that changes a blob. It changes a row when there is something to do.
pub(super) fn change_blob(kind: BlobKind, digest: Digest, change: &BlobChange) -> Write {
    let (kind, digest) = (kind.as_str(), digest.as_bytes().to_vec());
    match change {
        BlobChange::Put { name, at, bytes } => Write {
            sql: "INSERT INTO blobs VALUES ($1, $2, $3, $4, $5)
                  ON CONFLICT (kind, digest) DO UPDATE SET at = greatest(blobs.at, excluded.at)",
            values: vec![
                Box::new(kind),
                Box::new(digest),
                Box::new(stored_text(name)),
                Box::new(at.as_millis()),
                Box::new(bytes.clone()),
            ],
        },
        BlobChange::Renew { at } => Write {
            sql: "UPDATE blobs SET at = greatest(at, $3) WHERE kind = $1 AND digest = $2",
            values: vec![Box::new(kind), Box::new(digest), Box::new(at.as_millis())],
        },
        BlobChange::Remove { unused_since } => Write {
            sql: "DELETE FROM blobs WHERE kind = $1 AND digest = $2 AND at < $3",
            values: vec![Box::new(kind), Box::new(digest), Box::new(unused_since.as_millis())],
        },
    }
}

/// Returns the statements that change a subscription.
pub(super) fn save_subscription(change: &SubscriptionChange) -> Vec<Write> {
    let SubscriptionChange { name, cursor, disabled, dead, delivered } = change;
    let name = || Box::new(stored_text(name));
    let mut writes = vec![Write {
        sql: "INSERT INTO subscriptions VALUES ($1, $2, $3)
              ON CONFLICT (name) DO UPDATE SET position = excluded.position, disabled = excluded.disabled",
        values: vec![
            name(),
            Box::new(integer(cursor.0)),
            Box::new(disabled.as_deref().map(stored_text)),
        ],
    }];
    if !delivered.is_empty() {
        let places: Vec<_> = delivered.iter().map(|Cursor(place)| integer(*place)).collect();
        writes.push(Write {
            sql: "DELETE FROM dead_letters WHERE subscription = $1 AND place = ANY($2)",
            values: vec![name(), Box::new(places)],
        });
    }
    for letter in dead {
        writes.push(Write {
            sql: "INSERT INTO dead_letters VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                  ON CONFLICT (subscription, place) DO UPDATE SET stream = excluded.stream,
                      version = excluded.version, type = excluded.type, at = excluded.at,
                      attempts = excluded.attempts, error = excluded.error",
            values: vec![
                name(),
                Box::new(integer(letter.place.0)),
                Box::new(stream_text(&letter.stream)),
                Box::new(integer(letter.version.0)),
                Box::new(letter.kind.clone()),
                Box::new(letter.at.as_millis()),
                Box::new(i64::from(letter.attempts)),
                Box::new(stored_text(&letter.error)),
            ],
        });
    }
    writes
}

/// Returns the statement that writes what is kept of a schedule.
pub(super) fn save_schedule(row: &ScheduleRow) -> Write {
    let ScheduleRow { name, pattern, decided_until, started, skipped } = row;
    let skipped_at = skipped.as_ref().map(|(at, _)| Timestamp::as_millis(*at));
    let reason = skipped.as_ref().map(|(_, reason)| stored_text(reason));
    Write {
        sql: "INSERT INTO schedules VALUES ($1, $2, $3, $4, $5, $6, $7)
              ON CONFLICT (name) DO UPDATE SET pattern = excluded.pattern,
                  decided_until = excluded.decided_until, started_at = excluded.started_at,
                  saga = excluded.saga, skipped_at = excluded.skipped_at,
                  skipped_reason = excluded.skipped_reason",
        values: vec![
            Box::new(stored_text(name)),
            Box::new(stored_text(pattern)),
            Box::new(decided_until.as_millis()),
            Box::new(started.as_ref().map(|(at, _)| Timestamp::as_millis(*at))),
            Box::new(started.as_ref().map(|(_, saga)| uuid_of(*saga))),
            Box::new(skipped_at),
            Box::new(reason),
        ],
    }
}
