//! `erase`: the personal values of a subject.

use clap::Args;
use serde::Serialize;

use amends_api_types::{ErasureView, ErasureWaitItem, Page};
use amends_engine::on_one_line;

use crate::commands::client::{Client, HostArgs};
use crate::commands::exit::{EXIT_DONE, EXIT_NOT_FOUND};
use crate::commands::output::format::Format;
use crate::commands::output::{counted, print_json, print_json_line, say};

/// The sagas that are named in words.
const SAGAS_NAMED_MAX: usize = 10;

/// The arguments of `erase`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  amends erase --subject customer-81 --reason \"request 2026-118\"\n  \
                  amends erase --list\n\nThe values of sagas that may still be undone are erased when \
                  that is over.\nAn older backup of the key file can still open what was erased."
)]
pub(crate) struct Erase {
    /// Whose values: the text that `subject` of the definition reads of the input
    #[arg(long, value_name = "TEXT", required_unless_present = "list", conflicts_with = "list")]
    pub(crate) subject: Option<String>,
    /// The reason, which is kept with who asked; it should not name the subject
    #[arg(long, value_name = "TEXT", required_unless_present = "list", conflicts_with = "list")]
    pub(crate) reason: Option<String>,
    /// List the erasures, and the sagas that wait for theirs
    #[arg(long)]
    pub(crate) list: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

#[derive(Serialize)]
struct Body<'a> {
    subject: &'a str,
    reason: &'a str,
}

pub(crate) async fn run(args: Erase) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let (Some(subject), Some(reason)) = (&args.subject, &args.reason) else {
        let page: Page<ErasureView> = client.get("/v1/erasures").await?;
        match args.output {
            Format::Json => print_json(&page.items)?,
            Format::Jsonl => page.items.iter().try_for_each(print_json_line)?,
            Format::Ids => page.items.iter().flat_map(|item| &item.sagas).try_for_each(id)?,
            Format::Table if page.items.is_empty() => eprintln!("no erasures"),
            Format::Table => page.items.iter().try_for_each(|item| print(item, true))?,
        }
        return Ok(EXIT_DONE);
    };
    let erased: ErasureView = client.post("/v1/erasures", &Body { subject, reason }).await?;
    match args.output {
        Format::Json => print_json(&erased)?,
        Format::Jsonl => print_json_line(&erased)?,
        Format::Ids => erased.sagas.iter().try_for_each(id)?,
        Format::Table if erased.subject_key.is_none() => {
            eprintln!(
                "nothing is erased: no saga has values of a subject that is written just like this; they \
                 were erased before, or began before their definition had `subject`, which sealed nothing"
            );
        }
        Format::Table => {
            print(&erased, false)?;
            say!("complete when the oldest backup of the key file from before is gone")?;
        }
    }
    Ok(if erased.subject_key.is_some() { EXIT_DONE } else { EXIT_NOT_FOUND })
}

fn id(saga: &ErasureWaitItem) -> anyhow::Result<()> {
    say!("{}", saga.id)?;
    Ok(())
}

fn print(erasure: &ErasureView, with_reason: bool) -> anyhow::Result<()> {
    if with_reason
        && let (Some(at), Some(who), Some(reason)) = (erasure.at, &erasure.who, &erasure.reason)
    {
        say!("{}", on_one_line(&format!("{at} by {who}: {reason}")))?;
    }
    let sagas = |count| counted(count, "saga");
    say!("the values of {} were erased at once", sagas(erasure.erased))?;
    if erasure.erased_later > 0 {
        let later = sagas(erasure.erased_later);
        say!("those of {later} were erased later, when no undo needed them any more")?;
    }
    if erasure.waiting > 0 {
        say!("those of {} wait until no undo needs them any more:", sagas(erasure.waiting))?;
        for saga in erasure.sagas.iter().take(SAGAS_NAMED_MAX) {
            let when = match (&saga.until, &saga.status) {
                (Some(until), _) => format!("until {until}"),
                (None, Some(status)) => format!("it is {}", on_one_line(status)),
                (None, None) => "soon".to_owned(),
            };
            say!("  {}  {when}", on_one_line(&saga.id))?;
        }
        let named = erasure.sagas.len().min(SAGAS_NAMED_MAX) as u64;
        if let Some(more) = erasure.waiting.checked_sub(named).filter(|more| *more > 0) {
            say!("  and {more} more")?;
        }
    }
    Ok(())
}
