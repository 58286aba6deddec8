//! `start --each`: one saga for each line of a file.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};

use amends_api_types::{SagaView, StepView};
use amends_engine::Timestamp;

use crate::commands::exit::{
    EXIT_BLOCKED, EXIT_DONE, EXIT_ERROR, EXIT_WAIT_ENDED, Failed, of_status,
};
use crate::commands::output::format::Format;
use crate::commands::output::{
    Progress, complain, counted, paint, print_json, print_json_line, say, took,
};
use crate::commands::start::args::Start;
use crate::commands::start::input;
use crate::commands::start::starter::{NotStarted, Starter};

/// Requests at once.
const REQUESTS_AT_ONCE: usize = 64;

/// How often the bar tells how it stands.
const REDRAW: Duration = Duration::from_secs(1);

/// Different errors that are printed, each once.
const ERRORS_SHOWN: usize = 10;

/// Lines that are named of those with the same error.
const LINES_SHOWN: usize = 5;

/// What became of a line.
enum Answer {
    /// A saga, as it is known last; with the error that ended the wait for it.
    Started(Box<SagaView>, Option<anyhow::Error>),
    /// As it is known last: then the host was gone.
    Lost(Box<SagaView>, anyhow::Error),
    /// No saga, or none that is known.
    NotStarted(NotStarted),
}

/// Starts a saga for each line.
///
/// # Errors
/// The host cannot be reached at all, it does not know the definition, nobody reads the output.
pub(super) async fn run(starter: &Starter<'_>, args: &Start, text: &str) -> anyhow::Result<u8> {
    let lines: Vec<(usize, &str)> =
        (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).collect();
    // Said once, and before anything is sent.
    starter.check_definition().await?;
    let mut tally = Tally::new(lines.len(), args.key.is_some());
    let told = start_all(starter, args, &lines, &mut tally).await;
    tally.is_over = true;
    tally.bar.clear();
    told?;
    summary(args, &tally)?;
    Ok(tally.exit(args.wait.is_some()))
}

async fn start_all(
    starter: &Starter<'_>,
    args: &Start,
    lines: &[(usize, &str)],
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let next = &Cell::new(None);
    let mut answers = stream::iter(lines.iter().map(|(number, line)| async move {
        let key = args.key.as_ref().map(|key| format!("{key}:{number}"));
        (*number, start_one(starter, line, key.as_deref(), next).await)
    }))
    .buffer_unordered(REQUESTS_AT_ONCE);
    let mut redraw = tokio::time::interval(REDRAW);
    loop {
        let answer = tokio::select! {
            answer = answers.next() => answer,
            _ = redraw.tick() => {
                if let Some(at) = next.take() {
                    tally.bar.goes_on_at(at);
                }
                tally.bar.draw();
                continue;
            }
        };
        let Some((number, answer)) = answer else { break };
        tally.add(number, &answer);
        if let Answer::Started(saga, _) | Answer::Lost(saga, _) = &answer {
            match args.output {
                Format::Ids => say!("{}", saga.id)?,
                Format::Jsonl => print_json_line(saga)?,
                Format::Table | Format::Json => {}
            }
        }
    }
    Ok(())
}

/// `next` is told when a saga that is waited for goes on.
async fn start_one(
    starter: &Starter<'_>,
    line: &str,
    key: Option<&str>,
    next: &Cell<Option<Timestamp>>,
) -> Answer {
    let input = match input::parse_line(line) {
        Ok(input) => input,
        Err(error) => return Answer::NotStarted(NotStarted::Refused(error)),
    };
    match starter.start(input, key).await {
        Ok((saga, sent)) => {
            let saw = |saga: &SagaView| {
                let soonest = [next.get(), attempt_at(saga)].into_iter().flatten().min();
                next.set(soonest);
            };
            match starter.rested(saga.clone(), sent, saw).await {
                Ok(saga) => Answer::Started(Box::new(saga), None),
                Err(error) => {
                    // Without the saga's id, so that the same error is the same text.
                    let told = anyhow::anyhow!("started, not waited for: {}", error.root_cause());
                    if error.downcast_ref::<Failed>().is_some() {
                        Answer::Started(Box::new(saga), Some(told))
                    } else {
                        Answer::Lost(Box::new(saga), told)
                    }
                }
            }
        }
        Err(error) => Answer::NotStarted(error),
    }
}

