//! `store`: what the store holds, its backup and what becomes of a backup, and one saga as a file.
//!
//! A running host is asked over HTTP, and the file of a backup is written here: so a host never
//! writes a file that a caller names. With `--config` the store of a stopped host is opened.

mod copy;
pub(super) mod download;
mod export;
mod import;
mod parquet;
mod rebuild;
mod stopped;
mod store_format;
mod withhold;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use amends_api::{backup_view, store_view};
use amends_api_types::{ArchiveBody, ArchivePassView, SagaView, StoreView};
use amends_runtime::AuditCheck;
use amends_store::{
    ArchivePlace, BackupError, FileCheck, OpenError, PlaceError, RestoreError, StoppedStore, Stream,
};

use download::exists;
use stopped::{in_use, url_of};
use store_format::StoreFormat;

use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::{EXIT_DONE, EXIT_ERROR, Failed};
use crate::commands::ids::one_id;
use crate::commands::output::{Look, counted, print_json, print_table_as, say, span, table};

/// The verbs about the store.
#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Show what the store holds and how fast it grows
    Stats(Stats),
    /// Copy the store into a file, also while the host runs
    Backup(Backup),
    /// Put a backup in the place of the store of a stopped host
    Restore(Restore),
    /// Look for damage in a backup, or in the store of a stopped host
    Verify(Verify),
    /// Write anew from the events what lists and searches read
    Rebuild(rebuild::Rebuild),
    /// Copy the store of a stopped host into an empty PostgreSQL database
    Copy(copy::Copy),
    /// Write the history of a saga, with its definition, into a file
    Export(export::Export),
    /// Put a saga that ended on another host into the archive of this one
    Import(import::Import),
    /// Move ended sagas whose retention is over to the archive now, or bring one back
    Archive(Archive),
}

/// The arguments of `store stats`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends store stats\n  amends store stats --config \
                        amends.toml -o json\n\nWith more than 5,000 events, those by type are an \
                        estimate from 5,000 of them.\nEverything else is counted.")]
pub(crate) struct Stats {
    /// Read the store of this config, whose host is stopped, and ask no host
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: StoreFormat,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

/// The arguments of `store backup`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  amends store backup /backup/amends-monday.db\n  amends store \
                        backup before-upgrade.db --config amends.toml\n\nThe file appears under \
                        its name when it is complete. It needs no other file.\nA running host makes \
                        the copy beside its store first, so it needs as much room again."
)]
pub(crate) struct Backup {
    /// The file to write
    pub file: PathBuf,
    /// Copy the store of this config, whose host is stopped, and ask no host
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// Replace the file when it exists
    #[arg(long)]
    pub replace: bool,
    /// How to print what was copied
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: StoreFormat,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

/// The arguments of `store restore`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  amends store restore amends-monday.db --config amends.toml\n\n\
                        The host has to be stopped. The backup is checked first.\nWhen only what \
                        lists and searches read is wrong in it, that is written anew from the events.\nThe \
                        world does not go back: see \"What a restore means\" in the book."
)]
pub(crate) struct Restore {
    /// The backup
    pub file: PathBuf,
    /// The config file whose store is restored
    #[arg(long, value_name = "CONFIG")]
    pub config: PathBuf,
    /// Replace the store that is there; it is kept beside it under another name
    #[arg(long)]
    pub replace: bool,
}

/// The arguments of `store archive`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends store archive\n  amends store archive --bring-back \
                        0198c0de-0000-7000-8000-000000000000\n\nThe host does this by itself each \
                        hour. It needs retention in [store].\nAn archived saga is read as before: \
                        get, history, list --archived.")]
