//! `store import`: puts a saga that ended on another host into the archive of this one.

use anyhow::Context as _;
use clap::Args;
use reqwest::Method;

use amends_api_types::ImportedView;

use super::store_format::StoreFormat;
use crate::commands::bundle::Bundle;
use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::{counted, print_json_line, say};

/// The arguments of `store import`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  amends store import saga.ndjson --reason \"history of the old host\"\n  \
                  amends --host http://old:7070 store export ID | amends store import - --reason move\n\n\
                  The saga has to have ended: a saga runs on one host. It is read as any archived \
                  saga is:\nget, history, why, list --archived. It is not brought back, because its \
                  undos belong to the host\nthat ran it. To import it again changes nothing."
)]
pub(crate) struct Import {
    /// The bundles that `store export` wrote; - reads one from standard input
    #[arg(required = true, value_name = "BUNDLE")]
    pub bundles: Vec<String>,
    /// Why; the note at the end of the saga's history keeps it, with who asked
    #[arg(long)]
    pub reason: String,
    /// How to print what was imported
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: StoreFormat,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

pub(super) async fn import(args: Import) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    for bundle in &args.bundles {
        let name = if bundle == "-" { "standard input" } else { bundle.as_str() };
        let view = import_one(&client, bundle, &args.reason).await;
        let view = view.with_context(|| format!("{name} is not imported"))?;
        let ImportedView { id, status, events, created } = &view;
        match args.output {
            StoreFormat::Json => print_json_line(&view)?,
            StoreFormat::Table if *created => {
                let events = counted(*events, "event");
                say!("saga {id} ({status}) is in the archive, with {events}")?;
            }
            StoreFormat::Table => say!("saga {id} ({status}) is here already")?,
        }
    }
    Ok(EXIT_DONE)
}

async fn import_one(client: &Client, bundle: &str, reason: &str) -> anyhow::Result<ImportedView> {
    // Components stay here: what may serve on a host is decided by a deploy.
    let mut bundle = Bundle::open(bundle)?;
    let mut body = bundle.head_line.clone();
    body.push('\n');
    let mut count = 0;
    while let Some((_, line)) = bundle.next_event()? {
        body.push_str(&line);
        body.push('\n');
        count += 1;
    }
    bundle.check_end(count)?;
    let path = format!("/v1/store/import?reason={}", escape(reason));
    let request = client.request(Method::POST, &path);
    let request = request.header("content-type", "application/x-ndjson").body(body);
    Ok(client.send_as_user(request).await?.json().await?)
}