/// When the next call of a saga is due that waits for its turn.
fn attempt_at(saga: &SagaView) -> Option<Timestamp> {
    let waits = |step: &&StepView| {
        matches!(step.status.as_str(), "backing_off" | "undo_backing_off" | "breaker_open")
    };
    saga.steps.iter().filter(waits).filter_map(|step| step.next_at).min()
}

/// What became of all lines so far. An interrupt drops it before it is over; then it tells.
struct Tally {
    lines: usize,
    started: usize,
    refused: usize,
    not_sent: usize,
    no_answer: usize,
    /// Started, and the wait for them broken off: how they rest is not known.
    lost: usize,
    /// Started, by their last known status.
    statuses: BTreeMap<String, usize>,
    /// The lines with each error.
    errors: BTreeMap<String, Vec<usize>>,
    has_key: bool,
    began: Instant,
    bar: Progress,
    is_over: bool,
}

impl Tally {
    fn new(lines: usize, has_key: bool) -> Self {
        Self {
            lines,
            started: 0,
            refused: 0,
            not_sent: 0,
            no_answer: 0,
            lost: 0,
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            has_key,
            began: Instant::now(),
            bar: Progress::new(lines as u64, REQUESTS_AT_ONCE as u64),
            is_over: false,
        }
    }

    fn add(&mut self, line: usize, answer: &Answer) {
        self.bar.inc();
        let error = match answer {
            Answer::Started(saga, error) => {
                self.started += 1;
                *self.statuses.entry(saga.status.clone()).or_default() += 1;
                error.as_ref()
            }
            Answer::Lost(saga, error) => {
                self.started += 1;
                self.lost += 1;
                *self.statuses.entry(saga.status.clone()).or_default() += 1;
                Some(error)
            }
            Answer::NotStarted(NotStarted::Refused(error)) => {
                self.refused += 1;
                Some(error)
            }
            Answer::NotStarted(NotStarted::NotSent(error)) => {
                self.not_sent += 1;
                Some(error)
            }
            Answer::NotStarted(NotStarted::NoAnswer(error)) => {
                self.no_answer += 1;
                Some(error)
            }
        };
        if let Some(error) = error {
            self.errors.entry(format!("{error:#}")).or_default().push(line);
        }
    }

    fn answered(&self) -> usize {
        self.started + self.refused + self.not_sent + self.no_answer
    }

    /// Started, and not at rest when last seen.
    fn moving(&self) -> usize {
        let moving = |status: &str| of_status(status) == EXIT_WAIT_ENDED;
        self.statuses.iter().filter(|(status, _)| moving(status)).map(|(_, count)| count).sum()
    }

    fn exit(&self, waits: bool) -> u8 {
        if !self.errors.is_empty() {
            EXIT_ERROR
        } else if self.statuses.contains_key("blocked") {
            EXIT_BLOCKED
        } else if waits && self.moving() > 0 {
            EXIT_WAIT_ENDED
        } else {
            EXIT_DONE
        }
    }

    /// How to go on with lines that may or may not have been started.
    fn go_on(&self) -> &'static str {
        if self.has_key {
            "run it again with the same --key"
        } else {
            "to run it again would start again what was started; with --key it would not"
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.bar.clear();
        let left = self.lines - self.answered();
        let in_flight = left.min(REQUESTS_AT_ONCE);
        complain!(
            "interrupted: {} of {} started, up to {in_flight} more may be; {}",
            self.started,
            counted(self.lines, "saga"),
            self.go_on()
        );
    }
}