pub(crate) struct Archive {
    /// Bring this saga back into the store instead, so that it can be compensated: its id, or eight or more
    /// digits of its beginning or end
    #[arg(long, value_name = "ID")]
    pub bring_back: Option<String>,
    /// How to print what was done
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: StoreFormat,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

/// The arguments of `store verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends store verify amends-monday.db\n  amends store verify \
                        data/amends.db --archive archive\n  amends store verify data/amends.db --archive \
                        s3://my-bucket/amends\n\nReads the whole file and \
                        mends nothing. Exits with 1 when something is damaged,\nor when what lists \
                        and searches read is not what the events say: `amends store rebuild` mends that.\n\
                        Checks that no entry of the audit was changed or removed, but for the last ones.\n\
                        A file of an earlier schema is checked for damage alone.")]
pub(crate) struct Verify {
    /// The file: a backup, or the database of a stopped host
    pub file: PathBuf,
    /// Check the files of the archive as well, in this folder or in s3://BUCKET/PREFIX
    #[arg(long, value_name = "FOLDER", value_parser = archive_place)]
    pub archive: Option<ArchivePlace>,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: StoreFormat,
}

/// Reads where an archive is.
fn archive_place(text: &str) -> Result<ArchivePlace, PlaceError> {
    Ok(ArchivePlace::bucket(text)?.unwrap_or_else(|| PathBuf::from(text).into()))
}

pub(crate) async fn run(command: Store) -> anyhow::Result<u8> {
    match command {
        Store::Stats(args) => stats(args).await,
        Store::Backup(args) => back_up(args).await,
        Store::Restore(args) => restore(&args).await,
        Store::Verify(args) => verify(&args),
        Store::Rebuild(args) => rebuild::rebuild(args).await,
        Store::Copy(args) => copy::copy(args).await,
        Store::Export(args) => export::export(args).await,
        Store::Import(args) => import::import(args).await,
        Store::Archive(args) => archive(args).await,
    }
}

async fn archive(args: Archive) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    if let Some(id) = &args.bring_back {
        let id = one_id(&client, id).await?;
        let path = format!("/v1/sagas/{}/bring-back", escape(&id));
        let saga: SagaView = client.post(&path, &ArchiveBody {}).await?;
        match args.output {
            StoreFormat::Json => print_json(&saga)?,
            StoreFormat::Table => say!("saga {} is in the store", saga.id)?,
        }
        return Ok(EXIT_DONE);
    }
    let pass: ArchivePassView = client.post("/v1/store/archive", &ArchiveBody {}).await?;
    match args.output {
        StoreFormat::Json => print_json(&pass)?,
        StoreFormat::Table => {
            let ArchivePassView { sagas, events, .. } = pass;
            let were = if sagas == 1 { "was" } else { "were" };
            if pass.deleted {
                say!(
                    "{} with {} {were} deleted",
                    counted(sagas, "saga"),
                    counted(events, "event")
                )?;
            } else {
                let (files, bytes) = (counted(pass.segments, "file"), size(pass.bytes));
                let (moved, events) = (counted(sagas, "saga"), counted(events, "event"));
                say!("{moved} with {events} {were} archived: {files}, {bytes}")?;
            }
            if pass.kept > 0 {
                let kept = counted(pass.kept, "saga");
                say!("kept, because they may be needed: {kept} past the retention")?;
            }
            if pass.unreadable > 0 {
                let unreadable = counted(pass.unreadable, "saga");
                say!("kept, because they cannot be read: {unreadable}; see the log")?;
            }
            if pass.keys > 0 {
                say!("removed: {} of archived sagas", counted(pass.keys, "start key"))?;
            }
            if pass.components > 0 {
                let (count, bytes) =
                    (counted(pass.components, "component"), size(pass.component_bytes));
                say!("removed: {count} that nothing needs, {bytes}")?;
            }
        }
    }
    Ok(EXIT_DONE)
}

async fn stats(args: Stats) -> anyhow::Result<u8> {
    let view = match &args.config {
        Some(config) => {
            let store = StoppedStore::open(&url_of(config)?).map_err(in_use)?;
            store_view(store.survey()?)
        }
        None => Client::new(&args.host)?.get("/v1/store").await?,
    };
    match args.output {
        StoreFormat::Json => print_json(&view)?,
        StoreFormat::Table => print_stats(&view)?,
    }
    Ok(EXIT_DONE)
}

async fn back_up(args: Backup) -> anyhow::Result<u8> {
    anyhow::ensure!(
        args.file.as_os_str() != "-",
        "a backup goes into a file, and not to standard output: name the file"
    );
    if !args.replace && args.file.symlink_metadata().is_ok() {
        return Err(exists(&args.file).into());
    }
    let view = match &args.config {
        Some(config) => {
            let store = StoppedStore::open(&url_of(config)?).map_err(in_use)?;
            let summary = store.back_up(&args.file, args.replace).map_err(not_copied)?;
            backup_view(summary)
        }
        None => download::download(&Client::new(&args.host)?, &args.file, args.replace).await?,
    };
    match args.output {
        StoreFormat::Json => print_json(&view)?,
        StoreFormat::Table => say!(
            "{} has {}; {}: {}, copied in {:.1} s",
            args.file.display(),
            counted(view.sagas, "saga"),
            ever_stored(view.events),
            size(view.bytes),
            view.seconds
        )?,
    }
    Ok(EXIT_DONE)
}

