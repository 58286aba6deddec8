//! An order to every saga that filters find: first they are found, then each has its turn.
//!
//! What they are by then, the host looks at: one that moved in between may refuse.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _, stream};
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior};

use amends_api_types::{SagaItem, SagaView};

use super::order::{Order, OrderArgs};
use crate::commands::exit::{EXIT_AUTH, EXIT_DONE, Failed, worse};
use crate::commands::output::format::Format;
use crate::commands::output::{
    Look, Progress, REFUSED_SHOWN, complain, counted, paint, print_json, print_json_line,
    print_sagas, say, took,
};

/// Requests at once: the host keeps up with many, and other clients shall not notice.
const REQUESTS_AT_ONCE: usize = 16;

pub(super) async fn run(order: &Order, args: &OrderArgs) -> anyhow::Result<u8> {
    let limit = args.limit.unwrap_or(u32::MAX);
    let (found, _) = args.filter.find(&order.client, limit, false).await?;
    if args.dry_run {
        return would(order, found, args).await;
    }
    let given = Cell::new(0);
    let mut sweep = Sweep::new(order.verb, args.output, found.len(), &given);
    let turns = turns(found, args.rate);
    let answers = turns.map(|saga| {
        let given = &given;
        async move {
            given.set(given.get() + 1);
            (order.give(&saga.id).await, saga.id)
        }
    });
    let mut answers = std::pin::pin!(answers.buffer_unordered(REQUESTS_AT_ONCE));
    let mut stopped = None;
    while let Some((answer, id)) = answers.next().await {
        // What would stop every other as well ends it, and what was done is told.
        if let Err(error) = sweep.take(id, answer) {
            stopped = Some(error);
            break;
        }
    }
    sweep.is_over = true;
    sweep.bar.clear();
    sweep.tell()?;
    stopped.map_or(Ok(sweep.exit), Err)
}

/// What a dry run says: the sagas that permit the order as they are now.
async fn would(order: &Order, found: Vec<SagaItem>, args: &OrderArgs) -> anyhow::Result<u8> {
    let (verb, format, all) = (order.verb, args.output, found.len());
    let turns = turns(found, args.rate);
    let asked = turns.map(|saga| async move { (order.give(&saga.id).await, saga) });
    let mut asked = std::pin::pin!(asked.buffered(REQUESTS_AT_ONCE));
    let (mut taken, mut refusals) = (Vec::new(), Vec::new());
    while let Some((answer, saga)) = asked.next().await {
        match answer {
            Ok(_) => taken.push(saga),
            Err(error) => {
                let reason = refusal(error)?.1;
                refusals.push((saga.id, reason));
            }
        }
    }
    if format == Format::Json {
        print_json(&json!({
            "verb": verb,
            "dry_run": true,
            "found": all,
            "refused": refusals.len(),
            "refusals": shown_refusals(&refusals),
            "sagas": taken,
        }))?;
        return Ok(EXIT_DONE);
    }
    if format != Format::Table || !taken.is_empty() {
        print_sagas(&taken, format, Look::new())?;
    }
    let count = match (taken.len(), &refusals[..]) {
        (count, []) => {
            format!("{verb} would act on {}; nothing is done yet", counted(count, "saga"))
        }
        (count, [(id, reason), ..]) => format!(
            "{verb} would act on {count} of {}; nothing is done yet. The others would refuse it, such as \
             {id}: {reason}",
            counted(all, "saga")
        ),
    };
    match format {
        // The reason has a line for what would be right.
        Format::Table => say!("{count}")?,
        // Standard output is for programs.
        Format::Json | Format::Jsonl | Format::Ids => complain!("{count}"),
    }
    Ok(EXIT_DONE)
}

/// The exit code and the words of a refusal.
///
/// # Errors
/// What is no refusal of this one saga, and would stop every other as well.
fn refusal(error: anyhow::Error) -> anyhow::Result<(u8, String)> {
    match error.downcast_ref::<Failed>() {
        Some(failed) if failed.exit != EXIT_AUTH => Ok((failed.exit, format!("{error:#}"))),
        Some(_) | None => Err(error),
    }
}

/// The first of the refusals, for programs.
fn shown_refusals(refusals: &[(String, String)]) -> Vec<serde_json::Value> {
    let shown = refusals.iter().take(REFUSED_SHOWN);
    shown.map(|(id, reason)| json!({"id": id, "reason": reason})).collect()
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

/// What came of it so far. An interrupt drops it before it is over; then it tells.
struct Sweep<'a> {
    verb: &'static str,
    format: Format,
    found: usize,
    /// Orders that were sent, answered or not.
    given: &'a Cell<u64>,
    statuses: BTreeMap<String, u64>,
    refused: u64,
    /// The first of them, with what the host said.
    refusals: Vec<(String, String)>,
    exit: u8,
    began: Instant,
    bar: Progress,
    is_over: bool,
}

impl<'a> Sweep<'a> {
    fn new(verb: &'static str, format: Format, found: usize, given: &'a Cell<u64>) -> Self {
        Self {
            verb,
            format,
            found,
            given,
            statuses: BTreeMap::new(),
            refused: 0,
            refusals: Vec::new(),
            exit: EXIT_DONE,
            began: Instant::now(),
            bar: Progress::new(found as u64, REQUESTS_AT_ONCE as u64),
            is_over: false,
        }
    }

    fn done(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// # Errors
    /// What is no refusal of this one saga.
    fn take(&mut self, id: String, answer: anyhow::Result<SagaView>) -> anyhow::Result<()> {
        let format = self.format;
        self.bar.inc();
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
        let (exit, reason) = refusal(error)?;
        self.exit = worse(self.exit, exit);
        self.refused += 1;
        if format == Format::Jsonl {
            print_json_line(&json!({"id": id, "refused": reason}))?;
        }
        if self.refusals.len() < REFUSED_SHOWN {
            self.refusals.push((id, reason));
        }
        Ok(())
    }

    fn tell_refusals(&self) {
        for (id, reason) in &self.refusals {
            complain!("{id}: {reason}");
        }
        let more = self.refused - self.refusals.len() as u64;
        if more > 0 {
            complain!("and {more} more refused");
        }
    }

    fn tell(&self) -> anyhow::Result<()> {
        let (verb, done, elapsed) = (self.verb, self.done(), self.began.elapsed());
        if self.format != Format::Json {
            self.tell_refusals();
        }
        match self.format {
            Format::Json => print_json(&json!({
                "verb": verb,
                "found": self.found,
                "done": done,
                "refused": self.refused,
                "statuses": self.statuses,
                "refusals": shown_refusals(&self.refusals),
                "seconds": elapsed.as_secs_f64(),
            })),
            Format::Ids | Format::Jsonl => Ok(()),
            Format::Table => {
                let found = counted(self.found, "saga");
                say!("{verb}: {done} of {found} done in {}", took(elapsed))?;
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

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.bar.clear();
        self.tell_refusals();
        let (done, refused, given) = (self.done(), self.refused, self.given.get());
        let unanswered = given.saturating_sub(done + refused);
        let left = (self.found as u64).saturating_sub(given);
        complain!(
            "interrupted: {}: {done} of {} done, {refused} refused, {unanswered} without an answer that \
             may be done or not, {left} not begun",
            self.verb,
            counted(self.found, "saga")
        );
        for (status, count) in &self.statuses {
            complain!("  {count:>6}  {status}");
        }
    }
}
