//! `cancel`, `compensate`, `retry`, `skip`, `resolve`, `pause`, `resume`, `abandon`, `note`: what an
//! operator does to one saga, to those on standard input, or to those that filters find.
//!
//! Which of them a saga permits, the host decides.

mod many;
mod order;
mod sweep;

use clap::Args;

use crate::commands::client::Client;
use crate::commands::exit::{EXIT_DONE, EXIT_USAGE, Failed};
use crate::commands::ids::each_id;
use crate::commands::input::read_json;
use crate::commands::output::format::Format;
use crate::commands::output::{Look, print_saga};

pub(crate) use order::OrderArgs;
use order::{Body, Order};

/// The arguments of `retry`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends retry ID --reason \"the carrier is back\"\n  \
                        amends retry ID --step shipment --input shipment.json --reason \"the ZIP \
                        code was wrong\"\n  amends retry ID --step shipment --digest sha256:… --reason \
                        \"the new one cannot undo it\"\n  amends retry --status blocked --error-like \"no \
                        route\" --reason \"the carrier is back\" --rate 50 --dry-run")]
pub(crate) struct Retry {
    /// The step [default: every step that only an operator can move, else every step that waits]
    #[arg(long)]
    pub(crate) step: Option<String>,
    /// Another input for the step's later calls
    #[arg(long, value_name = "JSON|FILE", allow_hyphen_values = true)]
    pub(crate) input: Option<String>,
    /// The component that serves the step's later calls in place of the active one: one that serves
    /// the plugin or has served it
    #[arg(long, value_name = "DIGEST", requires = "step")]
    pub(crate) digest: Option<String>,
    /// Which sagas, and why.
    #[command(flatten)]
    pub(crate) order: OrderArgs,
}

/// The arguments of `skip`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends skip ID --step inventory --reason \"the stock is \
                        written off\"\n  amends skip --status blocked --definition \
                        order-fulfillment --reason \"written off\" --dry-run\n  amends skip ID --step \
                        hotel --undo --reason \"we pay for the room\"")]
pub(crate) struct Skip {
    /// The step [default: the one that needs the order]
    #[arg(long)]
    pub(crate) step: Option<String>,
    /// The order is about the step's undo, also about an undo that is due and has not begun
    #[arg(long)]
    pub(crate) undo: bool,
    /// Which sagas, and why.
    #[command(flatten)]
    pub(crate) order: OrderArgs,
}

/// The arguments of `resolve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends resolve ID --step inventory --evidence \"RSV-7 is \
                        released, ticket 12\" --reason \"released by hand\"\n  amends resolve ID \
                        --step shipment --evidence \"the carrier's list\" --result '{\"label\": \
                        \"LBL-7\"}' --reason \"the answer was lost\"\n  amends resolve ID --step \
                        shipment --evidence \"no label at the carrier\" --not-happened --reason \
                        \"the answer was lost\"")]
pub(crate) struct Resolve {
    /// The step [default: the one that needs the order]
    #[arg(long)]
    pub(crate) step: Option<String>,
    /// The evidence: how you know what became of the call; the history keeps it
    #[arg(long, value_name = "TEXT")]
    pub(crate) evidence: String,
    /// The output, as the component would have answered; without it, the output counts as not known
    #[arg(
        long,
        value_name = "JSON|FILE",
        allow_hyphen_values = true,
        conflicts_with = "not_happened"
    )]
    pub(crate) result: Option<String>,
    /// The call did not happen; of an undo, there was nothing to undo
    #[arg(long)]
    pub(crate) not_happened: bool,
    /// The order is about the step's undo, also about an undo that is due and has not begun
    #[arg(long, conflicts_with = "result")]
    pub(crate) undo: bool,
    /// Which sagas, and why.
    #[command(flatten)]
    pub(crate) order: OrderArgs,
}

/// A verb that needs no more than a reason.
pub(crate) async fn run(verb: &'static str, args: OrderArgs) -> anyhow::Result<u8> {
    act(verb, args, Body::default()).await
}

pub(crate) async fn retry(args: Retry) -> anyhow::Result<u8> {
    let input = args.input.map(|input| read_json("--input", &input)).transpose()?;
    act(
        "retry",
        args.order,
        Body { step: args.step, input, digest: args.digest, ..Body::default() },
    )
    .await
}

pub(crate) async fn skip(args: Skip) -> anyhow::Result<u8> {
    act("skip", args.order, Body { step: args.step, undo: args.undo, ..Body::default() }).await
}

pub(crate) async fn resolve(args: Resolve) -> anyhow::Result<u8> {
    let Resolve { step, evidence, result, not_happened, undo, order } = args;
    let output = result.map(|result| read_json("--result", &result)).transpose()?;
    let (evidence, happened) = (Some(evidence), not_happened.then_some(false));
    let body = Body { step, output, evidence, happened, undo, ..Body::default() };
    act("resolve", order, body).await
}

async fn act(verb: &'static str, args: OrderArgs, body: Body) -> anyhow::Result<u8> {
    check_usage(verb, &args)?;
    let body = Body { reason: args.reason.clone(), dry_run: args.dry_run, ..body };
    let order = Order { client: Client::new(&args.host)?, verb, body };
    let Some(id) = &args.id else { return sweep::run(&order, &args).await };
    if id == "-" && args.output == Format::Table {
        return many::run(&order).await;
    }
    each_id(&order.client, id, async |id| {
        print_saga(&order.give(id).await?, args.output, Look::new())?;
        Ok(EXIT_DONE)
    })
    .await
}

/// Sagas are named by ids or found by filters, and never all because nothing was said.
fn check_usage(verb: &str, args: &OrderArgs) -> Result<(), Failed> {
    let is_for_many = args.dry_run || args.rate.is_some() || args.limit.is_some();
    let (message, help) = match (&args.id, args.filter.is_empty()) {
        (Some(_), false) => (
            "an ID and filters exclude each other".to_owned(),
            format!("amends {verb} ID for one saga, or the filters without an ID for many"),
        ),
        (Some(_), true) if is_for_many => (
            "--dry-run, --rate and --limit go with filters, not with an ID".to_owned(),
            format!("leave them out, or write amends {verb} --status blocked --dry-run …"),
        ),
        (None, true) => (
            format!("neither an ID nor a filter says which sagas to {verb}"),
            format!(
                "write amends {verb} ID …, amends {verb} - … for ids on standard input, or such \
                 as amends {verb} --status blocked --dry-run …"
            ),
        ),
        (Some(_), true) | (None, false) => return Ok(()),
    };
    Err(Failed::with_help(EXIT_USAGE, &message, &help))
}
