//! `plugin rehearse`.

use anyhow::Context as _;
use clap::Args;
use reqwest::multipart::{Form, Part};

use amends_api_types::{DifferenceGroupView, RehearsalView};
use amends_engine::on_one_line;

use super::deploy::named;
use crate::commands::client::{Client, HostArgs};
use crate::commands::exit::{EXIT_DIFFERS, EXIT_DONE, EXIT_WAIT_ENDED};
use crate::commands::output::format::Format;
use crate::commands::output::{counted, print_json, print_json_line, say, short_digest};

/// Sagas at most, as the host has it.
const SAGAS_MAX: u64 = amends_runtime::REHEARSAL_SAGAS_MAX as u64;

/// Differences of one kind that are printed.
const DIFFERENCES_SHOWN: usize = 5;

/// The arguments of the verb.
#[derive(Debug, Args)]
pub(crate) struct Rehearse {
    /// The component: NAME.wasm is for plugin NAME, NAME=FILE for another one
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    /// Sagas to rehearse on at most: those in flight, then those that ended last
    #[arg(long, value_name = "N", default_value_t = amends_runtime::REHEARSAL_SAGAS_DEFAULT as u64,
        value_parser = clap::value_parser!(u64).range(1..=SAGAS_MAX))]
    pub(crate) sagas: u64,
    /// How to print what differs
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    pub(crate) json: bool,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn rehearse(args: Rehearse) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let (name, file) = named(&args.file)?;
    let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let form = Form::new().part(name.to_string(), Part::bytes(bytes));
    let path = format!("/v1/plugins:rehearse?sagas={}", args.sagas);
    let response = client.upload(&path, form).await?;
    let found: RehearsalView = response.json().await.context("the host's answer cannot be read")?;
    let ids = || found.differences.iter().try_for_each(|group| say!("{}", group.saga));
    match args.output {
        _ if args.json => print_json(&found)?,
        Format::Json => print_json(&found)?,
        Format::Jsonl => found.differences.iter().try_for_each(print_json_line)?,
        Format::Ids => ids()?,
        Format::Table => print(&found)?,
    }
    Ok(if found.steps_differing > 0 {
        EXIT_DIFFERS
    } else if found.steps == 0 && found.unfinished.is_some() {
        EXIT_WAIT_ENDED
    } else {
        EXIT_DONE
    })
}

fn print(found: &RehearsalView) -> anyhow::Result<()> {
    let RehearsalView { plugin, steps, steps_found, sagas, .. } = found;
    if found.digest == found.serving {
        return say!("{plugin} is served by this very component: nothing can differ");
    }
    say!(
        "{plugin} {} ({}) against {} ({}), which serves now",
        on_one_line(&found.version),
        short_digest(&found.digest),
        on_one_line(&found.serving_version),
        short_digest(&found.serving)
    )?;
    if *sagas == 0 {
        return say!(
            "nothing is recorded to rehearse on: neither a saga in flight nor one of those that \
             ended last has a step that {plugin} has undone or would undo"
        );
    }
    let rehearsed = if steps == steps_found {
        counted(*steps, "step")
    } else {
        format!("{steps} of {}", counted(*steps_found, "step"))
    };
    say!(
        "{rehearsed} of {} rehearsed, {} of the sagas in flight; nothing was sent and nothing is kept",
        counted(*sagas, "saga"),
        found.sagas_in_flight
    )?;
    if found.steps_with_requests > 0 {
        say!(
            "{} of the steps send requests: rehearsed once with each of the answers {}",
            found.steps_with_requests,
            found.answers.join(", ")
        )?;
    }
    if let Some(unfinished) = &found.unfinished {
        say!(
            "the time of {} s was up while the {} component undid {} of {}",
            found.time_max_ms / 1_000,
            if unfinished.is_new { "new" } else { "old" },
            unfinished.step,
            unfinished.saga
        )?;
    }
    if found.steps_passed_over > 0 {
        say!(
            "not rehearsed, because the input cannot be computed, or the component that would undo the step \
             now cannot be loaded: {}",
            counted(found.steps_passed_over, "step")
        )?;
    }
    for group in &found.differences {
        say!("")?;
        print_group(group, *steps)?;
    }
    let more = found.differences_total - found.differences.len();
    if more > 0 {
        say!("\nand {more} other kinds of differences")?;
    }
    if !found.left_out.is_empty() {
        say!("\nnot compared, because what serves now does not do it the same twice:")?;
        found.left_out.iter().try_for_each(|one| {
            say!("  {} ({})", on_one_line(&one.what), counted(one.steps, "step"))
        })?;
    }
    match found.steps_differing {
        0 if *steps == 0 => Ok(()),
        0 => say!("\nnothing differs"),
        differing if differing == *steps => say!("\nall of them differ"),
        differing => say!("\n{} are the same, {differing} differ", steps - differing),
    }
}

fn print_group(group: &DifferenceGroupView, steps: usize) -> anyhow::Result<()> {
    let answers = match group.answers.as_slice() {
        [] => String::new(),
        answers => format!(" with answer {}", answers.join(" or ")),
    };
    say!(
        "{} of {steps} differ{answers} (for example {} of {}):",
        group.steps,
        group.step,
        group.saga
    )?;
    for difference in group.differences.iter().take(DIFFERENCES_SHOWN) {
        let side =
            |text: &Option<String>| on_one_line(text.as_deref().unwrap_or("nothing")).into_owned();
        say!("  {}", on_one_line(&difference.what))?;
        say!("    old: {}", side(&difference.old))?;
        say!("    new: {}", side(&difference.new))?;
    }
    match group.differences_total.saturating_sub(DIFFERENCES_SHOWN) {
        0 => Ok(()),
        more => say!("  and {more} more; -o json has them"),
    }
}
