//! `watch`: a saga's events as they come.

use clap::Args;
use futures::StreamExt as _;
use reqwest::Method;

use amends_api_types::{EventView, SagaView};
use amends_engine::Timestamp;

use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::{EXIT_BLOCKED, EXIT_WAIT_ENDED, PipeClosed, of_status};
use crate::commands::ids::{each_id, say_which};
use crate::commands::output::format::Format;
use crate::commands::output::{Look, complain, event_line, print_json, print_json_line, say};

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends watch \"$(amends start order-fulfillment --input \
                        order.json -o ids)\"\n  amends list --status running -o ids | amends watch \
                        -\n\nIt ends when the saga has ended or is blocked, and exits as start --wait \
                        does: 0 completed, 5 compensated, 6 blocked; of many sagas, with the worst.")]
pub(crate) struct Watch {
    /// The saga's id, eight or more digits of its beginning or end, or @last; - reads ids from
    /// standard input and follows one after another
    pub(crate) id: String,
    /// How to print the events
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// How often a broken connection is made again.
const TRIES_MAX: u32 = 5;

pub(crate) async fn run(args: Watch) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    each_id(&client, &args.id, async |id| {
        if args.output == Format::Table {
            say_which(&args.id, id)?;
        }
        watch(&client, &args, id).await
    })
    .await
}

/// What was printed so far.
#[derive(Default)]
struct Seen {
    /// Of the last event.
    version: u64,
    /// Of the first.
    start: Option<Timestamp>,
    /// Of the saga when it was asked last how it stands.
    asked: u64,
}

/// Follows a saga until it rests; a connection that breaks is made again.
async fn watch(client: &Client, args: &Watch, id: &str) -> anyhow::Result<u8> {
    let mut seen = Seen::default();
    for attempt in 0..TRIES_MAX {
        if attempt > 0 {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        match follow(client, args, id, &mut seen).await {
            Ok(true) => {
                let words =
                    format!("it needs an operator: `amends why {id}` says what would repair it");
                complain!("{}", Look::new().paragraph(&words));
                return Ok(EXIT_BLOCKED);
            }
            Ok(false) => {
                let saga: SagaView = client.get(&format!("/v1/sagas/{}", escape(id))).await?;
                let code = of_status(&saga.status);
                if code != EXIT_WAIT_ENDED {
                    return Ok(code);
                }
            }
            Err(error) if attempt + 1 == TRIES_MAX || seen.version == 0 => return Err(error),
            Err(error) if error.is::<PipeClosed>() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(EXIT_WAIT_ENDED)
}

/// Until the host ends the stream, the connection breaks, or all events of a saga that is blocked are
/// printed: that answers true.
async fn follow(client: &Client, args: &Watch, id: &str, seen: &mut Seen) -> anyhow::Result<bool> {
    let mut request = client.request(Method::GET, &format!("/v1/sagas/{}/watch", escape(id)));
    // Of a connection that broke, the question may have broken off with it.
    let mut blocked_at = None;
    if seen.version > 0 {
        request = request.header("last-event-id", seen.version);
        blocked_at = ask(client, id, seen).await?;
    }
    let mut body = client.send(request).await?.bytes_stream();
    let mut buffer = Vec::new();
    loop {
        if blocked_at.is_some_and(|last| seen.version >= last) {
            return Ok(true);
        }
        let Some(bytes) = body.next().await else { return Ok(false) };
        buffer.extend_from_slice(&bytes?);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some(data) = line.trim_end().strip_prefix("data:") else { continue };
            let mut event: EventView = serde_json::from_str(data.trim_start())?;
            seen.version = event.version;
            if seen.start.is_none() && args.output == Format::Table && Look::new().is_brief() {
                say!("from {}", event.at)?;
            }
            let start = *seen.start.get_or_insert(event.at);
            if args.id == "-" {
                event.saga = Some(id.to_owned());
            }
            print(&event, args, id, start)?;
            // One that is blocked while it is paused is so again when it is resumed.
            let may_block = matches!(event.kind.as_str(), "saga.blocked" | "operator.resumed");
            if may_block && event.version > seen.asked {
                blocked_at = ask(client, id, seen).await?;
            }
        }
    }
}

/// The last event of the saga, when it is blocked.
async fn ask(client: &Client, id: &str, seen: &mut Seen) -> anyhow::Result<Option<u64>> {
    let saga: SagaView = client.get(&format!("/v1/sagas/{}", escape(id))).await?;
    seen.asked = saga.version;
    Ok((of_status(&saga.status) == EXIT_BLOCKED).then_some(saga.version))
}

fn print(event: &EventView, args: &Watch, id: &str, start: Timestamp) -> anyhow::Result<()> {
    match args.output {
        Format::Json => print_json(event),
        Format::Jsonl => print_json_line(event),
        Format::Ids => say!("{id}"),
        // The terminal may have become wider or narrower since the event before.
        Format::Table => say!("{}", event_line(event, start, Look::new())),
    }
}
