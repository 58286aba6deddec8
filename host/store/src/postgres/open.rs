//! Opens the database for writing: connects, brings the schema up to date, registers this process among the hosts. And
//! the fence: raising the own one, and taking that of another host.

use std::path::PathBuf;
use std::time::Duration;

use super::connection::Pg;
use super::error::{Failure, Result};
use super::membership::home;
use super::place::{APPLICATION, Place};
use super::schema::{Found, SCHEMA_VERSION, bring_up_to_date};
use super::transaction::LaneEpoch;
use crate::config::Durability;
use crate::error::OpenError;
use crate::shard_id::ShardId;

/// The oldest version of PostgreSQL that this was tried with.
const SERVER_MIN: i32 = 150_000;

/// How long whoever takes over waits for a transaction that is under way before its connection is ended.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// How often that is tried.
const LOCK_TRIES: u32 = 3;

/// The code of a lock that was waited for in vain.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// The runs of a store that are remembered: archive files that an earlier one left are never removed.
const RUNS_MAX: i64 = 256;

/// The name in `meta` of the mark of a copy that is not finished. No host opens a database that has it.
pub(super) const UNFINISHED_COPY: &str = "unfinished_copy";

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
         SET idle_in_transaction_session_timeout = '2s'; SET default_transaction_isolation = 'read committed';
         {commit}"
    )
}

/// What a host that has registered begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registered {
    pub(super) lane: LaneEpoch,
    /// A random number of this process, which the archive files have that it writes.
    pub(super) run: i64,
}

/// Makes the error of a database that cannot be used.
pub(super) fn refused(place: &Place, what: impl Into<String>) -> OpenError {
    OpenError::Postgres { place: place.shown.clone(), what: what.into() }
}

/// Connects, creates or migrates the schema, and registers this process among the hosts.
pub(super) async fn open(
    place: &Place,
    durability: Durability,
) -> std::result::Result<(Pg, Registered), OpenError> {
    let failed = |failure: Failure| describe(place, &failure);
    let pg = connect(place, &writer_setup(durability)).await?;
    let Some(registered) = register(&pg, None).await.map_err(failed)? else {
        let what = "is a copy that was not finished; run `amends store copy` again, which begins anew, or name \
                    another database";
        return Err(refused(place, what));
    };
    Ok((pg, registered))
}

/// Connects, and creates or migrates the schema. Refuses a database that cannot be a store.
pub(super) async fn connect(place: &Place, setup: &str) -> std::result::Result<Pg, OpenError> {
    let failed = |failure: Failure| describe(place, &failure);
    let pg = Pg::connect(place, setup).await.map_err(failed)?;
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
    if let Some(risk) = place.risk() {
        tracing::warn!(store = place.shown, "{risk}");
    }
    Ok(pg)
}

/// Converts a failure of a database that is being opened.
pub(super) fn describe(place: &Place, failure: &Failure) -> OpenError {
    if let Failure::Database(error) = failure
        && let Some(trouble) = place.tls.trouble(error)
    {
        return refused(place, trouble);
    }
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

/// Registers this process among the hosts, with a lane of its own. It owns nothing yet, and has no name. `run` is
/// that of the process when it registers again.
pub(super) async fn register(pg: &Pg, run: Option<i64>) -> Result<Option<Registered>> {
    pg.batch("BEGIN").await?;
    forget_runs_of_another(pg).await?;
    // A process that never joins, such as a tool, owns no shard. So its row may stay for long.
    let host = "WITH host AS (INSERT INTO hosts (run, lease_until) VALUES (
                coalesce($1, ('x' || left(md5(gen_random_uuid()::text), 16))::bit(64)::int8),
                clock_timestamp() + interval '1 day') RETURNING id, run),
            lane AS (INSERT INTO lanes SELECT id, 0, 1, pg_backend_pid() FROM host)
        SELECT id, run FROM host";
    let row = pg.first(host, &[&run]).await?;
    let row = row.ok_or_else(|| Failure::Unreadable("no answer".to_owned()))?;
    let (host, run): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    // A copy locks `hosts` while it marks the database. It removes the rows that came before, and a row that comes
    // later sees the mark.
    if pg.exists("SELECT 1 FROM meta WHERE name = $1", &[&UNFINISHED_COPY]).await? {
        pg.batch("ROLLBACK").await?;
        return Ok(None);
    }
    let old = "DELETE FROM meta WHERE name LIKE 'run/%' AND substr(name, 5)::int8 <= $1";
    pg.execute(old, &[&(host - RUNS_MAX)]).await?;
    let remember = "INSERT INTO meta VALUES ('run/' || $1::int8, $2)
                    ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    pg.execute(remember, &[&host, &run]).await?;
    pg.batch("COMMIT").await?;
    Ok(Some(Registered { lane: LaneEpoch { host, epoch: 1 }, run }))
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
pub(super) async fn raise_own(pg: &Pg, host: i64) -> Result<Option<i64>> {
    let raise = "UPDATE lanes SET epoch = epoch + 1, backend = pg_backend_pid()
                 WHERE host = $1 AND lane = 0 RETURNING epoch";
    let wait = LOCK_WAIT.as_millis();
    pg.batch(&format!("SET lock_timeout = {wait}")).await?;
    let mut tries = 0;
    let raised = loop {
        let raised = pg.first(raise, &[&host]).await;
        tries += 1;
        match raised {
            Err(failure) if failure.code() == Some(LOCK_NOT_AVAILABLE) && tries < LOCK_TRIES => {
                end_backends(pg, &[host]).await?;
            }
            raised => break raised?,
        }
    };
    pg.batch("SET lock_timeout = 0").await?;
    raised.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// The hosts that are to be taken over.
pub(super) enum Dead<'a> {
    /// Those with this name, but for one host.
    OfName(&'a str, i64),
    /// Of these, those whose lease has run out.
    Expired(&'a [i64]),
}

/// Takes hosts over: none of them writes any more, and nobody has their shards. A transaction of theirs that is under
/// way is waited for; one that does not end is ended with its connection. Returns the numbers of the hosts.
pub(super) async fn take_over(pg: &Pg, dead: Dead<'_>) -> Result<Vec<i64>> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_take_over(pg, &dead).await {
            Err((failure, hosts))
                if failure.code() == Some(LOCK_NOT_AVAILABLE) && tries < LOCK_TRIES =>
            {
                pg.batch("ROLLBACK").await?;
                tracing::warn!(
                    ?hosts,
                    "a connection of a host that is taken over does not end; it is ended"
                );
                end_backends(pg, &hosts).await?;
            }
            done => return done.map_err(|(failure, _)| failure),
        }
    }
}

