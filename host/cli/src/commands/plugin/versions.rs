//! `plugin versions` and `plugin rollback`.

use clap::Args;
use serde_json::json;

use amends_api::PluginView;

use crate::commands::Format;
use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::{print_json, print_json_line, print_table, say, short_digest, table};

/// The arguments of `plugin versions`.
#[derive(Debug, Args)]
pub struct Versions {
    /// The plugin
    pub name: String,
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

/// The arguments of `plugin rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The plugin
    pub name: String,
    /// The digest of a component that served it before; the last one that did, when absent
    #[arg(long, value_name = "DIGEST")]
    pub to: Option<String>,
    /// Why: it is kept in the plugin's history
    #[arg(long)]
    pub reason: String,
    /// How to print the plugin
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

/// What became of one component, once.
#[derive(serde::Serialize)]
struct Turn<'p> {
    at: String,
    what: &'static str,
    digest: &'p str,
    version: Option<&'p str>,
    cause: Option<&'p str>,
    who: Option<&'p str>,
    reason: Option<&'p str>,
    is_active: bool,
}

pub(crate) async fn versions(args: Versions) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let plugin: PluginView = client.get(&format!("/v1/plugins/{}", escape(&args.name))).await?;
    let all = all(&plugin);
    match args.output {
        Format::Json => print_json(&all)?,
        Format::Jsonl => all.iter().try_for_each(print_json_line)?,
        Format::Ids => all.iter().try_for_each(|one| say!("{}", one.digest))?,
        Format::Table => {
            let mut rows = table(&["at", "digest", "version", "what", "why"]);
            for one in all {
                let what = if one.is_active { "active" } else { one.what };
                let why = [one.cause, one.who, one.reason];
                rows.add_row(vec![
                    one.at,
                    short_digest(one.digest).to_owned(),
                    one.version.unwrap_or_default().to_owned(),
                    what.to_owned(),
                    why.into_iter().flatten().collect::<Vec<_>>().join(", "),
                ]);
            }
            print_table(&rows)?;
        }
    }
    Ok(EXIT_DONE)
}

/// The latest first.
fn all(plugin: &PluginView) -> Vec<Turn<'_>> {
    let activated = plugin.history.iter().enumerate().map(|(index, one)| {
        let turn = Turn {
            at: one.at.to_string(),
            what: "activated",
            digest: &one.digest,
            version: Some(&one.version),
            cause: Some(&one.cause),
            who: one.who.as_deref(),
            reason: one.reason.as_deref(),
            is_active: index == 0 && plugin.digest.as_ref() == Some(&one.digest),
        };
        (one.at, turn)
    });
    let refused = plugin.rejections.iter().map(|one| {
        let turn = Turn {
            at: one.at.to_string(),
            what: "refused",
            digest: &one.digest,
            version: None,
            cause: None,
            who: None,
            reason: Some(&one.reason),
            is_active: false,
        };
        (one.at, turn)
    });
    let mut all: Vec<_> = activated.chain(refused).collect();
    all.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    all.into_iter().map(|(_, turn)| turn).collect()
}

pub(crate) async fn rollback(args: Rollback) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let body = json!({"reason": args.reason, "to": args.to});
    let plugin: PluginView =
        client.post(&format!("/v1/plugins/{}/rollback", escape(&args.name)), &body).await?;
    let digest = plugin.digest.as_deref().unwrap_or_default();
    match args.output {
        Format::Json => print_json(&plugin)?,
        Format::Jsonl => print_json_line(&plugin)?,
        Format::Ids => say!("{digest}")?,
        Format::Table => {
            let version = plugin.version.as_deref().unwrap_or_default();
            say!("{} is served by version {version} again, {digest}", plugin.name)?;
        }
    }
    Ok(EXIT_DONE)
}