fn summary(args: &Start, tally: &Tally) -> anyhow::Result<()> {
    tell_errors(&tally.errors);
    let elapsed = tally.began.elapsed();
    match args.output {
        Format::Json => print_json(&serde_json::json!({
            "lines": tally.lines,
            "started": tally.started,
            "refused": tally.refused,
            "not_sent": tally.not_sent,
            "no_answer": tally.no_answer,
            "statuses": tally.statuses,
            "seconds": elapsed.as_secs_f64(),
        }))?,
        Format::Ids | Format::Jsonl => {}
        Format::Table => say_counts(args, tally, elapsed)?,
    }
    if tally.no_answer > 0 && args.output != Format::Table {
        complain!("{} had no answer: {}", tally.no_answer, unknown(tally));
    }
    if tally.lost > 0 {
        complain!(
            "the host went away during the wait for {}, which it started; they go on when it is back",
            counted(tally.lost, "saga")
        );
    }
    let waited = tally.moving().saturating_sub(tally.lost);
    if let Some(wait) = &args.wait
        && waited > 0
    {
        complain!(
            "the wait of {wait} ended first for {}; `amends list --status running,waiting -o ids | \
             amends why -` says what they wait for",
            counted(waited, "saga")
        );
    }
    Ok(())
}

fn say_counts(args: &Start, tally: &Tally, elapsed: Duration) -> anyhow::Result<()> {
    say!(
        "{} of {} of {} started in {}",
        tally.started,
        counted(tally.lines, "saga"),
        args.definition,
        took(elapsed)
    )?;
    for (status, count) in &tally.statuses {
        say!("  {count:>6}  {}", paint(status))?;
    }
    if tally.refused > 0 {
        say!("  {:>6}  refused", tally.refused)?;
    }
    if tally.not_sent > 0 {
        say!("  {:>6}  not sent: the host could not be reached", tally.not_sent)?;
    }
    if tally.no_answer > 0 {
        say!("  {:>6}  no answer: {}", tally.no_answer, unknown(tally))?;
    }
    Ok(())
}

fn unknown(tally: &Tally) -> String {
    format!("whether they were started is not known; {}", tally.go_on())
}

/// Each error once, that of the first line first.
fn tell_errors(errors: &BTreeMap<String, Vec<usize>>) {
    let mut errors: Vec<(Vec<usize>, &str)> = errors
        .iter()
        .map(|(error, lines)| {
            let mut lines = lines.clone();
            lines.sort_unstable();
            (lines, error.as_str())
        })
        .collect();
    errors.sort_unstable();
    for (lines, error) in errors.iter().take(ERRORS_SHOWN) {
        complain!("{}: {error}", name_lines(lines));
    }
    if errors.len() > ERRORS_SHOWN {
        let lines: usize = errors[ERRORS_SHOWN..].iter().map(|(lines, _)| lines.len()).sum();
        complain!("and {lines} more lines with other errors");
    }
}

/// `line 7`, `lines 7, 8`, `1000 lines (1, 2, 3, 4, 5, …)`.
fn name_lines(lines: &[usize]) -> String {
    let named: Vec<_> = lines.iter().take(LINES_SHOWN).map(usize::to_string).collect();
    let named = named.join(", ");
    match lines.len() {
        1 => format!("line {named}"),
        count if count > LINES_SHOWN => format!("{count} lines ({named}, …)"),
        _ => format!("lines {named}"),
    }
}

#[cfg(test)]
mod tests {
    use super::name_lines;

    #[test]
    fn lines_are_named_and_many_are_counted() {
        assert_eq!(name_lines(&[7]), "line 7");
        assert_eq!(name_lines(&[7, 8]), "lines 7, 8");
        assert_eq!(name_lines(&[1, 2, 3, 4, 5, 6, 9]), "7 lines (1, 2, 3, 4, 5, …)");
    }
}
