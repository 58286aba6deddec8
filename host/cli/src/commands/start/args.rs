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
pub(crate) struct Start {
    /// The definition
    pub(crate) definition: String,
    /// The input of the saga: JSON, a file with JSON, or - for standard input
    #[arg(long, default_value = "null", value_name = "JSON|FILE|-", allow_hyphen_values = true)]
    pub(crate) input: String,
    /// Start one saga for each line of the input (NDJSON)
    #[arg(long)]
    pub(crate) each: bool,
    /// Idempotency key: the same key and input start one saga; with --each, KEY:LINE
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// A tag to find the saga by, NAME=VALUE or NAME:VALUE; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    pub(crate) tags: Vec<String>,
    /// Start later: 2h, 3d (from now), 2026-03-01 or 2026-03-01T09:30:00Z, in UTC
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Wait until the saga ends or is blocked, for at most this long [default when given: 30s]
    #[arg(long, num_args = 0..=1, default_missing_value = "30s", value_name = "DURATION")]
    pub(crate) wait: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}
