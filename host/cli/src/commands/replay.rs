//! `replay`: steps through the history of a saga, without a host.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;

use amends_api_types::{BundleComponent, BundleEvent, EventView};
use amends_engine::{
    Command, Definition, Digest, Event, PluginName, Saga, Target, Timestamp, activity_in_brief,
    commands, evolve, on_one_line, replay, why,
};

use amends_workbench::plugin::replay::{ReplayOptions, ReplayVerdict, Replayed, Replayer};

use crate::commands::bundle::Bundle;
use crate::commands::exit::{EXIT_DIFFERS, EXIT_DONE};
use crate::commands::output::format::Format;
use crate::commands::output::{
    Look, complain, event_line, paint, print_json, print_json_line, print_table_as, say,
    short_digest, status_cell, table,
};
use crate::commands::plugin::named;

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  amends store export ID saga.ndjson\n  amends replay saga.ndjson\n  \
                  amends replay saga.ndjson --to 7\n  amends replay saga.ndjson --component \
                  inventory.wasm\n  amends store export ID - --components | amends replay - --calls\n\nEach event is followed by the state after it: \
                  the status, and what was in flight, due or waited for.\nThe replay fails when an \
                  event cannot follow those before it."
)]
pub(crate) struct Replay {
    /// The bundle that `store export` wrote; - reads standard input
    bundle: String,
    /// Stop after the event of this number, and show the saga as it was then
    #[arg(long, value_name = "NUMBER")]
    to: Option<u64>,
    /// Make the calls of a plugin again on this component, and compare: NAME.wasm is for plugin NAME, NAME=FILE
    /// for another one; nothing is sent
    #[arg(long, value_name = "FILE")]
    component: Option<String>,
    /// Make the calls again on the components of the bundle, each on the one that served it, and compare;
    /// nothing is sent
    #[arg(long, conflicts_with = "component")]
    calls: bool,
    /// What is granted to the components; without it state and events
    #[arg(long, value_name = "CONFIG")]
    config: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// The state of a saga after one event.
#[derive(Debug, Serialize)]
struct StateAfter {
    /// The event.
    #[serde(flatten)]
    event: BundleEvent,
    /// The status of the saga after the event.
    status: String,
    /// What was in flight, due or waited for, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    activity: Option<String>,
    /// What the host had to do or to wait for.
    due: Vec<String>,
    /// What the given component came to, when the event is the outcome of a call of its plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<Replayed>,
}

/// How many calls a component made again, by what came of them.
#[derive(Default)]
struct Tally {
    same: u32,
    differing: u32,
    not_comparable: u32,
}

pub(crate) async fn run(args: Replay) -> anyhow::Result<u8> {
    ensure!(
        args.config.is_none() || args.calls || args.component.is_some(),
        "--config goes with --component or --calls"
    );
    let mut bundle = Bundle::open(&args.bundle)?;
    let mut replayer = open_replayer(&args, &mut bundle).await?;
    let head = &bundle.head;
    let definition = Definition::from_canonical(head.definition.spec.as_str())
        .map_err(|message| anyhow::anyhow!("line 1: its definition cannot be read: {message}"))?;
    ensure!(
        definition.digest().to_string() == head.definition.digest,
        "line 1: its definition is not the one of this digest: {}",
        head.definition.digest
    );
    let id = head.saga.parse().with_context(|| format!("line 1: {} is no id", head.saga))?;
    let (definition, look) = (Arc::new(definition), Look::new());
    let mut states = Vec::new();
    let (mut saga, mut start, mut last): (Option<Saga>, _, _) = (None, None, String::new());
    let (mut number, mut at, mut tally) = (0, Timestamp::default(), Tally::default());
    while args.to.is_none_or(|to| number < to)
        && let Some((line, text)) = bundle.next_event()?
    {
        number += 1;
        let place = || format!("line {line}");
        let event: BundleEvent = serde_json::from_str(&text).with_context(place)?;
        ensure!(
            event.version == number,
            "{}: event {number} is missing; this one is {}",
            place(),
            event.version
        );
        let fact = Event::decode(&event.kind, event.data.get()).with_context(place)?;
        match &mut saga {
            None => {
                let first = replay(id, Arc::clone(&definition), [(event.at, &fact)]);
                saga = Some(first.with_context(place)?);
            }
            Some(saga) => evolve(saga, event.at, &fact).with_context(place)?,
        }
        let Some(saga) = &saga else { continue };
        let mut state = after(saga, event);
        if let Some(replayer) = &mut replayer {
            state.replayed = replayer.compare(&fact);
            tally.count(state.replayed.as_ref());
            replayer.call(saga, &fact).await.with_context(place)?;
        }
        at = state.event.at;
        match args.output {
            Format::Table => {
                let start = *start.get_or_insert(state.event.at);
                print_state(&state, start, look, &mut last)?;
            }
            Format::Jsonl => print_json_line(&state)?,
            Format::Json => states.push(state),
            Format::Ids => {}
        }
    }
    if let Some(to) = args.to {
        ensure!(
            number == to && to > 0,
            "the bundle has the events 1 to {number}, and no event {to}"
        );
    }
    let Some(saga) = saga else { bail!("the bundle has no events") };
    if args.to.is_none() {
        bundle.check_end(number)?;
    }
    match args.output {
        Format::Json => print_json(&states)?,
        Format::Ids => say!("{}", saga.id())?,
        Format::Jsonl => {}
        Format::Table => print_end(&saga, at, look)?,
    }
    let Some(replayer) = replayer else { return Ok(EXIT_DONE) };
    if args.output == Format::Table {
        tally.print(replayer.plugins())?;
    }
    replayer.close().await?;
    Ok(if tally.differing > 0 { EXIT_DIFFERS } else { EXIT_DONE })
}

/// Loads what makes the calls again, if something does.
async fn open_replayer(args: &Replay, bundle: &mut Bundle) -> anyhow::Result<Option<Replayer>> {
    let config = args.config.clone();
    if let Some(component) = &args.component {
        let (plugin, file) = named(component)?;
        return Replayer::open(&ReplayOptions { plugin, file, config }).await.map(Some);
    }
    if !args.calls {
        return Ok(None);
    }
    let mut components = Vec::new();
    for BundleComponent { plugin, digest } in &bundle.head.components {
        let bytes = digest.parse().ok().and_then(|digest| bundle.components.remove(&digest));
        match bytes {
            Some(bytes) => components.push((plugin.parse()?, bytes)),
            // It has served two plugins.
            None if components.iter().any(|(_, bytes)| is_of(bytes, digest)) => {}
            None => {
                let digest = short_digest(digest);
                complain!(
                    "the bundle lacks the component {digest} of {plugin}; its calls are not made"
                );
            }
        }
    }
    ensure!(
        !components.is_empty(),
        "the bundle has no components: `amends store export ID --components` writes them"
    );
    Replayer::of_components(components, config.as_deref()).await.map(Some)
}

fn is_of(bytes: &[u8], digest: &str) -> bool {
    Digest::of(bytes).to_string() == digest
}

impl Tally {
    fn count(&mut self, replayed: Option<&Replayed>) {
        match replayed.map(|replayed| replayed.verdict) {
            Some(ReplayVerdict::Same) => self.same += 1,
            Some(ReplayVerdict::Differs) => self.differing += 1,
            Some(ReplayVerdict::NotComparable) => self.not_comparable += 1,
            None => {}
        }
    }

