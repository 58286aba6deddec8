//! The arguments of `start`.

use clap::Args;

use crate::commands::client::HostArgs;
use crate::commands::output::format::Format;

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends start order-fulfillment --input order.json --wait\n  \
                        amends start order-fulfillment --input '{\"order_id\": \"7\"}' --key \
                        order-7\n  amends start order-fulfillment --input orders.ndjson --each \
                        --wait")]
pub struct Start {
    /// The definition
    pub definition: String,
    /// What the saga is given: JSON, a file with JSON, or - for standard input
    #[arg(long, default_value = "null", value_name = "JSON|FILE|-", allow_hyphen_values = true)]
    pub input: String,
    /// Start one saga for each line of the input (NDJSON)
    #[arg(long)]
    pub each: bool,
    /// Idempotency key: the same key and input start one saga; with --each, KEY:LINE
    #[arg(long)]
    pub key: Option<String>,
    /// For finding it, NAME=VALUE or NAME:VALUE; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    pub tags: Vec<String>,
    /// Wait until the saga ends or is blocked, at most so long [default when given: 30s]
    #[arg(long, num_args = 0..=1, default_missing_value = "30s", value_name = "DURATION")]
    pub wait: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}
