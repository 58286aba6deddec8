//! `start`: one saga, or one for each line of a file.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use futures::{StreamExt as _, stream};
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, Response, StatusCode};
use serde_json::value::RawValue;

use amends_api::SagaView;

use crate::commands::Format;
use crate::commands::client::{Client, HostArgs, accepted, escape};
use crate::commands::exit::{
    EXIT_BLOCKED, EXIT_DONE, EXIT_ERROR, EXIT_WAIT_ENDED, Failed, of_status,
};
use crate::commands::input::read_input;
use crate::commands::output::{
    REFUSED_SHOWN, paint, print_json, print_json_line, print_saga, progress, say,
};

/// Requests of `--each` at once.
const REQUESTS_AT_ONCE: usize = 64;

/// How long a start that the host is too busy for is sent again.
const BUSY_MAX: Duration = Duration::from_mins(1);

/// One request waits this long; a longer wait is several. Proxies cut off what is silent for a
/// minute.
const WAIT_PER_REQUEST: Duration = Duration::from_secs(30);

/// Between two requests of a wait, however soon a host answers.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends start order-fulfillment --input order.json --wait\n  \
                        amends start order-fulfillment --input '{\"order_id\": \"7\"}' --key \
                        order-7\n  amends start order-fulfillment --input orders.ndjson --each \
                        --wait")]
pub struct Start {
    /// The definition
    pub definition: String,
    /// What the saga is given: JSON, a file with JSON, or - for standard input
    #[arg(long, default_value = "null", value_name = "JSON|FILE|-", allow_hyphen_values = true)]
    pub input: String,
    /// Start one saga for each line of the input (NDJSON)
    #[arg(long)]
    pub each: bool,
    /// Idempotency key: the same key and input start one saga; with --each, KEY:LINE
    #[arg(long)]
    pub key: Option<String>,
    /// For finding it, NAME=VALUE; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    pub tags: Vec<String>,
    /// Wait until the saga ends or is blocked, at most so long [default when given: 30s]
    #[arg(long, num_args = 0..=1, default_missing_value = "30s", value_name = "DURATION")]
    pub wait: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

/// What a start sends.
#[derive(serde::Serialize)]
struct Body<'a> {
    definition: &'a str,
    input: &'a RawValue,
    tags: &'a BTreeMap<String, String>,
}

pub(crate) async fn run(args: Start) -> anyhow::Result<u8> {
    let text = read_input("--input", &args.input)?;
    let wait = args.wait.as_deref().map(amends_api::parse_duration).transpose();
    let wait = wait.context("--wait")?;
    let mut tags = BTreeMap::new();
    for tag in &args.tags {
        let (name, value) = tag.split_once('=').context("--tag: write NAME=VALUE")?;
        tags.insert(name.to_owned(), value.to_owned());
    }
    let client = Client::new(&args.host)?;
    let starter = Starter { client, definition: &args.definition, tags, wait };
    if args.each {
        return each(&starter, &args, &text).await;
    }
    let input: &RawValue = serde_json::from_str(&text).context("--input is not JSON")?;
    let saga = starter.start(input, args.key.as_deref()).await?;
    print_saga(&saga, args.output)?;
    Ok(if args.wait.is_some() { of_status(&saga.status) } else { EXIT_DONE })
}

struct Starter<'a> {
    client: Client,
    definition: &'a str,
    tags: BTreeMap<String, String>,
    wait: Option<Duration>,
}

impl Starter<'_> {
    /// Starts one, and comes back when the host is too busy; with a wait, answers it as it rests
    /// or as it is when the wait ends.
    async fn start(&self, input: &RawValue, key: Option<&str>) -> anyhow::Result<SagaView> {
        let body = Body { definition: self.definition, input, tags: &self.tags };
        let came = Instant::now();
        loop {
            let sent = Instant::now();
            let path = format!("/v1/sagas{}", self.wait.map_or_else(String::new, wait_query));
            let mut request = self.client.request(Method::POST, &path).json(&body);
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            let response = request.send().await.map_err(|error| self.client.unreachable(&error))?;
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                let pause = retry_after(&response);
                if came.elapsed().saturating_add(pause) > BUSY_MAX {
                    let message = format!("the host is too busy, for {:?} by now", came.elapsed());
                    return Err(Failed { exit: EXIT_ERROR, message }.into());
                }
                tokio::time::sleep(pause).await;
                continue;
            }
            let saga: SagaView = accepted(response)
                .await?
                .json()
                .await
                .context("the host's answer cannot be read")?;
            return match self.wait {
                Some(wait) => self.rested(saga, sent, wait).await,
                None => Ok(saga),
            };
        }
    }

    /// Goes on waiting: a host answers before a long wait is over.
    async fn rested(
        &self,
        mut saga: SagaView,
        sent: Instant,
        wait: Duration,
    ) -> anyhow::Result<SagaView> {
        while of_status(&saga.status) == EXIT_WAIT_ENDED {
            let left = wait.saturating_sub(sent.elapsed());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(ASK_PAUSE.min(left)).await;
            let query = wait_query(wait.saturating_sub(sent.elapsed()));
            let id = escape(&saga.id);
            saga = self.client.get(&format!("/v1/sagas/{id}{query}")).await.with_context(|| {
                format!("saga {id} is started; it could not be waited for until it rests")
            })?;
        }
        Ok(saga)
    }
}

