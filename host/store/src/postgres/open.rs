//! Opens the database for writing: connects, brings the schema up to date, takes the lane over.

use std::path::PathBuf;
use std::time::Duration;

use super::connection::Pg;
use super::error::{Failure, Result};
use super::place::{APPLICATION, Place};
use super::schema::{Found, SCHEMA_VERSION, bring_up_to_date};
use crate::config::Durability;
use crate::error::OpenError;

/// The oldest version of PostgreSQL that this was tried with.
const SERVER_MIN: i32 = 150_000;

/// How long whoever takes over waits for a transaction that is under way before its connection is ended.
const FENCE_WAIT: Duration = Duration::from_secs(1);

/// How often the fence is tried.
const FENCE_TRIES: u32 = 5;

/// The runs of a store that are remembered: archive files that an earlier one left are never removed.
const RUNS_MAX: i64 = 256;

/// How long batches are kept, by which a host learns whether its last one was committed.
pub(super) const BATCHES_KEPT: Duration = Duration::from_mins(15);

/// Returns what a session that writes begins with. The plans of its statements do not depend on
/// statistics: those of an empty table would stay in use as it grows.
pub(super) fn writer_setup(durability: Durability) -> String {
    let commit = match durability {
        // Also when the database or the user has another default.
        Durability::Full => "SET synchronous_commit = on;",
        Durability::Relaxed => "SET synchronous_commit = off;",
    };
    format!(
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off;
         SET client_min_messages = warning; SET statement_timeout = '30s';
         SET idle_in_transaction_session_timeout = '5s'; {commit}"
    )
}

/// What a host that has taken the lane over begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct TakenOver {
    /// The epoch of the lane: the fence.
    pub(super) lane_epoch: i64,
    /// The epoch of every shard.
    pub(super) epoch: i64,
    /// A random number of this process, by which it knows that the lane is still its own, and that the
    /// archive files have which it writes.
    pub(super) run: i64,
    /// The position of the last event.
    pub(super) position: i64,
    /// The number of the last batch.
    pub(super) batch: i64,
    pub(super) start_delay: i64,
    pub(super) longest_life: i64,
}

/// Makes the error of a database that cannot be used.
fn refused(place: &Place, what: impl Into<String>) -> OpenError {
    OpenError::Postgres { place: place.shown.clone(), what: what.into() }
}

/// Connects, creates or migrates the schema, and takes the lane and all shards over.
pub(super) async fn open(
    place: &Place,
    durability: Durability,
) -> std::result::Result<(Pg, TakenOver), OpenError> {
    let failed = |failure: Failure| describe(place, &failure);
    let pg = Pg::connect(&place.config, &writer_setup(durability)).await.map_err(failed)?;
    let server = server_version(&pg).await.map_err(failed)?;
    if server < SERVER_MIN {
        let what = format!("is served by PostgreSQL {}; 15 or newer is needed", server / 10_000);
        return Err(refused(place, what));
    }
    if pg.exists("SELECT 1 WHERE pg_is_in_recovery()", &[]).await.map_err(failed)? {
        return Err(refused(place, "is a standby, which takes no writes; name the primary"));
    }
    let settings = "SELECT current_setting('server_encoding'), current_setting('fsync')";
    let settings = pg.first(settings, &[]).await.map_err(failed)?;
    let setting = |number| settings.as_ref().and_then(|row| row.try_get::<_, String>(number).ok());
    if let Some(encoding) = setting(0).filter(|encoding| encoding != "UTF8") {
        let what = format!(
            "has the encoding {encoding}; make one with UTF8 (`createdb -E UTF8 -T template0`)"
        );
        return Err(refused(place, what));
    }
    if setting(1).is_some_and(|fsync| fsync != "on") {
        tracing::warn!(
            store = place.shown,
            "the server of the store runs with fsync off, so a power cut may damage the store"
        );
    }
    match bring_up_to_date(&pg).await.map_err(failed)? {
        Found::Ready => {}
        Found::Newer(found) => {
            let (path, known) = (PathBuf::from(&place.shown), SCHEMA_VERSION);
            return Err(OpenError::NewerSchema { path, found, known });
        }
        Found::Other(what) => {
            return Err(refused(
                place,
                format!("{what}; name an empty database, or restore a copy"),
            ));
        }
    }
    if place.is_remote() {
        tracing::warn!(
            store = place.shown,
            "what is sent to the database is not encrypted: this version has no TLS to it"
        );
    }
    let taken = take_over(&pg).await.map_err(failed)?;
    Ok((pg, taken))
}

