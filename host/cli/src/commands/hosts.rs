//! `hosts`: the hosts that share a store.

use clap::Args;

use amends_api_types::HostView;

use crate::commands::client::{Client, HostArgs};
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::format::Format;
use crate::commands::output::{Look, print_json, print_json_line, print_table_as, say, table};

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends hosts")]
pub(crate) struct Hosts {
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn run(args: Hosts) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let HostView { hosts, shards_unowned } = client.get("/v1/host").await?;
    match args.output {
        Format::Json => print_json(&hosts)?,
        Format::Jsonl => hosts.iter().try_for_each(print_json_line)?,
        Format::Ids => hosts.iter().try_for_each(|host| say!("{}", host.name))?,
        Format::Table if hosts.is_empty() => say!("the host has its store alone")?,
        Format::Table => {
            let mut rows = table(&["name", "address", "shards", "asked"]);
            rows.add_rows(hosts.into_iter().map(|host| {
                let asked = if host.is_this { "this one" } else { "" };
                vec![host.name, host.address, host.shards.len().to_string(), asked.to_owned()]
            }));
            print_table_as(&rows, Look::new())?;
            if shards_unowned > 0 {
                say!(
                    "{shards_unowned} shards have no host now: their sagas stand still until one takes them over"
                )?;
            }
        }
    }
    Ok(EXIT_DONE)
}