async fn restore(args: &Restore) -> anyhow::Result<u8> {
    let url = url_of(&args.config)?;
    let restored = amends_store::restore(&args.file, &url, args.replace);
    let restored = restored.map_err(|error| match error {
        RestoreError::Open(error) => in_use(error),
        RestoreError::Exists(_) => {
            let help = "--replace keeps it under another name and puts the backup in its place";
            Failed::with_help(EXIT_ERROR, &error.to_string(), help).into()
        }
        RestoreError::Damaged { .. } => {
            let help = "`amends store verify` lists everything; restore another backup";
            Failed::with_help(EXIT_ERROR, &error.to_string(), help).into()
        }
        RestoreError::Copy(error) => not_copied(error),
    })?;
    let FileCheck { events, sagas, backup_at, mendable, .. } = restored.check;
    let of = backup_at.map_or_else(String::new, |at| format!(", as of {at}"));
    let (path, sagas) = (restored.path.display(), counted(sagas, "saga"));
    say!("{path} has {sagas}{of}; {}", ever_stored(events))?;
    if let Some(replaced) = &restored.replaced {
        say!("the store that was there before is {}", replaced.display())?;
    }
    if mendable > 0 {
        say!(
            "what lists and searches read was wrong in the backup, and is written anew from the events"
        )?;
        rebuild::rebuild_restored(url, &args.config).await?;
    }
    say!(
        "Sagas that started after the backup are unknown to this store, and what they did outside \
         stands; sagas that went on since then make their calls again, with the same idempotency \
         keys. Whoever reads /v1/events has to begin again after position {events}."
    )?;
    Ok(EXIT_DONE)
}

fn verify(args: &Verify) -> anyhow::Result<u8> {
    let mut check =
        amends_store::check_file(&args.file, args.archive.as_ref()).map_err(|error| {
            if !matches!(error, OpenError::InUse(_)) {
                return anyhow::Error::new(error);
            }
            let help = "make a backup (`amends store backup`) and verify that one";
            Failed::with_help(EXIT_ERROR, "a host has this store open", help).into()
        })?;
    let audit = check_audit(&args.file, &mut check);
    let code = if check.findings.is_empty() { EXIT_DONE } else { EXIT_ERROR };
    match args.output {
        StoreFormat::Json => print_json(&serde_json::json!({
            "bytes": check.bytes,
            "schema": check.schema,
            "events": check.events,
            "sagas": check.sagas,
            "backup_at": check.backup_at,
            "audit_entries": audit.entries(),
            "audit_chain": audit.chain(),
            "segments": check.segments,
            "segments_checked": args.archive.is_some(),
            "projections_compared": check.schema == check.known_schema,
            "not_compared": check.not_folded.as_ref().map_or(0, |(sagas, _)| *sagas),
            "findings": check.findings,
            "mended_by_rebuild": check.mendable,
        }))?,
        StoreFormat::Table => {
            for finding in &check.findings {
                say!("{}", amends_engine::on_one_line(finding))?;
            }
            let result = match check.findings.len() {
                0 => "nothing is damaged".to_owned(),
                1 => "1 finding".to_owned(),
                count => format!("{count} findings"),
            };
            say!(
                "{}: {result}; {}; {}; {}, schema version {}",
                args.file.display(),
                counted(check.sagas, "saga"),
                ever_stored(check.events),
                size(check.bytes),
                check.schema
            )?;
            if check.mendable > 0 {
                let which = if check.is_damaged() {
                    format!("{} of them", check.mendable)
                } else {
                    "that".to_owned()
                };
                say!(
                    "`amends store rebuild` mends {which}: what lists and searches read is not what the \
                     events say"
                )?;
            }
            if check.schema != check.known_schema {
                say!(
                    "the projections were not compared: the file has schema {}, this version \
                     compares {}",
                    check.schema,
                    check.known_schema
                )?;
            }
            if let Some((sagas, (id, reason))) = &check.not_folded {
                say!(
                    "not compared with their events, because these cannot be read: {}; the first is \
                     {id}: {}",
                    counted(*sagas, "saga"),
                    amends_engine::on_one_line(reason)
                )?;
            }
            if audit.entries() > 0 {
                let (entry, chain) = (audit.entries(), audit.chain());
                say!("the audit fits up to entry {entry}, which has the chain {chain}")?;
            }
            match (check.segments, &args.archive) {
                (0, _) => {}
                (count, Some(place)) => {
                    say!("checked in {place}: {}", counted(count, "archive file"))?;
                }
                (count, None) => say!(
                    "not checked: {}; say with --archive where the archive is",
                    counted(count, "archive file")
                )?,
            }
        }
    }
    Ok(code)
}

