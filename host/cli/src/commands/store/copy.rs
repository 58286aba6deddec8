//! `store copy`: copies the store of a stopped host into an empty PostgreSQL database.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use amends_store::{CopyProgress, CopySummary, OpenError, StoppedStore, copy_store};

use super::store_format::StoreFormat;
use crate::commands::exit::{EXIT_DONE, EXIT_ERROR, EXIT_USAGE, Failed};
use crate::commands::output::{Progress, counted, print_json, say};

/// How often a line says how far it is, where no bar is drawn.
const LINE_PAUSE: Duration = Duration::from_secs(5);

/// The arguments of `store copy`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  amends store copy sqlite:data/amends.db postgres://amends@db.example.com/amends\n\n\
                  The host has to be stopped. The source is checked first, and stays as it is. The copy is \
                  compared\nwith it at the end. It is there whole or not at all: when it was interrupted, run it \
                  again.\nA password is taken from PGPASSWORD, so it need not stand in the URL.\nThe archive and \
                  the key file stay where they are: see \"Move from SQLite\" in the book."
)]
pub(crate) struct Copy {
    /// The store of a stopped host: sqlite: and its file
    pub source: String,
    /// The URL of an empty PostgreSQL database
    pub target: String,
    /// How to print what was copied
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: StoreFormat,
}

/// What was copied.
#[derive(Serialize)]
struct Copied {
    sagas: u64,
    archived: u64,
    events: u64,
    rows: u64,
}

pub(super) async fn copy(args: Copy) -> anyhow::Result<u8> {
    let Copy { source, target, output } = args;
    if !["postgres://", "postgresql://"].iter().any(|scheme| target.starts_with(scheme)) {
        let right = "name an empty PostgreSQL database, such as postgres://amends@127.0.0.1/amends; a store in a \
                     file is copied by `amends store backup`";
        return Err(
            Failed::with_help(EXIT_USAGE, "the target is no PostgreSQL database", right).into()
        );
    }
    let store = StoppedStore::open(&source).map_err(in_use)?;
    let mut shown = Shown::new();
    let copied = copy_store(&store, &target, |progress| shown.show(progress)).await;
    shown.clear();
    let CopySummary { sagas, archived, events, rows } = copied?;
    match output {
        StoreFormat::Json => print_json(&Copied { sagas, archived, events, rows })?,
        StoreFormat::Table => {
            say!(
                "{} copied and compared: {}, {archived} that are archived or deleted, and the log up to event \
                 {events}",
                counted(rows, "row"),
                counted(sagas, "saga")
            )?;
            say!(
                "name the database in url of [store], and start no host on the old store any more"
            )?;
            if let Some(file) = source.strip_prefix("sqlite:")
                && let keys = format!("{file}-keys")
                && Path::new(&keys).exists()
            {
                say!("the keys of personal values stay in {keys}: name it in keys of [store]")?;
            }
        }
    }
    Ok(EXIT_DONE)
}

/// Says what to do when a host has the source.
fn in_use(error: OpenError) -> anyhow::Error {
    if !matches!(error, OpenError::InUse(_)) {
        return error.into();
    }
    let help = "stop the host: it would go on while its store is copied";
    Failed::with_help(EXIT_ERROR, "a host has the source open", help).into()
}

/// How far the copy is, as it was shown last.
struct Shown {
    bar: Option<Progress>,
    done: u64,
    said_at: Instant,
}

impl Shown {
    fn new() -> Self {
        Self { bar: None, done: 0, said_at: Instant::now() }
    }

    fn show(&mut self, progress: CopyProgress) {
        match progress {
            CopyProgress::Checking => eprintln!("the source is checked"),
            CopyProgress::Writing { done, all } => {
                let bar = self.bar.get_or_insert_with(|| Progress::of(all, 1, "rows"));
                bar.advance(done - self.done);
                self.done = done;
                if !std::io::stderr().is_terminal() && self.said_at.elapsed() > LINE_PAUSE {
                    eprintln!("{done} of {all} rows written");
                    self.said_at = Instant::now();
                }
            }
            CopyProgress::Comparing => {
                self.clear();
                eprintln!("the copy is compared");
            }
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.clear();
        }
    }
}
