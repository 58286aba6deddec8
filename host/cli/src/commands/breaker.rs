//! `breaker`: what an operator does to circuit breakers.

use clap::{Args, Subcommand};
use serde::Serialize;

use amends_api_types::BreakerView;
use amends_engine::on_one_line;

use crate::commands::change::{ChangeArgs, print_changed};
use crate::commands::client::{Client, escape};
use crate::commands::exit::EXIT_DONE;
use crate::commands::plan::{self, Breakers, opened_by};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Breaker {
    /// List the circuit breakers
    List(Breakers),
    /// Open a breaker: no call of the service begins, also no undo, until the breaker is closed
    Open(Open),
    /// Close a breaker: sagas that wait for the service go on at once
    Close(OfService),
}

/// The arguments of `open`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  amends breaker open carrier --for 1h --reason \"the carrier moves \
                        house\""
)]
pub(crate) struct Open {
    /// How long it stays open, such as 30m; then a few calls try the service [default: until it is closed]
    #[arg(long = "for", value_name = "DURATION")]
    pub(crate) open_for: Option<String>,
    /// Which, and why.
    #[command(flatten)]
    pub(crate) of: OfService,
}

/// Which breaker, and why.
#[derive(Debug, Args)]
pub(crate) struct OfService {
    /// The service
    pub(crate) service: String,
    /// Why, and how to print it.
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Serialize)]
struct Body<'a> {
    reason: &'a str,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    open_for: Option<&'a str>,
}

pub(crate) async fn run(verb: Breaker) -> anyhow::Result<u8> {
    let (verb, of, open_for) = match verb {
        Breaker::List(args) => return plan::breakers(args).await,
        Breaker::Open(Open { of, open_for }) => ("open", of, open_for),
        Breaker::Close(of) => ("close", of, None),
    };
    let OfService { service, change } = of;
    let client = Client::new(&change.host)?;
    let path = format!("/v1/breakers/{}/{verb}", escape(&service));
    let body = Body { reason: &change.reason, open_for: open_for.as_deref() };
    let breaker: BreakerView = client.post(&path, &body).await?;
    print_changed(change.output, &breaker, &breaker.service, || {
        on_one_line(&words(&breaker)).into_owned()
    })?;
    Ok(EXIT_DONE)
}

/// `carrier is open until 2026-…, opened by ada@127.0.0.1: the carrier moves house`.
fn words(breaker: &BreakerView) -> String {
    let by = opened_by(breaker);
    let until = match (breaker.open_until, &by) {
        (Some(until), _) => format!(" until {until}"),
        (None, Some(_)) => " until it is closed by hand".to_owned(),
        (None, None) => String::new(),
    };
    let by = by.map_or_else(String::new, |by| {
        format!(", {by}: {}", breaker.opened_reason.as_deref().unwrap_or_default())
    });
    format!("{} is {}{until}{by}", breaker.service, breaker.state)
}
