//! `signal`: tells a saga what a step of it waits for.

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::EXIT_DONE;
use crate::commands::ids::each_id;
use crate::commands::input::read_json;
use crate::commands::output::format::Format;
use crate::commands::output::{paint, print_json, print_json_line, say};

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends signal ID approved\n  amends signal ID approved \
                        --payload '{\"by\": \"ada\"}' --id approval-7")]
pub(crate) struct Signal {
    /// The saga's id, eight or more digits of its beginning or end, or @last; - reads ids from
    /// standard input
    #[arg(id = "saga", value_name = "ID")]
    pub(crate) saga: String,
    /// The signal that a step waits for, or will
    pub(crate) name: String,
    /// The payload of the signal, which becomes the output of the step
    #[arg(long, value_name = "JSON|FILE", default_value = "null", allow_hyphen_values = true)]
    pub(crate) payload: String,
    /// Your id of the signal: a second signal with the same id is dropped
    #[arg(long, value_name = "SIGNAL_ID")]
    pub(crate) id: Option<String>,
    /// How to print the saga afterwards
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

#[derive(Serialize)]
struct Body<'a> {
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

/// That it was taken.
#[derive(Serialize, Deserialize)]
struct Taken {
    id: String,
    status: String,
}

pub(crate) async fn run(args: Signal) -> anyhow::Result<u8> {
    let payload = read_json("--payload", &args.payload)?;
    let body = Body { payload: &payload, id: args.id.as_deref() };
    let client = Client::new(&args.host)?;
    each_id(&client, &args.saga, async |id| {
        let path = format!("/v1/sagas/{}/signals/{}", escape(id), escape(&args.name));
        let taken: Taken = client.post(&path, &body).await?;
        match args.output {
            Format::Json => print_json(&taken)?,
            Format::Jsonl => print_json_line(&taken)?,
            Format::Ids => say!("{}", taken.id)?,
            Format::Table => say!("{}  {}", taken.id, paint(&taken.status))?,
        }
        Ok(EXIT_DONE)
    })
    .await
}
