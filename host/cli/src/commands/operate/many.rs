//! An order to the sagas whose ids stand on standard input: a line for each, and what came of all.

use std::collections::BTreeMap;
use std::time::Instant;

use amends_api_types::SagaView;

use super::order::Order;
use crate::commands::exit::{EXIT_DONE, Failed};
use crate::commands::ids::each_line;
use crate::commands::output::{Look, complain, counted, paint, print_saga_line, say, took};

pub(super) async fn run(order: &Order) -> anyhow::Result<u8> {
    let look = Look::new();
    let mut tally = Tally::new(order.verb);
    let code = each_line(&order.client, async |id: anyhow::Result<String>| {
        tally.asked += 1;
        let answer = match id {
            Ok(id) => order.give(&id).await,
            Err(error) => Err(error),
        };
        tally.add(&answer);
        print_saga_line(&answer?, look)?;
        Ok(EXIT_DONE)
    })
    .await;
    tally.is_over = true;
    // Also when it was stopped: what was done is done.
    tally.tell()?;
    code
}

/// What came of it so far. An interrupt drops it before it is over; then it tells.
struct Tally {
    verb: &'static str,
    /// The lines that were read, whether they name a saga or not.
    asked: u64,
    statuses: BTreeMap<String, u64>,
    refused: u64,
    began: Instant,
    is_over: bool,
}

impl Tally {
    fn new(verb: &'static str) -> Self {
        Self {
            verb,
            asked: 0,
            statuses: BTreeMap::new(),
            refused: 0,
            began: Instant::now(),
            is_over: false,
        }
    }

    fn add(&mut self, answer: &anyhow::Result<SagaView>) {
        match answer {
            Ok(saga) => *self.statuses.entry(saga.status.clone()).or_default() += 1,
            Err(error) if error.is::<Failed>() => self.refused += 1,
            // It stays one without an answer.
            Err(_) => {}
        }
    }

    fn done(&self) -> u64 {
        self.statuses.values().sum()
    }

    fn unanswered(&self) -> u64 {
        self.asked - self.done() - self.refused
    }

    fn tell(&self) -> anyhow::Result<()> {
        let Self { verb, asked, began, .. } = self;
        let asked = counted(*asked, "saga");
        say!("{verb}: {} of {asked} done in {}", self.done(), took(began.elapsed()))?;
        for (status, count) in &self.statuses {
            say!("  {count:>6}  {}", paint(status))?;
        }
        for (word, count) in [("refused", self.refused), ("no answer", self.unanswered())] {
            if count > 0 {
                say!("  {count:>6}  {word}")?;
            }
        }
        Ok(())
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        complain!(
            "interrupted: {}: {} of {} done, {} refused, {} without an answer that may be done or \
             not",
            self.verb,
            self.done(),
            counted(self.asked, "saga"),
            self.refused,
            self.unanswered()
        );
        for (status, count) in &self.statuses {
            complain!("  {count:>6}  {status}");
        }
    }
}
