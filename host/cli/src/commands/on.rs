//! `on`: how the rules for events stand.

use clap::{Args, Subcommand};

use amends_api_types::EventRuleView;

use crate::commands::client::{Client, HostArgs, Page};
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::format::Format;
use crate::commands::output::{Look, print_json, print_json_line, print_table_as, say, table};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum On {
    /// List the rules: how many events came, what became of them, and the last error
    List(List),
}

/// The arguments of `list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends on list")]
pub(crate) struct List {
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn run(verb: On) -> anyhow::Result<u8> {
    match verb {
        On::List(args) => list(args).await,
    }
}

async fn list(args: List) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let look = Look::new();
    let all = client.get::<Page<EventRuleView>>("/v1/on").await?.items;
    match args.output {
        Format::Json => print_json(&all)?,
        Format::Jsonl => all.iter().try_for_each(print_json_line)?,
        Format::Ids => all.iter().try_for_each(|rule| say!("{}", rule.name))?,
        Format::Table if all.is_empty() => say!("the config has no rule for events")?,
        Format::Table => {
            let columns = [
                "name",
                "state",
                "event",
                "from",
                "does",
                "events",
                "started",
                "repeated",
                "signalled",
                "ignored",
                "refused",
                "failed",
                "last error",
                "at",
            ];
            let mut rows = table(&columns);
            rows.add_rows(all.into_iter().map(|rule| {
                let start = rule.start.map(|definition| format!("starts {definition}"));
                let signal = rule.signal.map(|signal| format!("signals {signal}"));
                vec![
                    rule.name,
                    rule.state,
                    rule.event,
                    rule.from,
                    start.or(signal).unwrap_or_default(),
                    rule.events.to_string(),
                    rule.started.to_string(),
                    rule.repeated.to_string(),
                    rule.signalled.to_string(),
                    rule.ignored.to_string(),
                    rule.refused.to_string(),
                    rule.failed.to_string(),
                    rule.last_error.unwrap_or_default(),
                    rule.last_error_at.map(|at| look.time(at)).unwrap_or_default(),
                ]
            }));
            print_table_as(&rows, look)?;
        }
    }
    Ok(EXIT_DONE)
}
