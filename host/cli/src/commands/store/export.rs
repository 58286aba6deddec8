//! `store export`: the history of one saga as a file.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use amends_api_types::{
    BUNDLE_FORMAT, BundleComponent, BundleEvent, BundleHead, DefinitionView, EventView,
};
use amends_engine::{Definition, Event, StepEvent, StepName, UndoEvent};

use super::download::{Draft, exists};
use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::EXIT_DONE;
use crate::commands::ids::one_id;
use crate::commands::output::{say, write};
use crate::commands::sagas::events;

/// The arguments of `store export`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  amends store export ID saga.ndjson\n  amends store export @last | \
                  amends replay -\n\nThe bundle has all inputs and outputs of the saga: look at it \
                  before you send it to others.\n`amends replay` steps through it, and needs no host."
)]
pub(crate) struct Export {
    /// The saga's id, eight or more digits of its beginning or end, or @last
    pub id: String,
    /// The file to write; standard output when there is none, or -
    pub file: Option<PathBuf>,
    /// Replace the file when it exists
    #[arg(long)]
    pub replace: bool,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

pub(super) async fn export(mut args: Export) -> anyhow::Result<u8> {
    // As for other verbs.
    args.file.take_if(|file| file.as_os_str() == "-");
    if let Some(file) = args.file.as_ref().filter(|_| !args.replace)
        && file.symlink_metadata().is_ok()
    {
        return Err(exists(file).into());
    }
    let client = Client::new(&args.host)?;
    let id = one_id(&client, &args.id).await?;
    let definition: DefinitionView =
        client.get(&format!("/v1/sagas/{}/definition", escape(&id))).await?;
    let events = events(&client, &id).await?;
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
