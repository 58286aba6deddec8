//! `me`: who the host says that the caller is, and what the caller may do.

use anyhow::Context as _;
use clap::Args;
use reqwest::Method;

use amends_api_types::MeView;
use amends_engine::on_one_line;

use crate::commands::client::{Client, HostArgs};
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::format::Format;
use crate::commands::output::{Look, print_json, print_json_line, print_table_as, say, table};

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends me")]
pub(crate) struct Me {
    /// How to print it; `ids` is the name alone
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn run(args: Me) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let request = client.request(Method::GET, "/v1/me");
    // Who asks is a part of the answer.
    let answer = client.send_as_user(request).await?;
    let me: MeView = answer.json().await.context("the host's answer cannot be read")?;
    match args.output {
        Format::Json => print_json(&me)?,
        Format::Jsonl => print_json_line(&me)?,
        Format::Ids => say!("{}", on_one_line(&me.who))?,
        Format::Table if me.access_control => {
            let look = Look::new();
            let expires = me.expires_at.map_or_else(|| "never".to_owned(), |at| look.time(at));
            let mut rows = table(&["who", "roles", "permissions", "namespaces", "expires"]);
            let [roles, permissions, namespaces] =
                [me.roles, me.permissions, me.namespaces].map(|words| words.join(", "));
            rows.add_row([me.who, roles, permissions, namespaces, expires]);
            print_table_as(&rows, look)?;
        }
        Format::Table => {
            let words = format!(
                "{}: the host has no access control, so everybody who reaches it may do everything",
                me.who
            );
            say!("{}", on_one_line(&words))?;
        }
    }
    Ok(EXIT_DONE)
}