async fn try_take_over(
    pg: &Pg,
    dead: &Dead<'_>,
) -> std::result::Result<Vec<i64>, (Failure, Vec<i64>)> {
    let failed = |failure: Failure| (failure, Vec::new());
    let wait = LOCK_WAIT.as_millis();
    pg.batch(&format!("BEGIN; SET LOCAL lock_timeout = {wait}")).await.map_err(failed)?;
    let found = match dead {
        Dead::OfName(name, but) => {
            let sql = "SELECT id FROM hosts WHERE name = $1 AND id <> $2 ORDER BY id FOR UPDATE";
            pg.query(sql, &[name, but]).await
        }
        Dead::Expired(hosts) => {
            let sql = "SELECT id FROM hosts WHERE id = ANY($1) AND lease_until < clock_timestamp()
                       ORDER BY id FOR UPDATE SKIP LOCKED";
            pg.query(sql, &[hosts]).await
        }
    };
    let found = found.map_err(failed)?;
    let hosts: std::result::Result<Vec<i64>, _> = found.iter().map(|row| row.try_get(0)).collect();
    let hosts = hosts.map_err(|error| failed(error.into()))?;
    for sql in [
        // Waits for a batch that is under way.
        "DELETE FROM lanes WHERE host = ANY($1)",
        "UPDATE shards SET host = NULL WHERE host = ANY($1)",
        "DELETE FROM hosts WHERE id = ANY($1)",
    ] {
        if !hosts.is_empty() {
            pg.execute(sql, &[&hosts]).await.map_err(|failure| (failure, hosts.clone()))?;
        }
    }
    pg.batch("COMMIT").await.map_err(failed)?;
    Ok(hosts)
}

/// Ends the connections that have the lanes of some hosts.
async fn end_backends(pg: &Pg, hosts: &[i64]) -> Result<()> {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE pid IN (SELECT backend FROM lanes WHERE host = ANY($1))
               AND pid <> pg_backend_pid() AND datname = current_database()
               AND application_name = $2";
    pg.query(end, &[&hosts, &APPLICATION]).await?;
    Ok(())
}

/// Gives the shards of a host to the others that should have them, and removes the host.
pub(super) async fn leave(pg: &Pg, host: i64) -> Result<()> {
    pg.batch("BEGIN; SET LOCAL lock_timeout = '2s'").await?;
    let others = "SELECT id, name FROM hosts
                  WHERE id <> $1 AND name IS NOT NULL AND lease_until > clock_timestamp()";
    let others = pg.query(others, &[&host]).await?;
    let others: std::result::Result<Vec<(i64, String)>, tokio_postgres::Error> =
        others.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect();
    let others = others?;
    let (mut shards, mut homes) = (Vec::new(), Vec::new());
    for shard in ShardId::all() {
        let to = home(shard, others.iter().map(|(id, name)| (*id, name.as_str())));
        shards.push(i16::try_from(shard.number()).unwrap_or(i16::MAX));
        homes.push(to);
    }
    let give = "UPDATE shards SET host = u.host, epoch = epoch + 1
                FROM unnest($2::int2[], $3::int8[]) AS u(id, host)
                WHERE shards.id = u.id AND shards.host = $1";
    pg.execute(give, &[&host, &shards, &homes]).await?;
    pg.execute("DELETE FROM lanes WHERE host = $1", &[&host]).await?;
    pg.execute("DELETE FROM hosts WHERE id = $1", &[&host]).await?;
    pg.batch("COMMIT").await
}
