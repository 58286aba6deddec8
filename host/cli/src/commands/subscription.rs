//! `subscription`: how subscriptions stand, and sending dead letters again.

use clap::{Args, Subcommand};

use amends_api_types::{DeadLetterView, LIMIT_MAX, RedriveBody, SubscriptionView};
use amends_engine::on_one_line;

use crate::commands::change::{ChangeArgs, print_changed};
use crate::commands::client::{Client, HostArgs, Page, escape};
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::format::Format;
use crate::commands::output::{
    Look, counted, print_json, print_json_line, print_table_as, say, table,
};

/// The state of a subscription whose receiver wants no more.
const DISABLED: &str = "disabled";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Subscription {
    /// List the subscriptions: how far each is, and what it could not deliver
    List(List),
    /// List the events that a subscription could not deliver
    DeadLetters(DeadLetters),
    /// Send the dead letters of a subscription again; one that its receiver has ended begins again
    Redrive(Redrive),
}

/// The arguments of `list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends subscription list")]
pub(crate) struct List {
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// The arguments of `dead-letters`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends subscription dead-letters billing")]
pub(crate) struct DeadLetters {
    /// The subscription
    pub(crate) name: String,
    /// How to print them; `ids` are those of their sagas
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// The arguments of `redrive`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  amends subscription redrive billing --reason \"the receiver is mended\""
)]
pub(crate) struct Redrive {
    /// The subscription
    pub(crate) name: String,
    /// Why, and how to print it.
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

pub(crate) async fn run(verb: Subscription) -> anyhow::Result<u8> {
    match verb {
        Subscription::List(args) => list(args).await,
        Subscription::DeadLetters(args) => dead_letters(args).await,
        Subscription::Redrive(args) => redrive(args).await,
    }
}

async fn list(args: List) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let look = Look::new();
    let all = client.get::<Page<SubscriptionView>>("/v1/subscriptions").await?.items;
    match args.output {
        Format::Json => print_json(&all)?,
        Format::Jsonl => all.iter().try_for_each(print_json_line)?,
        Format::Ids => all.iter().try_for_each(|subscription| say!("{}", subscription.name))?,
        Format::Table if all.is_empty() => say!("the config has no subscription")?,
        Format::Table => {
            let columns =
                ["name", "state", "target", "position", "lag", "dead letters", "last error", "at"];
            let mut rows = table(&columns);
            rows.add_rows(all.iter().map(|subscription| {
                let redriving = if subscription.is_redriving { ", sent again" } else { "" };
                vec![
                    subscription.name.clone(),
                    subscription.state.clone(),
                    subscription.target.clone(),
                    subscription.position.clone(),
                    subscription.lag_events.to_string(),
                    format!("{}{redriving}", subscription.dead_letters),
                    subscription.last_error.clone().unwrap_or_default(),
                    subscription.last_error_at.map(|at| look.time(at)).unwrap_or_default(),
                ]
            }));
            print_table_as(&rows, look)?;
        }
    }
    Ok(EXIT_DONE)
}

async fn dead_letters(args: DeadLetters) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let look = Look::new();
    let path = format!("/v1/subscriptions/{}/dead-letters?limit={LIMIT_MAX}", escape(&args.name));
    // A subscription keeps at most 10,000.
    let all: Vec<DeadLetterView> = client.get_all(&path).await?;
    match args.output {
        Format::Json => print_json(&all)?,
        Format::Jsonl => all.iter().try_for_each(print_json_line)?,
        Format::Ids => {
            let mut sagas: Vec<_> = all.iter().filter_map(|letter| letter.saga.as_ref()).collect();
            sagas.sort_unstable();
            sagas.dedup();
            sagas.into_iter().try_for_each(|saga| say!("{saga}"))?;
        }
        Format::Table if all.is_empty() => say!("{} has no dead letters", args.name)?,
        Format::Table => {
            let mut rows = table(&["saga", "version", "type", "at", "attempts", "error"]);
            rows.add_rows(all.iter().map(|letter| {
                vec![
                    letter.saga.clone().unwrap_or_default(),
                    letter.version.to_string(),
                    letter.kind.clone(),
                    look.time(letter.at),
                    letter.attempts.to_string(),
                    letter.error.clone(),
                ]
            }));
            print_table_as(&rows, look)?;
        }
    }
    Ok(EXIT_DONE)
}

async fn redrive(Redrive { name, change }: Redrive) -> anyhow::Result<u8> {
    let ChangeArgs { reason, output, host } = change;
    let client = Client::new(&host)?;
    let path = format!("/v1/subscriptions/{}/redrive", escape(&name));
    let before = client.get::<Page<SubscriptionView>>("/v1/subscriptions").await?.items;
    let was_disabled = |before: &SubscriptionView| before.name == name && before.state == DISABLED;
    let was_disabled = before.iter().any(was_disabled);
    let subscription: SubscriptionView = client.post(&path, &RedriveBody { reason }).await?;
    print_changed(output, &subscription, &subscription.name, || {
        let are = if subscription.dead_letters == 1 { "is" } else { "are" };
        let letters = counted(subscription.dead_letters, "dead letter");
        let words = format!("{letters} {are} sent again to {}", subscription.target);
        let words = on_one_line(&words).into_owned();
        if !was_disabled || subscription.state == DISABLED {
            return words;
        }
        let lag = counted(subscription.lag_events, "event");
        format!("{words}\n{name} was disabled and is active again, {lag} behind the log")
    })?;
    Ok(EXIT_DONE)
}
