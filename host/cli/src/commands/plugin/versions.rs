//! `plugin versions` and `plugin rollback`.

use std::borrow::Cow;

use clap::Args;
use serde_json::json;

use amends_api_types::{CanaryView, PluginView};
use amends_engine::{Timestamp, on_one_line};

use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::format::Format;
use crate::commands::output::{Look, print_json, print_json_line, print_table_as, say, table};

/// The arguments of `plugin versions`.
#[derive(Debug, Args)]
pub(crate) struct Versions {
    /// The plugin
    pub(crate) name: String,
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// The arguments of `plugin rollback`.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The plugin
    pub(crate) name: String,
    /// The digest of a component that was active before, or the beginning of its digest [default: the
    /// latest such component that no rollback has left]
    #[arg(long, value_name = "DIGEST")]
    pub(crate) to: Option<String>,
    /// Roll back although something speaks against the component, such as outputs of sagas in flight
    /// that it cannot read
    #[arg(long)]
    pub(crate) force: bool,
    /// The reason, which the plugin's history keeps
    #[arg(long)]
    pub(crate) reason: String,
    /// How to print the plugin
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// The arguments of `plugin promote`.
#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// The plugin
    pub(crate) name: String,
    /// The reason, which the plugin's history keeps
    #[arg(long)]
    pub(crate) reason: String,
    /// How to print the plugin
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// What became of one component, once.
#[derive(serde::Serialize)]
struct Turn<'p> {
    at: Timestamp,
    what: &'static str,
    digest: Option<&'p str>,
    version: Option<&'p str>,
    cause: Option<&'p str>,
    who: Option<&'p str>,
    reason: Option<Cow<'p, str>>,
    is_active: bool,
}

pub(crate) async fn versions(args: Versions) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let plugin: PluginView = client.get(&format!("/v1/plugins/{}", escape(&args.name))).await?;
    let all = all(&plugin);
    match args.output {
        Format::Json => print_json(&all)?,
        Format::Jsonl => all.iter().try_for_each(print_json_line)?,
        Format::Ids => {
            all.iter().filter_map(|one| one.digest).try_for_each(|digest| say!("{digest}"))?;
        }
        Format::Table => {
            let look = Look::new();
            let mut rows = table(&["at", "digest", "version", "what", "why"]);
            // One that was refused last is what a reader wants to know of, in full.
            let refused = all.first().filter(|last| last.what == "refused" && look.is_brief());
            let refused = refused.and_then(|last| last.reason.as_deref().map(str::to_owned));
            for one in all {
                let what = if one.is_active { "active" } else { one.what };
                let why = [one.cause, one.who, one.reason.as_deref()];
                let why = why.into_iter().flatten().collect::<Vec<_>>().join(", ");
                rows.add_row(vec![
                    look.short_time(one.at),
                    one.digest.map(|digest| look.digest(digest)).unwrap_or_default().to_owned(),
                    one.version.unwrap_or_default().to_owned(),
                    what.to_owned(),
                    why,
                ]);
            }
            print_table_as(&rows, look)?;
            if let Some(reason) = refused {
                let words = format!("refused: {}", on_one_line(&reason));
                say!("\n{}", look.paragraph(&words))?;
            }
        }
    }
    Ok(EXIT_DONE)
}

/// The latest first.
fn all(plugin: &PluginView) -> Vec<Turn<'_>> {
    let activated = plugin.history.iter().enumerate().map(|(index, one)| {
        let turn = Turn {
            at: one.at,
            what: "activated",
            digest: Some(&one.digest),
            version: Some(&one.version),
            cause: Some(&one.cause),
            who: one.who.as_deref(),
            reason: one.reason.as_deref().map(Cow::from),
            is_active: index == 0 && plugin.digest.as_ref() == Some(&one.digest),
        };
        (one.at, turn)
    });
    let refused = plugin.rejections.iter().map(|one| {
        let turn = Turn {
            at: one.at,
            what: "refused",
            digest: one.digest.as_deref(),
            version: None,
            cause: None,
            who: None,
            reason: Some(Cow::from(&one.reason)),
            is_active: false,
        };
        (one.at, turn)
    });
    let canaries = plugin.canaries.iter().flat_map(|one| {
        let turn = |at: Timestamp, what, who, reason| Turn {
            at,
            what,
            digest: Some(&one.digest),
            version: Some(&one.version),
            cause: None,
            who,
            reason,
            is_active: false,
        };
        let reason = one.reason.as_deref().map(Cow::from);
        let running = [reason, Some(how_it_does(one).into())].into_iter().flatten();
        let running = running.collect::<Vec<_>>().join(": ");
        let began = turn(one.at, "canary", one.who.as_deref(), Some(running.into()));
        // Of one that was promoted the activation tells the end.
        let taken_back = one.ended.as_ref().filter(|end| !end.promoted).map(|end| {
            let (who, reason) = (end.who.as_deref(), end.reason.as_deref().map(Cow::from));
            (end.at, turn(end.at, "taken back", who, reason))
        });
        std::iter::once((one.at, began)).chain(taken_back)
    });
    let mut all: Vec<_> = activated.chain(refused).chain(canaries).collect();
    all.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    all.into_iter().map(|(_, turn)| turn).collect()
}

fn how_it_does(canary: &CanaryView) -> String {
    let CanaryView { share, calls, active_calls, .. } = canary;
    format!(
        "{share} % of the sagas; {} of its {} calls failed, of the active component's {} of {}",
        calls.failed, calls.total, active_calls.failed, active_calls.total
    )
}

pub(crate) async fn promote(args: Promote) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let path = format!("/v1/plugins/{}/promote", escape(&args.name));
    let plugin: PluginView = client.post(&path, &json!({"reason": args.reason})).await?;
    print_serving(&plugin, args.output, "serves all sagas now")
}

pub(crate) async fn rollback(args: Rollback) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let body = json!({"reason": args.reason, "to": args.to, "force": args.force});
    let plugin: PluginView =
        client.post(&format!("/v1/plugins/{}/rollback", escape(&args.name)), &body).await?;
    // What ended last is what this ended: a canary that was taken back, or not.
    let ended = plugin.canaries.first().and_then(|one| one.ended.as_ref());
    let is_canary =
        args.to.is_none() && ended.is_some_and(|end| plugin.active_since < Some(end.at));
    print_serving(
        &plugin,
        args.output,
        if is_canary { "serves all sagas again: the canary is taken back" } else { "serves again" },
    )
}

fn print_serving(plugin: &PluginView, format: Format, how: &str) -> anyhow::Result<u8> {
    let digest = plugin.digest.as_deref().unwrap_or_default();
    match format {
        Format::Json => print_json(plugin)?,
        Format::Jsonl => print_json_line(plugin)?,
        Format::Ids => say!("{digest}")?,
        Format::Table => {
            let version = plugin.version.as_deref().unwrap_or_default();
            say!("{}: version {} {how}, {digest}", plugin.name, on_one_line(version))?;
        }
    }
    Ok(EXIT_DONE)
}
