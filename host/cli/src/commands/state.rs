//! `state`: what a plugin keeps, looked at and changed by an operator.
//!
//! What a plugin may keep, the host decides. Only a file that is imported is checked here, as a
//! whole and before any of it is sent.

mod csv;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use amends_api_types::{LIMIT_MAX, STATE_IMPORT_BYTES_MAX, StateImported, StateItem};
use amends_engine::{STATE_KEYS_MAX, on_one_line};

use crate::commands::client::{Client, HostArgs, Page, escape};
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::format::Format;
use crate::commands::output::{print_json, print_json_line, print_table, say, table};

/// Keys of a table, unless something else is said.
const LIST_LIMIT: u32 = 100;

/// Bytes of the lines of one request: well below what the host takes.
const REQUEST_BYTES_MAX: usize = STATE_IMPORT_BYTES_MAX / 2;

/// The verbs about what a plugin keeps.
#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Print the value of a key
    #[command(after_help = "Example:\n  amends state get inventory stock/north/metformin")]
    Get(Get),
    /// Set the value of a key, or remove the key
    Set(Set),
    /// List keys and their values, in the order of the keys
    #[command(after_help = "Examples:\n  amends state list inventory stock/north/\n  amends \
                            state list inventory -o jsonl > stock.ndjson")]
    List(List),
    /// Set the values of many keys from a CSV file with a header
    Import(Import),
}

/// The arguments of `state get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The plugin
    pub(crate) plugin: String,
    /// The key
    pub(crate) key: String,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// The arguments of `state set`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  amends state set inventory stock/north/metformin 40\n  amends \
                        state set inventory note \"counted by hand\" --text\n  amends state set \
                        inventory stock/north/aspirin --remove"
)]
pub(crate) struct Set {
    /// The plugin
    pub(crate) plugin: String,
    /// The key
    pub(crate) key: String,
    /// The value: JSON
    #[arg(
        required_unless_present = "remove",
        conflicts_with = "remove",
        allow_negative_numbers = true
    )]
    pub(crate) value: Option<String>,
    /// Take the value as a plain text, not as JSON
    #[arg(long, conflicts_with = "remove")]
    pub(crate) text: bool,
    /// Remove the key
    #[arg(long)]
    pub(crate) remove: bool,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// The arguments of `state list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// The plugin
    pub(crate) plugin: String,
    /// List only keys that begin with this text [default: all]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// At most so many, 0 for all; when it is not given, 100 in a table and else all
    #[arg(long)]
    pub(crate) limit: Option<u32>,
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// The arguments of `state import`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends state import inventory stock.csv --key \
                        'stock/{warehouse}/{sku}' --value quantity\n  amends state import \
                        prices prices.csv --key '{sku}' --only-new\n\nA cell that is a JSON \
                        number, true, false or null is that; everything else is text.\nThe whole \
                        file is checked before anything is written.")]
pub(crate) struct Import {
    /// The plugin
    pub(crate) plugin: String,
    /// A CSV file whose first line names the columns; - reads standard input
    pub(crate) file: PathBuf,
    /// The key of a row, with columns in braces
    #[arg(long, default_value = "{key}", value_name = "TEMPLATE")]
    pub(crate) key: String,
    /// The column with the value [default: `value` if there is one, else an object of all columns
    /// that are not in the key]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) value: Option<String>,
    /// Leave keys that exist as they are
    #[arg(long)]
    pub(crate) only_new: bool,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn run(command: State) -> anyhow::Result<u8> {
    match command {
        State::Get(args) => get(args).await,
        State::Set(args) => set(args).await,
        State::List(args) => list(args).await,
        State::Import(args) => import(args).await,
    }
}

async fn get(args: Get) -> anyhow::Result<u8> {
    let item: StateItem = Client::new(&args.host)?.get(&path(&args.plugin, &args.key)?).await?;
    say!("{}", item.value.get())?;
    Ok(EXIT_DONE)
}

async fn set(args: Set) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let path = path(&args.plugin, &args.key)?;
    let request = match &args.value {
        Some(value) => client.request(Method::PUT, &path).json(&parse(value, args.text)?),
        None => client.request(Method::DELETE, &path),
    };
    client.send_as_user(request).await?;
    let done = if args.remove { "removed" } else { "set" };
    say!("{} of {} is {done}", on_one_line(&args.key), args.plugin)?;
    Ok(EXIT_DONE)
}

