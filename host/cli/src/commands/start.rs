//! `start`: one saga, or one for each line of a file.

mod args;
mod each;
mod input;
mod starter;

use std::collections::BTreeMap;

use anyhow::Context as _;

use amends_api_types::SagaView;
use amends_engine::Timestamp;

use crate::commands::client::Client;
use crate::commands::exit::{EXIT_DONE, EXIT_WAIT_ENDED, of_status};
use crate::commands::filter::{split_tag, time_ahead};
use crate::commands::input::read_input;
use crate::commands::output::{Look, complain, print_saga};

pub(crate) use args::Start;
use starter::Starter;

pub(crate) async fn run(args: Start) -> anyhow::Result<u8> {
    let text = read_input("--input", &args.input)?;
    let wait = args.wait.as_deref().map(amends_api_types::parse_duration).transpose();
    let wait = wait.context("--wait")?;
    let start_at = args.at.as_deref().map(time_ahead).transpose();
    let start_at = start_at.map_err(|help| anyhow::anyhow!("--at: {help}"))?;
    let mut tags = BTreeMap::new();
    for tag in &args.tags {
        let (name, value) = split_tag(tag).map_err(|help| anyhow::anyhow!("--tag: {help}"))?;
        tags.insert(name.to_owned(), value.to_owned());
    }
    let client = Client::new(&args.host)?;
    let starter = Starter { client, definition: &args.definition, tags, start_at, wait };
    if args.each {
        return each::run(&starter, &args, &text).await;
    }
    let input = input::parse(&text, &args.input)?;
    let saga = match starter.start(input, args.key.as_deref()).await {
        Ok((saga, sent)) => starter.rested(saga, sent, |_| ()).await?,
        Err(error) => return Err(starter.explain(error).await),
    };
    print_saga(&saga, args.output, Look::new())?;
    if args.wait.is_none() {
        return Ok(EXIT_DONE);
    }
    let code = of_status(&saga.status);
    if code == EXIT_WAIT_ENDED {
        tell_wait_ended(&saga, args.wait.as_deref().unwrap_or_default());
    }
    Ok(code)
}

/// The saga is no failure, so it is not told as one.
fn tell_wait_ended(saga: &SagaView, wait: &str) {
    let SagaView { id, status, next_at, deadline_at, .. } = saga;
    // The deadline is no step of the saga, and what is due already waits for something else.
    let is_to_come = |next: &Timestamp| *next > amends_runtime::now();
    let next = next_at.filter(|next| Some(*next) != *deadline_at && is_to_come(next));
    let next = next.map_or_else(String::new, |at| format!(", something is next due at {at}"));
    complain!(
        "the wait of {wait} ended first: the saga is {status}{next}; `amends why {id}` says what \
         it waits for, `amends watch {id}` follows it"
    );
}
