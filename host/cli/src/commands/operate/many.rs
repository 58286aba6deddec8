//! An order to the sagas whose ids stand on standard input: a line for each, and what came of all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use super::Order;
use crate::commands::exit::EXIT_DONE;
use crate::commands::ids::each_id;
use crate::commands::output::{Look, paint, print_saga_line, say, took};

/// What came of it so far.
#[derive(Default)]
struct Tally {
    asked: u64,
    statuses: BTreeMap<String, u64>,
}

pub(super) async fn run(order: &Order) -> anyhow::Result<u8> {
    let (began, look) = (Instant::now(), Look::new(false));
    let tally = RefCell::new(Tally::default());
    let code = each_id(&order.client, "-", async |id| {
        tally.borrow_mut().asked += 1;
        let saga = order.give(id).await?;
        *tally.borrow_mut().statuses.entry(saga.status.clone()).or_default() += 1;
        print_saga_line(&saga, look)?;
        Ok(EXIT_DONE)
    })
    .await;
    // Also when it was stopped: what was done is done.
    let Tally { asked, statuses } = tally.into_inner();
    let done: u64 = statuses.values().sum();
    say!("{}: {done} of {asked} sagas done in {}", order.verb, took(began.elapsed()))?;
    for (status, count) in &statuses {
        say!("  {count:>6}  {}", paint(status))?;
    }
    if asked > done {
        say!("  {:>6}  refused", asked - done)?;
    }
    code
}
