//! `schedule`: how schedules stand.

use clap::{Args, Subcommand};

use amends_api_types::ScheduleView;

use crate::commands::client::{Client, HostArgs, Page};
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::format::Format;
use crate::commands::output::{Look, print_json, print_json_line, print_table_as, say, table};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Schedule {
    /// List the schedules: when they are due, the last saga, and why a time was skipped
    List(List),
}

/// The arguments of `list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends schedule list")]
pub(crate) struct List {
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn run(verb: Schedule) -> anyhow::Result<u8> {
    match verb {
        Schedule::List(args) => list(args).await,
    }
}

async fn list(args: List) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let look = Look::new();
    let all = client.get::<Page<ScheduleView>>("/v1/schedules").await?.items;
    match args.output {
        Format::Json => print_json(&all)?,
        Format::Jsonl => all.iter().try_for_each(print_json_line)?,
        Format::Ids => all.iter().try_for_each(|schedule| say!("{}", schedule.name))?,
        Format::Table if all.is_empty() => say!("the config has no schedule")?,
        Format::Table => {
            let columns =
                ["name", "cron", "timezone", "next", "last", "saga", "skipped", "because"];
            let mut rows = table(&columns);
            rows.add_rows(all.into_iter().map(|schedule| {
                let time = |at| look.time(at);
                let next: Vec<_> = schedule.next.into_iter().map(time).collect();
                vec![
                    schedule.name,
                    schedule.cron,
                    schedule.timezone,
                    next.join(", "),
                    schedule.started_at.map(time).unwrap_or_default(),
                    schedule.saga.unwrap_or_default(),
                    schedule.skipped_at.map(time).unwrap_or_default(),
                    schedule.error.or(schedule.skipped_reason).unwrap_or_default(),
                ]
            }));
            print_table_as(&rows, look)?;
        }
    }
    Ok(EXIT_DONE)
}