async fn list(args: List) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let limit = match (args.limit, args.output) {
        (None, Format::Table) => LIST_LIMIT,
        (None | Some(0), _) => u32::MAX,
        (Some(limit), _) => limit,
    };
    let mut items: Vec<StateItem> = Vec::new();
    let mut cursor = String::new();
    let mut is_more = true;
    let mut found = 0;
    while is_more && found < limit as usize {
        let left = limit.saturating_sub(u32::try_from(found).unwrap_or(u32::MAX));
        let path = format!(
            "/v1/plugins/{}/state?prefix={}&limit={}{cursor}",
            escape(&args.plugin),
            escape(&args.prefix),
            left.min(LIMIT_MAX)
        );
        let page: Page<StateItem> = client.get(&path).await?;
        found += page.items.len();
        match args.output {
            // Page by page: there may be very many.
            Format::Jsonl => page.items.iter().try_for_each(print_json_line)?,
            Format::Ids => {
                page.items.iter().try_for_each(|item| say!("{}", on_one_line(&item.key)))?;
            }
            Format::Json | Format::Table => items.extend(page.items),
        }
        is_more = page.next_cursor.is_some();
        cursor =
            page.next_cursor.map_or_else(String::new, |next| format!("&cursor={}", escape(&next)));
    }
    if is_more {
        eprintln!("the first {limit}, and there are more: --limit 0 lists all");
    }
    match args.output {
        Format::Json => print_json(&items)?,
        Format::Jsonl | Format::Ids => {}
        Format::Table => {
            let mut rows = table(&["key", "value"]);
            rows.add_rows(
                items.iter().map(|item| vec![item.key.clone(), item.value.get().to_owned()]),
            );
            print_table(&rows)?;
        }
    }
    Ok(EXIT_DONE)
}

async fn import(args: Import) -> anyhow::Result<u8> {
    let (source, bytes) = read(&args.file)?;
    let rows = csv::rows(&source, &bytes, &args.key, args.value.as_deref())?;
    let client = Client::new(&args.host)?;
    let path = format!(
        "/v1/plugins/{}/state:import?only_new={}&source={}",
        escape(&args.plugin),
        args.only_new,
        escape(&source)
    );
    let (mut sent, mut written) = (0, 0);
    for (keys, lines) in requests(&rows)? {
        let request = client.request(Method::POST, &path);
        let request = request.header("content-type", "application/x-ndjson").body(lines);
        let answer = client.send_as_user(request).await.map_err(|error| match sent {
            0 => error,
            _ => error.context(format!("{source}: after {sent} of {} keys", rows.len())),
        })?;
        let imported: StateImported =
            answer.json().await.context("the host's answer cannot be read")?;
        written += imported.written;
        sent += keys;
    }
    let left = match rows.len() - written {
        left if args.only_new => format!(", {left} left as they are"),
        _ => String::new(),
    };
    let keys = if written == 1 { "key" } else { "keys" };
    say!("{written} {keys} of {} written{left}", args.plugin)?;
    Ok(EXIT_DONE)
}

/// The requests' lines, and how many keys are in each.
fn requests(rows: &[StateItem]) -> anyhow::Result<Vec<(usize, String)>> {
    let mut requests: Vec<(usize, String)> = Vec::new();
    for row in rows {
        let line = serde_json::to_string(row)? + "\n";
        match requests.last_mut() {
            Some((keys, lines))
                if *keys < STATE_KEYS_MAX && lines.len() + line.len() <= REQUEST_BYTES_MAX =>
            {
                *keys += 1;
                lines.push_str(&line);
            }
            Some(_) | None => requests.push((1, line)),
        }
    }
    Ok(requests)
}

/// What a file is called, and what is in it.
fn read(file: &Path) -> anyhow::Result<(String, Vec<u8>)> {
    if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("standard input cannot be read")?;
        return Ok(("standard input".to_owned(), bytes));
    }
    let bytes =
        std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let name = file.file_name().unwrap_or(file.as_os_str());
    Ok((name.to_string_lossy().into_owned(), bytes))
}

/// A value of the command line.
fn parse(value: &str, is_text: bool) -> anyhow::Result<Box<RawValue>> {
    if is_text {
        return Ok(to_raw_value(value)?);
    }
    serde_json::from_str(value).map_err(|error| {
        anyhow::anyhow!(
            "the value `{value}` is not JSON: {error}\n  help: write JSON in single quotes, such \
             as '{}', or a text with --text",
            json!({"quantity": 40})
        )
    })
}

/// Where a key is. The end of a path cannot be nothing, and dots there are no name.
fn path(plugin: &str, key: &str) -> anyhow::Result<String> {
    anyhow::ensure!(
        !matches!(key, "" | "." | ".."),
        "`{key}` is not a key that can be asked for\n  help: write one such as \
         stock/north/metformin"
    );
    Ok(format!("/v1/plugins/{}/state/{}", escape(plugin), escape(key)))
}