    fn print(&self, plugins: &[PluginName]) -> anyhow::Result<()> {
        let Self { same, differing, not_comparable } = self;
        let calls = same + differing + not_comparable;
        let plugins: BTreeSet<_> = plugins.iter().map(PluginName::as_str).collect();
        let plugins = plugins.into_iter().collect::<Vec<_>>().join(", ");
        say!(
            "\n{calls} calls of {plugins} were made again: {same} the same, {differing} differ, \
             {not_comparable} cannot be compared"
        )
    }
}

/// Says what the state of a saga is after an event.
fn after(saga: &Saga, event: BundleEvent) -> StateAfter {
    let due = commands(saga).map(|command| in_words(&command));
    StateAfter {
        status: saga.status().to_string(),
        activity: activity_in_brief(saga, event.at),
        due: due.collect(),
        event,
        replayed: None,
    }
}

/// Says what the host had to do or to wait for.
fn in_words(command: &Command) -> String {
    let target = |target: &Target| match target {
        Target::Plugin(plugin) => format!("plugin {plugin}"),
        Target::Saga { definition, .. } => format!("a saga {definition}"),
    };
    match command {
        Command::Start(due) => {
            let at = due.at.map_or_else(String::new, |at| format!(" at {at}"));
            format!(
                "call {} of {} by {}{at}",
                due.direction.as_str(),
                due.step,
                target(&due.target)
            )
        }
        Command::Run(call) => {
            format!("attempt {} of {} of {} runs", call.attempt, call.direction.as_str(), call.step)
        }
        Command::CancelChild(child) => format!("cancel the saga {child}"),
        Command::Wake(at) => format!("wake at {at}"),
    }
}

/// Prints an event as `watch` does, and below it the state after it when that has changed.
fn print_state(
    state: &StateAfter,
    start: Timestamp,
    look: Look,
    last: &mut String,
) -> anyhow::Result<()> {
    let event = &state.event;
    let view = EventView {
        version: event.version,
        position: 0,
        at: event.at,
        saga: None,
        plugin: None,
        service: None,
        kind: event.kind.clone(),
        data: event.data.clone(),
        step: None,
        idempotency_key: None,
    };
    say!("{}", look.line(&format!("{:>4}  {}", event.version, event_line(&view, start, look))))?;
    let due = || (!state.due.is_empty()).then(|| format!("next, {}", state.due.join("; ")));
    let activity = state.activity.clone().or_else(due);
    let activity = activity.map(|words| format!(": {}", on_one_line(&words)));
    if let Some(replayed) = &state.replayed {
        print_replayed(replayed, look)?;
    }
    let words = format!("{}{}", state.status, activity.unwrap_or_default());
    if words != *last {
        say!("{}", look.line(&format!("      = {words}")))?;
        *last = words;
    }
    Ok(())
}

/// Prints what a component came to.
fn print_replayed(replayed: &Replayed, look: Look) -> anyhow::Result<()> {
    let Replayed { digest, verdict, outcome, requests } = replayed;
    let verdict = match verdict {
        ReplayVerdict::Same => "the same",
        ReplayVerdict::Differs => "differs",
        ReplayVerdict::NotComparable => "cannot be compared",
    };
    let (digest, outcome) = (digest.to_string(), on_one_line(outcome));
    let digest = short_digest(&digest);
    say!("{}", look.line(&format!("      ~ {digest} {verdict}: {outcome}")))?;
    for request in requests {
        say!("{}", look.line(&format!("        would send {}", on_one_line(request))))?;
    }
    Ok(())
}

/// Prints the saga as it is after the last event.
fn print_end(saga: &Saga, at: Timestamp, look: Look) -> anyhow::Result<()> {
    say!("")?;
    say!("{}  {}  {}", saga.id(), saga.definition().name(), paint(saga.status().as_str()))?;
    let sentence = why(saga, at).sentence;
    say!("{}", look.paragraph(&on_one_line(&sentence)))?;
    let mut rows = table(&["step", "status", "attempts"]);
    for step in saga.steps() {
        let cells = [step.name.to_string().into(), status_cell(step.status.as_str())];
        rows.add_row(cells.into_iter().chain([step.attempts.into()]));
    }
    say!("")?;
    print_table_as(&rows, look)
}