/// Asks a host to answer when the saga rests, in a request of a length that nothing on the way
/// cuts off.
fn wait_query(wait: Duration) -> String {
    format!("?wait={}ms", wait.min(WAIT_PER_REQUEST).as_millis())
}

/// How long a busy host wants to be left alone: seconds (RFC 9110, 10.2.3), or one when it does
/// not say, or gives a date, which our hosts do not.
fn retry_after(response: &Response) -> Duration {
    let text = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = text.and_then(|text| text.trim().parse().ok()).unwrap_or(1);
    Duration::from_secs(seconds).max(ASK_PAUSE)
}

async fn each(starter: &Starter<'_>, args: &Start, text: &str) -> anyhow::Result<u8> {
    let lines: Vec<(usize, &str)> =
        (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).collect();
    let bar = progress(lines.len() as u64);
    let began = Instant::now();
    let mut answers = stream::iter(lines.iter().map(|(number, line)| async move {
        let key = args.key.as_ref().map(|key| format!("{key}:{number}"));
        let input = serde_json::from_str::<&RawValue>(line).context("not JSON");
        let answer = match input {
            Ok(input) => starter.start(input, key.as_deref()).await,
            Err(error) => Err(error),
        };
        (*number, answer)
    }))
    .buffer_unordered(REQUESTS_AT_ONCE);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut refused = Vec::new();
    while let Some((number, answer)) = answers.next().await {
        bar.inc(1);
        match answer {
            Ok(saga) => {
                match args.output {
                    Format::Ids => say!("{}", saga.id)?,
                    Format::Jsonl => print_json_line(&saga)?,
                    Format::Table | Format::Json => {}
                }
                *counts.entry(saga.status).or_default() += 1;
            }
            Err(error) => refused.push((number, format!("{error:#}"))),
        }
    }
    bar.finish_and_clear();
    refused.sort_unstable();
    summary(args, lines.len(), &counts, &refused, began.elapsed())?;
    let count = |status: &str| counts.get(status).copied().unwrap_or(0);
    let ended = count("completed") + count("compensated") + count("abandoned");
    Ok(if !refused.is_empty() {
        EXIT_ERROR
    } else if count("blocked") > 0 {
        EXIT_BLOCKED
    } else if args.wait.is_some() && ended < lines.len() as u64 {
        EXIT_WAIT_ENDED
    } else {
        EXIT_DONE
    })
}

fn summary(
    args: &Start,
    lines: usize,
    counts: &BTreeMap<String, u64>,
    refused: &[(usize, String)],
    elapsed: Duration,
) -> anyhow::Result<()> {
    for (number, error) in refused.iter().take(REFUSED_SHOWN) {
        eprintln!("line {number}: {error}");
    }
    if refused.len() > REFUSED_SHOWN {
        eprintln!("and {} more lines", refused.len() - REFUSED_SHOWN);
    }
    match args.output {
        Format::Json => print_json(&serde_json::json!({
            "lines": lines,
            "started": lines - refused.len(),
            "refused": refused.len(),
            "statuses": counts,
            "seconds": elapsed.as_secs_f64(),
        })),
        Format::Ids | Format::Jsonl => Ok(()),
        Format::Table => {
            say!(
                "{} of {lines} sagas of {} started in {:.1} s",
                lines - refused.len(),
                args.definition,
                elapsed.as_secs_f64()
            )?;
            for (status, count) in counts {
                say!("  {count:>6}  {}", paint(status))?;
            }
            if !refused.is_empty() {
                say!("  {:>6}  refused", refused.len())?;
            }
            Ok(())
        }
    }
}
