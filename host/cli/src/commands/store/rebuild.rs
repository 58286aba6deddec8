//! `store rebuild`: writes the projections anew from the events, and says how far it is.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use amends_api::rebuild_view;
use amends_api_types::{RebuildBody, RebuildUnreadableItem, RebuildView, StoreView};
use amends_engine::on_one_line;
use amends_store::{Durability, RebuildPlace, StoppedStore, StoreConfig};

use super::stopped::{in_use, url_of};
use super::store_format::StoreFormat;
use crate::commands::client::{Client, HostArgs};
use crate::commands::exit::{EXIT_DONE, EXIT_ERROR};
use crate::commands::output::{Progress, counted, print_json, say};

/// How often a line says how far it is, where no bar is drawn.
const LINE_PAUSE: Duration = Duration::from_secs(5);

/// The most sagas that are named because their rows stay as they are.
const UNREADABLE_NAMED_MAX: usize = 20;

/// The arguments of `store rebuild`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends store rebuild\n  amends store rebuild --config \
                        amends.toml -o json\n\nThe events stay as they are. Sagas go on meanwhile. \
                        What is right already is not written\nagain, so a rebuild that was \
                        interrupted is simply begun again.\nA saga whose events are missing or cannot be \
                        read keeps its row and start key, and is named.")]
pub(crate) struct Rebuild {
    /// Rebuild in the store of this config, whose host is stopped, and ask no host
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// How to print what was done
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: StoreFormat,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

/// What was done so far.
#[derive(Debug, Default, Serialize)]
struct Total {
    sagas: u64,
    rebuilt: u64,
    removed: u64,
    /// How many sagas could not be read.
    unreadable: u64,
    /// The first of them.
    unreadable_sagas: Vec<RebuildUnreadableItem>,
}

pub(super) async fn rebuild(args: Rebuild) -> anyhow::Result<u8> {
    let total = if let Some(config) = &args.config {
        stopped(url_of(config)?).await?
    } else {
        let client = Client::new(&args.host)?;
        let sagas = client.get::<StoreView>("/v1/store").await?.sagas;
        let slice = async |from| client.post("/v1/store/rebuild", &RebuildBody { from }).await;
        each_slice(sagas, slice).await?
    };
    match args.output {
        StoreFormat::Json => print_json(&total)?,
        StoreFormat::Table => print_total(&total)?,
    }
    Ok(if total.unreadable == 0 { EXIT_DONE } else { EXIT_ERROR })
}

/// Rebuilds in a store that was just restored, of this config, and says what was done.
pub(super) async fn rebuild_restored(url: String, config: &Path) -> anyhow::Result<()> {
    let total = stopped(url).await.with_context(|| {
        let config = config.display();
        format!(
            "the store is restored; `amends store rebuild --config {config}` is still to be done"
        )
    })?;
    print_total(&total)
}

/// Rebuilds in a store that exists and that no host has.
async fn stopped(url: String) -> anyhow::Result<Total> {
    let sagas = StoppedStore::open(&url).map_err(in_use)?.sagas()?;
    let durability = Durability::Full;
    let store = amends_store::open(&StoreConfig { url, durability, archive: None });
    let store = store.map_err(in_use)?;
    let slice = async |from: Option<String>| {
        let from = from.map_or(Ok(RebuildPlace::START), |from| from.parse())?;
        Ok(rebuild_view(store.maintenance().rebuild(from).await?))
    };
    let total = each_slice(sagas, slice).await;
    store.close().await?;
    total
}

/// Does one slice after another, and says how far it is. `sagas`: how many there are, about.
async fn each_slice(
    sagas: u64,
    slice: impl AsyncFn(Option<String>) -> anyhow::Result<RebuildView>,
) -> anyhow::Result<Total> {
    let mut bar = Progress::new(sagas, 1);
    let has_bar = std::io::stderr().is_terminal();
    let (mut total, mut from, mut said_at) = (Total::default(), None, Instant::now());
    loop {
        let view = slice(from).await?;
        total.sagas += view.sagas;
        total.rebuilt += view.rebuilt;
        total.removed += view.removed;
        total.unreadable += view.unreadable.len() as u64;
        let room = UNREADABLE_NAMED_MAX - total.unreadable_sagas.len();
        total.unreadable_sagas.extend(view.unreadable.into_iter().take(room));
        bar.advance(view.sagas);
        if !has_bar && said_at.elapsed() > LINE_PAUSE {
            let Total { sagas: done, rebuilt, removed, .. } = total;
            eprintln!(
                "{done} of {} compared, {rebuilt} rebuilt, {} removed",
                counted(sagas, "saga"),
                counted(removed, "row")
            );
            said_at = Instant::now();
        }
        if view.next.is_none() {
            bar.clear();
            return Ok(total);
        }
        from = view.next;
    }
}

fn print_total(total: &Total) -> anyhow::Result<()> {
    let Total { sagas, rebuilt, removed, unreadable, unreadable_sagas } = total;
    for RebuildUnreadableItem { saga, reason } in unreadable_sagas {
        say!("saga {saga}: {}", on_one_line(reason))?;
    }
    if *unreadable > 0 {
        let count = counted(*unreadable, "saga");
        say!("not rebuilt, so that the rows stay as they are: {count}")?;
    }
    say!(
        "{} compared with the events: {rebuilt} rebuilt, and {} of no saga removed",
        counted(*sagas, "saga"),
        counted(*removed, "row")
    )
}
