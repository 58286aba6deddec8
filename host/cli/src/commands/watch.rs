//! `watch`: a saga's events as they come.

use clap::Args;
use futures::StreamExt as _;
use reqwest::Method;

use amends_api::{EventView, SagaView};
use amends_engine::Timestamp;

use crate::commands::Format;
use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::{EXIT_WAIT_ENDED, PipeClosed, of_status};
use crate::commands::ids::each_id;
use crate::commands::output::{Look, event_line, print_json, print_json_line, say};

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends watch \"$(amends start order-fulfillment --input \
                        order.json -o ids)\"\n  amends list --status running -o ids | amends watch \
                        -\n\nExits as start --wait does: 0 completed, 5 compensated; of many \
                        sagas, with the worst.")]
pub struct Watch {
    /// The saga's id, eight or more digits of its beginning or end, or @last; - reads ids from
    /// standard input and follows one after another
    pub id: String,
    /// How to print the events
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

/// How often a broken connection is made again.
const TRIES_MAX: u32 = 5;

pub(crate) async fn run(args: Watch) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    each_id(&client, &args.id, async |id| {
        // One of many must say which it is about.
        if args.id == "-" && args.output == Format::Table {
            say!("{id}")?;
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
}

/// Follows a saga until it rests; a connection that breaks is made again.
async fn watch(client: &Client, args: &Watch, id: &str) -> anyhow::Result<u8> {
    let mut seen = Seen::default();
    for attempt in 0..TRIES_MAX {
        if attempt > 0 {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        match follow(client, args, id, &mut seen).await {
            Ok(()) => {
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

/// Until the host ends the stream, or the connection breaks.
async fn follow(client: &Client, args: &Watch, id: &str, seen: &mut Seen) -> anyhow::Result<()> {
    let mut request = client.request(Method::GET, &format!("/v1/sagas/{}/watch", escape(id)));
    if seen.version > 0 {
        request = request.header("last-event-id", seen.version);
    }
    let mut body = client.send(request).await?.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(bytes) = body.next().await {
        buffer.extend_from_slice(&bytes?);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some(data) = line.trim_end().strip_prefix("data:") else { continue };
            let mut event: EventView = serde_json::from_str(data.trim_start())?;
            seen.version = event.version;
            let start = *seen.start.get_or_insert(event.at);
            if args.id == "-" {
                event.saga = Some(id.to_owned());
            }
            print(&event, args, id, start)?;
        }
    }
    Ok(())
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
