//! `store export`: the history of one saga as a file, or the events of all ended sagas as tables.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use amends_api_types::{
    BUNDLE_FORMAT, BundleComponent, BundleEvent, BundleHead, DefinitionView, EventView,
};
use amends_engine::{Definition, Event, StepEvent, StepName, UndoEvent, Version, replay};
use amends_keys::Sealer;

use super::download::{Draft, exists};
use super::parquet::{self, Month, Tables};
use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::EXIT_DONE;
use crate::commands::ids::one_id;
use crate::commands::output::{say, write};
use crate::commands::sagas::events;

/// The arguments of `store export`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  amends store export ID saga.ndjson\n  amends store export @last | \
                  amends replay -\n  amends store export --parquet tables --month 2026-11\n\nThe bundle has all inputs and outputs of the saga but its \
                  personal values: look at it\nbefore you send it to others.\n`amends replay` steps through it, and needs no host.\n\nWith \
                  --parquet, the folder gets a file for each month in which sagas ended, \
                  archived ones included."
)]
pub(crate) struct Export {
    /// The saga's id, eight or more digits of its beginning or end, or @last
    #[arg(required_unless_present = "parquet")]
    pub id: Option<String>,
    /// The file to write; standard output when there is none, or -
    pub file: Option<PathBuf>,
    /// Write the events of all sagas that have ended into this folder, as Parquet
    #[arg(long, value_name = "FOLDER", conflicts_with = "id")]
    pub parquet: Option<PathBuf>,
    /// Only sagas that ended in this month (UTC), such as 2026-11
    #[arg(long, requires = "parquet")]
    pub month: Option<Month>,
    /// Write the personal values too, as the history of the saga shows them
    #[arg(long)]
    pub personal: bool,
    /// Replace the file when it exists
    #[arg(long)]
    pub replace: bool,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

pub(super) async fn export(mut args: Export) -> anyhow::Result<u8> {
    let Some(id) = args.id else {
        let client = Client::new(&args.host)?;
        let folder = args.parquet.unwrap_or_default();
        let export = Tables { month: args.month, replace: args.replace, personal: args.personal };
        return parquet::export(&client, &folder, export).await;
    };
    // As for other verbs.
    args.file.take_if(|file| file.as_os_str() == "-");
    if let Some(file) = args.file.as_ref().filter(|_| !args.replace)
        && file.symlink_metadata().is_ok()
    {
        return Err(exists(file).into());
    }
    let client = Client::new(&args.host)?;
    let id = one_id(&client, &id).await?;
    let definition: DefinitionView =
        client.get(&format!("/v1/sagas/{}/definition", escape(&id))).await?;
    let mut events = events(&client, &id).await?;
    if !args.personal {
        withhold(&definition_of(&definition)?, &id, &mut events)?;
    }
    let components = components(&definition, &events);
    let head = BundleHead {
        format: BUNDLE_FORMAT.to_owned(),
        amends: env!("CARGO_PKG_VERSION").to_owned(),
        saga: id.clone(),
        definition,
        components,
        events: Some(events.len() as u64),
    };
    let mut bundle = Vec::new();
    line(&mut bundle, &head)?;
    let count = events.len();
    for EventView { version, at, kind, data, .. } in events {
        line(&mut bundle, &BundleEvent { version, at, kind, data })?;
    }
    let Some(file) = &args.file else {
        write(&bundle)?;
        return Ok(EXIT_DONE);
    };
    let mut draft = Draft::create(file)?;
    draft.write(&bundle, 0)?;
    draft.finish(file, args.replace)?;
    say!("{} has the {count} events of {id}", file.display())?;
    Ok(EXIT_DONE)
}

/// Reads a definition of the host.
pub(super) fn definition_of(definition: &DefinitionView) -> anyhow::Result<Arc<Definition>> {
    match Definition::from_canonical(definition.spec.as_str()) {
        Ok(definition) => Ok(Arc::new(definition)),
        Err(error) => bail!(
            "the definition {} cannot be read, so nobody knows which values are personal: {error}; \
             use a command line of the host's version, or --personal, which writes all values",
            definition.digest
        ),
    }
}

/// Replaces the personal values of a saga, if its definition has a subject.
pub(super) fn withhold(
    definition: &Arc<Definition>,
    id: &str,
    events: &mut [EventView],
) -> anyhow::Result<()> {
    if definition.spec().subject.is_none() {
        return Ok(());
    }
    let decoded = events.iter().map(|event| Event::decode(&event.kind, event.data.get()));
    let decoded = decoded.collect::<Result<Vec<_>, _>>();
    let decoded =
        decoded.context("the events cannot be read; --personal writes them as they are")?;
    let log = events.iter().map(|event| event.at).zip(&decoded);
    let saga = replay(id.parse()?, Arc::clone(definition), log)
        .context("the events cannot be read; --personal writes them as they are")?;
    let sealer = Sealer::new(&saga, &decoded, None);
    for (event, fact) in events.iter_mut().zip(&decoded) {
        event.data = RawValue::from_string(sealer.data(Version(event.version), fact))?;
    }
    Ok(())
}

fn line(bundle: &mut Vec<u8>, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *bundle, value)?;
    bundle.push(b'\n');
    Ok(())
}

/// Returns the components that served the calls which the events name. A step that runs a saga has none.
fn components(definition: &DefinitionView, events: &[EventView]) -> Vec<BundleComponent> {
    let Ok(definition) = Definition::from_canonical(definition.spec.as_str()) else {
        return Vec::new();
    };
    let plugin = |step: &StepName, is_undo: bool| {
        let spec = definition.steps().iter().find(|spec| spec.name.as_str() == step.step())?;
        let plugin = if is_undo { spec.undo_plugin() } else { spec.plugin() };
        plugin.map(ToString::to_string)
    };
    let mut found = BTreeSet::new();
    for event in events {
        let (plugin, digest) = match Event::decode(&event.kind, event.data.get()) {
            Ok(Event::Step(StepEvent::Started(it))) => (plugin(&it.step, false), it.digest),
            Ok(Event::Undo(UndoEvent::Started(it))) => (plugin(&it.step, true), it.digest),
            Ok(_) | Err(_) => continue,
        };
        let digest = digest.to_string();
        found.extend(plugin.map(|plugin| BundleComponent { plugin, digest }));
    }
    found.into_iter().collect()
}