/// Converts a failure of a database that is being opened.
fn describe(place: &Place, failure: &Failure) -> OpenError {
    let words = failure.words();
    match failure.code() {
        Some("3D000") => {
            refused(place, format!("does not exist: {words}; create it with `createdb`"))
        }
        Some("28P01" | "28000") => refused(
            place,
            format!(
                "refuses the user: {words}; check the user and the password, or set PGPASSWORD"
            ),
        ),
        Some("42501") => refused(
            place,
            format!(
                "does not let the user create tables: {words}; make the user the owner of the database"
            ),
        ),
        Some("25006") => refused(place, format!("takes no writes: {words}; name the primary")),
        Some(_) => refused(place, format!("cannot be used: {words}")),
        None => refused(
            place,
            format!(
                "cannot be reached: {words}; check that PostgreSQL runs there and accepts connections"
            ),
        ),
    }
}

async fn server_version(pg: &Pg) -> Result<i32> {
    let sql = "SELECT current_setting('server_version_num')::int4";
    let row = pg.first(sql, &[]).await?;
    row.map_or(Ok(0), |row| Ok(row.try_get(0)?))
}

/// Takes the lane over from any process that had it before, with all shards. A transaction of that process
/// which is under way is waited for; one that does not end is ended with its connection.
async fn take_over(pg: &Pg) -> Result<TakenOver> {
    let raise = "UPDATE lanes SET epoch = epoch + 1, backend = pg_backend_pid(),
                     run = ('x' || left(md5(gen_random_uuid()::text), 16))::bit(64)::int8
                 WHERE host = 0 AND lane = 0 RETURNING epoch, run";
    let (lane_epoch, run) = fence(pg, raise, None).await?.unwrap_or_default();
    pg.batch("BEGIN").await?;
    // Whoever else takes over at the same moment waits here, and has the larger epoch.
    let own = "SELECT 1 FROM lanes WHERE host = 0 AND lane = 0 AND epoch = $1 FOR UPDATE";
    if !pg.exists(own, &[&lane_epoch]).await? {
        return Err(Failure::Unreadable(
            "another host has taken the store over at this moment".into(),
        ));
    }
    let shards = "WITH taken AS (UPDATE shards SET host = 0, epoch = epoch + 1 RETURNING epoch)
                  SELECT max(epoch) FROM taken";
    let epoch: i64 = pg.first(shards, &[]).await?.map_or(Ok(0), |row| row.try_get(0))?;
    pg.execute("UPDATE shards SET epoch = $1", &[&epoch]).await?;
    forget_runs_of_another(pg).await?;
    let old = "DELETE FROM meta WHERE name LIKE 'run/%' AND substr(name, 5)::int8 <= $1";
    pg.execute(old, &[&(epoch - RUNS_MAX)]).await?;
    let remember = "INSERT INTO meta VALUES ('run/' || $1::int8, $2)
                    ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    pg.execute(remember, &[&epoch, &run]).await?;
    let last = "SELECT greatest(
            (SELECT coalesce(max(position), 0) FROM appends),
            (SELECT coalesce(max(position), 0) FROM batches WHERE host = 0 AND lane = 0
             AND batch = (SELECT max(batch) FROM batches WHERE host = 0 AND lane = 0)),
            (SELECT coalesce(max(value), 0) FROM meta WHERE name = 'position')),
        (SELECT coalesce(max(batch), 0) FROM batches WHERE host = 0 AND lane = 0),
        (SELECT coalesce(max(value), 0) FROM meta WHERE name = 'start_delay'),
        (SELECT coalesce(max(value), 0) FROM meta WHERE name = 'longest_life')";
    let last = pg.first(last, &[]).await?;
    let last = last.ok_or_else(|| Failure::Unreadable("no answer".to_owned()))?;
    let taken = TakenOver {
        lane_epoch,
        epoch,
        run,
        position: last.try_get(0)?,
        batch: last.try_get(1)?,
        start_delay: last.try_get(2)?,
        longest_life: last.try_get(3)?,
    };
    let old = "DELETE FROM batches WHERE batch < $1 AND at < clock_timestamp() - $2::int8 * interval '1 s'";
    let kept = i64::try_from(BATCHES_KEPT.as_secs()).unwrap_or(i64::MAX);
    pg.execute(old, &[&taken.batch, &kept]).await?;
    pg.batch("COMMIT").await?;
    Ok(taken)
}

