//! `store export`: the history of one saga as a file, or the events of all ended sagas as tables.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use reqwest::Method;

use amends_api_types::{
    BUNDLE_COMPONENTS_BYTES_MAX, BUNDLE_FORMAT, BundleBlob, BundleComponent, BundleDigest,
    BundleEvent, BundleHead, DefinitionView, EventView,
};
use amends_engine::{Definition, Digest, Event, StepEvent, StepName, UndoEvent};

use super::download::{Draft, exists};
use super::parquet::{self, Month, Tables};
use super::withhold::{definition_of, withhold};
use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::{EXIT_DONE, is_not_found};
use crate::commands::ids::one_id;
use crate::commands::output::{complain, counted, say, short_digest, write};
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
    /// Write the components that served its calls too, so that `replay --calls` makes them again anywhere
    #[arg(long, conflicts_with = "parquet")]
    pub components: bool,
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
        client.needs_payloads().await?;
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
    client.needs_payloads().await?;
    let id = one_id(&client, &id).await?;
    let definition: DefinitionView =
        client.get(&format!("/v1/sagas/{}/definition", escape(&id))).await?;
    let mut events = events(&client, &id).await?;
    if !args.personal {
        withhold(&definition_of(&definition)?, &id, &mut events)?;
    }
    let components = components(&definition, &events);
    let blobs = if args.components { blobs(&client, &components).await? } else { Vec::new() };
    let mut head = BundleHead {
        format: BUNDLE_FORMAT.to_owned(),
        amends: env!("CARGO_PKG_VERSION").to_owned(),
        saga: id.clone(),
        definition,
        components,
        events: Some(events.len() as u64),
        withheld: !args.personal,
        digest: None,
    };
    let (mut digest, count) = (BundleDigest::new(&head), events.len());
    let mut lines = Vec::new();
    for EventView { version, at, kind, data, .. } in events {
        let text = serde_json::to_string(&BundleEvent { version, at, kind, data })?;
        digest.add(&text);
        lines.push(text);
    }
    head.digest = Some(digest.finish());
    let mut bundle = Vec::new();
    line(&mut bundle, &serde_json::to_string(&head)?);
    for (component, bytes) in &blobs {
        let blob = BundleBlob { component: component.clone(), base64: STANDARD.encode(bytes) };
        line(&mut bundle, &serde_json::to_string(&blob)?);
    }
    for text in &lines {
        line(&mut bundle, text);
    }
    let Some(file) = &args.file else {
        write(&bundle)?;
        return Ok(EXIT_DONE);
    };
    let mut draft = Draft::create(file)?;
    draft.write(&bundle, 0)?;
    draft.finish(file, args.replace)?;
    let and = match blobs.len() {
        0 => String::new(),
        count => format!(" and {}", counted(count, "component")),
    };
    say!("{} has the {} of {id}{and}", file.display(), counted(count, "event"))?;
    Ok(EXIT_DONE)
}

/// Reads the bytes of components from the host. Those that it has no more are named on standard error.
async fn blobs(
    client: &Client,
    components: &[BundleComponent],
) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let (mut blobs, mut bytes_total): (Vec<(String, Vec<u8>)>, _) = (Vec::new(), 0);
    for BundleComponent { plugin, digest } in components {
        if blobs.iter().any(|(known, _)| known == digest) {
            continue;
        }
        let path = format!("/v1/components/{}", escape(digest));
        let response = match client.send(client.request(Method::GET, &path)).await {
            Ok(response) => response,
            Err(error) if is_not_found(&error) => {
                let digest = short_digest(digest);
                complain!("the component {digest} of {plugin} is gone: the host has removed it");
                continue;
            }
            Err(error) => return Err(error),
        };
        let bytes = response.bytes().await.context("the host did not send a component")?;
        ensure!(
            Digest::of(&bytes).to_string() == *digest,
            "the host sent another component than {digest}"
        );
        bytes_total += bytes.len();
        ensure!(
            bytes_total <= BUNDLE_COMPONENTS_BYTES_MAX,
            "the components have more than {} MiB, which is the most of a bundle",
            BUNDLE_COMPONENTS_BYTES_MAX >> 20
        );
        blobs.push((digest.clone(), bytes.to_vec()));
    }
    Ok(blobs)
}

fn line(bundle: &mut Vec<u8>, text: &str) {
    bundle.extend_from_slice(text.as_bytes());
    bundle.push(b'\n');
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
