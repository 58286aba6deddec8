//! An order to every saga that filters find: first they are found, then each has its turn.
//!
//! What they are by then, the host looks at: one that moved in between may refuse.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _, stream};
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior};

use amends_api::{SagaItem, SagaView};

use super::{Order, OrderArgs};
use crate::commands::Format;
use crate::commands::exit::{EXIT_AUTH, EXIT_DONE, Failed, worse};
use crate::commands::output::{
    REFUSED_SHOWN, paint, print_json, print_json_line, print_sagas, progress, say,
};

/// Requests at once: the host keeps up with many, and other clients shall not notice.
const REQUESTS_AT_ONCE: usize = 16;

pub(super) async fn run(order: &Order, args: &OrderArgs) -> anyhow::Result<u8> {
    let found = args.filter.find(&order.client, args.limit.unwrap_or(u32::MAX)).await?;
    if args.dry_run {
        return would(order.verb, &found, args.output);
    }
    let mut sweep = Sweep { found: found.len(), ..Sweep::default() };
    let bar = progress(found.len() as u64);
    let began = Instant::now();
    let turns = turns(found, args.rate);
    let answers = turns.map(|saga| async move { (order.give(&saga.id).await, saga.id) });
    let mut answers = std::pin::pin!(answers.buffer_unordered(REQUESTS_AT_ONCE));
    let mut stopped = None;
    while let Some((answer, id)) = answers.next().await {
        // What would stop every other as well ends it, and what was done is told.
        if let Err(error) = sweep.take(id, answer, args.output) {
            stopped = Some(error);
            break;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    sweep.tell(order.verb, args.output, began.elapsed())?;
    stopped.map_or(Ok(sweep.exit), Err)
}

/// What a dry run says.
fn would(verb: &str, found: &[SagaItem], format: Format) -> anyhow::Result<u8> {
    if format == Format::Json {
        let all = json!({"verb": verb, "dry_run": true, "found": found.len(), "sagas": found});
        print_json(&all)?;
        return Ok(EXIT_DONE);
    }
    if format != Format::Table || !found.is_empty() {
        print_sagas(found, format)?;
    }
    let count = format!("{verb} would act on {} sagas; nothing is done yet", found.len());
    match format {
        Format::Table => say!("{count}")?,
        // Standard output is for programs.
        Format::Json | Format::Jsonl | Format::Ids => eprintln!("{count}"),
    }
    Ok(EXIT_DONE)
}

/// The sagas, each when it is its turn. A late one does not hasten those after it.
fn turns(found: Vec<SagaItem>, rate: Option<f64>) -> impl Stream<Item = SagaItem> {
    let pace = rate.map(|rate| {
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace
    });
    stream::unfold((found.into_iter(), pace), |(mut left, mut pace)| async move {
        let saga = left.next()?;
        if let Some(pace) = &mut pace {
            Interval::tick(pace).await;
        }
        Some((saga, (left, pace)))
    })
}

/// What came of it so far.
#[derive(Default)]
struct Sweep {
    found: usize,
    statuses: BTreeMap<String, u64>,
    refused: u64,
    /// The first of them, with what the host said.
    refusals: Vec<(String, String)>,
    exit: u8,
}

impl Sweep {
    /// # Errors
    /// What is no refusal of this one saga.
    fn take(
        &mut self,
        id: String,
        answer: anyhow::Result<SagaView>,
        format: Format,
    ) -> anyhow::Result<()> {
        let error = match answer {
            Ok(saga) => {
                match format {
                    Format::Ids => say!("{}", saga.id)?,
                    Format::Jsonl => print_json_line(&saga)?,
                    Format::Table | Format::Json => {}
                }
                *self.statuses.entry(saga.status).or_default() += 1;
                return Ok(());
            }
            Err(error) => error,
        };
        let exit = match error.downcast_ref::<Failed>() {
            Some(failed) if failed.exit != EXIT_AUTH => failed.exit,
            Some(_) | None => return Err(error),
        };
        self.exit = worse(self.exit, exit);
        self.refused += 1;
        let reason = format!("{error:#}");
        if format == Format::Jsonl {
            print_json_line(&json!({"id": id, "refused": reason}))?;
        }
        if self.refusals.len() < REFUSED_SHOWN {
            self.refusals.push((id, reason));
        }
        Ok(())
    }

    fn tell(&self, verb: &str, format: Format, elapsed: Duration) -> anyhow::Result<()> {
        let done: u64 = self.statuses.values().sum();
        if format != Format::Json {
            for (id, reason) in &self.refusals {
                eprintln!("{id}: {reason}");
            }
            let more = self.refused - self.refusals.len() as u64;
            if more > 0 {
                eprintln!("and {more} more refused");
            }
        }
        match format {
            Format::Json => {
                let refusal = |(id, reason): &(String, String)| json!({"id": id, "reason": reason});
                print_json(&json!({
                    "verb": verb,
                    "found": self.found,
                    "done": done,
                    "refused": self.refused,
                    "statuses": self.statuses,
                    "refusals": self.refusals.iter().map(refusal).collect::<Vec<_>>(),
                    "seconds": elapsed.as_secs_f64(),
                }))
            }
            Format::Ids | Format::Jsonl => Ok(()),
            Format::Table => {
                let seconds = elapsed.as_secs_f64();
                say!("{verb}: {done} of {} sagas done in {seconds:.1} s", self.found)?;
                for (status, count) in &self.statuses {
                    say!("  {count:>6}  {}", paint(status))?;
                }
                if self.refused > 0 {
                    say!("  {:>6}  refused", self.refused)?;
                }
                Ok(())
            }
        }
    }
}