/// Forgets the runs when the tables were copied here, as `pg_dump` and `pg_restore` do: the original may have gone
/// on, and what its runs wrote into the archive since is not known here. Tables that are made anew have other
/// numbers.
async fn forget_runs_of_another(pg: &Pg) -> Result<()> {
    let place = "SELECT hashtextextended(concat_ws('/',
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        'appends'::regclass::oid, 'meta'::regclass::oid), 0)";
    let place: i64 = pg.first(place, &[]).await?.map_or(Ok(0), |row| row.try_get(0))?;
    let known = "SELECT 1 FROM meta WHERE name = 'place' AND value = $1";
    if pg.exists(known, &[&place]).await? {
        return Ok(());
    }
    pg.execute("DELETE FROM meta WHERE name LIKE 'run/%'", &[]).await?;
    let remember = "INSERT INTO meta VALUES ('place', $1)
                    ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    pg.execute(remember, &[&place]).await?;
    Ok(())
}

/// Raises the own epoch of the lane after a connection broke, so that nothing of the older connection is
/// written any more. None when another host has taken the lane over. The epoch is not compared: an earlier
/// raise may have been committed without an answer.
pub(super) async fn raise_own(pg: &Pg, run: i64) -> Result<Option<i64>> {
    let raise = "UPDATE lanes SET epoch = epoch + 1, backend = pg_backend_pid()
                 WHERE host = 0 AND lane = 0 AND run = $1 RETURNING epoch, run";
    Ok(fence(pg, raise, Some(run)).await?.map(|(epoch, _)| epoch))
}

/// Raises the fence. The row is locked by a transaction that is under way: it is waited for, and if it does not
/// end in time, its connection is ended. Returns the epoch and the run.
async fn fence(pg: &Pg, raise: &str, run: Option<i64>) -> Result<Option<(i64, i64)>> {
    let wait = FENCE_WAIT.as_millis();
    pg.batch(&format!("SET lock_timeout = {wait}")).await?;
    let mut tries = 0;
    let raised = loop {
        let raised = match &run {
            Some(run) => pg.first(raise, &[run]).await,
            None => pg.first(raise, &[]).await,
        };
        tries += 1;
        match raised {
            Err(failure) if failure.code() == Some("55P03") && tries < FENCE_TRIES => {
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                           WHERE pid = (SELECT backend FROM lanes WHERE host = 0 AND lane = 0)
                           AND pid <> pg_backend_pid() AND datname = current_database()
                           AND application_name = $1";
                tracing::warn!(
                    "a connection of an earlier owner of the store does not end; it is ended"
                );
                pg.query(end, &[&APPLICATION]).await?;
            }
            raised => break raised?,
        }
    };
    pg.batch("SET lock_timeout = 0").await?;
    raised.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}