/// Checks the chain of the audit. What does not fit is one more finding.
fn check_audit(file: &Path, check: &mut FileCheck) -> AuditCheck {
    let mut audit = AuditCheck::default();
    let read = amends_store::read_stream(file, &Stream::Audit, |event| audit.take(event));
    let unread = read.err().map(|error| format!("the audit cannot be read to its end: {error}"));
    check.findings.extend(unread);
    check.findings.extend(audit.finding().map(str::to_owned));
    audit
}

/// Says how many events a store has taken in its life. Those of archived and deleted sagas count.
fn ever_stored(events: u64) -> String {
    let were = if events == 1 { "was" } else { "were" };
    format!("{} {were} ever stored", counted(events, "event"))
}

/// Says what to do when a copy could not be written, because its file exists.
fn not_copied(error: BackupError) -> anyhow::Error {
    match &error {
        BackupError::Copy { path, source } if is_exists(source.as_ref()) => exists(path).into(),
        BackupError::Copy { .. }
        | BackupError::UnderWay
        | BackupError::NoRoom { .. }
        | BackupError::Elsewhere
        | BackupError::Store(_) => error.into(),
    }
}

fn is_exists(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists)
}

fn print_stats(view: &StoreView) -> anyhow::Result<()> {
    let look = Look::new();
    say!(
        "{} ({} free), and {} of write-ahead log; {}; {}",
        size(view.bytes),
        size(view.free_bytes),
        size(view.wal_bytes),
        counted(view.sagas, "saga"),
        ever_stored(view.events)
    )?;
    match &view.growth {
        Some(growth) => say!(
            "it grows by {} and {} a day, measured over {}",
            size(growth.bytes_per_day),
            counted(growth.events_per_day, "event"),
            span(std::time::Duration::from_secs(growth.measured_seconds))
        )?,
        None => say!("it is too young to say how fast it grows")?,
    }
    if view.archived.sagas > 0 {
        let archived = &view.archived;
        say!(
            "archived or deleted: {} with {}; {}, {}",
            counted(archived.sagas, "saga"),
            counted(archived.events, "event"),
            counted(archived.segments, "archive file"),
            size(archived.bytes)
        )?;
    }
    match &view.oldest_live {
        Some(oldest) => say!(
            "the oldest saga that has not ended is {}, started {}",
            oldest.id,
            look.time(oldest.started_at)
        )?,
        None => say!("every saga has ended")?,
    }
    let mut rows = table(&["definition", "status", "sagas"]);
    rows.add_rows(
        view.sagas_by_status
            .iter()
            .map(|item| vec![item.definition.clone(), item.status.clone(), item.sagas.to_string()]),
    );
    say!("")?;
    print_table_as(&rows, look)?;
    let is_estimate = view.events_sampled < view.events - view.archived.events;
    let mut rows =
        table(&["event type", if is_estimate { "events, about" } else { "events" }, "data"]);
    rows.add_rows(
        view.events_by_type
            .iter()
            .map(|item| vec![item.kind.clone(), item.events.to_string(), size(item.bytes)]),
    );
    say!("")?;
    print_table_as(&rows, look)?;
    let mut rows = table(&["month", "sagas", "events"]);
    rows.add_rows(
        view.months
            .iter()
            .map(|item| vec![item.month.clone(), item.sagas.to_string(), item.events.to_string()]),
    );
    say!("")?;
    print_table_as(&rows, look)
}

/// Returns bytes as people say them: `832 B`, `12.4 MiB`.
fn size(bytes: u64) -> String {
    let unit = |shift: u32, name: &str| {
        let tenths = (u128::from(bytes) * 10) >> shift;
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    };
    match bytes {
        0..=1_023 => format!("{bytes} B"),
        1_024..=1_048_575 => unit(10, "KiB"),
        1_048_576..=1_073_741_823 => unit(20, "MiB"),
        _ => unit(30, "GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_the_unit_in_which_they_are_short() {
        for (bytes, told) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.5 KiB"),
            (1_048_575, "1023.9 KiB"),
            (13_002_342, "12.3 MiB"),
            (5 << 30, "5.0 GiB"),
        ] {
            assert_eq!(size(bytes), told);
        }
    }
}
