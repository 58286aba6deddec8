//! What an operator orders, and to which sagas.

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use amends_api_types::SagaView;

use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::filter::Filter;
use crate::commands::output::format::Format;

/// Sagas a second at most: more than a host does.
const RATE_MAX: f64 = 10_000.0;

/// Which sagas, and why.
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// The saga's id, eight or more digits of its beginning or end, or @last; - reads ids from
    /// standard input; or give filters instead
    pub(crate) id: Option<String>,
    /// The reason, which the history keeps with who asked
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// How to print the saga, or what was done
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which sagas, when not by id.
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// How many of them at most, the newest first
    #[arg(long, value_name = "SAGAS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// How many of them a second at most
    #[arg(long, value_name = "SAGAS", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Only list them, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// What is asked of the host.
#[derive(Debug, Default, Serialize)]
pub(super) struct Body {
    pub(super) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) input: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) evidence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) happened: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) undo: bool,
    /// In the body, not in the query: a host that does not know it refuses the order.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) dry_run: bool,
}

/// What is to be done, to whichever saga.
pub(super) struct Order {
    pub(super) client: Client,
    pub(super) verb: &'static str,
    pub(super) body: Body,
}

impl Order {
    /// The saga after it; of a dry run, the saga as it is, if it permits the order.
    pub(super) async fn give(&self, id: &str) -> anyhow::Result<SagaView> {
        let path = format!("/v1/sagas/{}/{}", escape(id), self.verb);
        self.client.post(&path, &self.body).await
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| *rate > 0.0 && *rate <= RATE_MAX);
    rate.ok_or_else(|| format!("write a number of sagas, such as 50 or 0.5, up to {RATE_MAX}"))
}
