//! The verbs about plugins: `list` here, those about a file, a project or what serves one module each.

mod build;
mod deploy;
mod inspect;
mod new;
mod rehearse;
mod sign;
mod test;
mod versions;

use clap::{Args, Subcommand};

pub(super) use deploy::named;

use amends_api_types::{CanaryView, PluginView};

use crate::commands::client::{Client, HostArgs, Page};
use crate::commands::exit::EXIT_DONE;
use crate::commands::output::format::Format;
use crate::commands::output::{Look, print_json, print_json_line, print_table_as, say, table};

/// The verbs about plugins.
#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// List the plugins of a host
    #[command(after_help = "Example:\n  amends plugin list")]
    List(List),
    /// Show what a component file exports, imports and says about itself
    #[command(after_help = "Example:\n  amends plugin inspect plugins/inventory.wasm --config \
                            examples/order-fulfillment/amends.toml")]
    Inspect(inspect::Inspect),
    /// Make a project of a step and its undo that builds and passes its test
    #[command(after_help = "Example:\n  amends plugin new book-seats --lang python")]
    New(new::New),
    /// Build a project's component
    #[command(after_help = "Example:\n  amends plugin build book-seats")]
    Build(build::Build),
    /// Call a component the way a host does during failures, and report which checks it fails
    #[command(after_help = "Examples:\n  amends plugin test book-seats/book-seats.wasm\n  amends \
                            plugin test plugins/inventory.wasm --config \
                            examples/order-fulfillment/amends.toml --input order.json")]
    Test(test::Test),
    /// Make a pair of keys to sign components with
    #[command(
        after_help = "Example:\n  amends plugin keygen release --no-password\n\nA password is asked \
                            for, or taken from AMENDS_KEY_PASSWORD. The keys are those of minisign."
    )]
    Keygen(sign::Keygen),
    /// Sign a component, so that hosts that trust the key load it
    #[command(
        after_help = "Example:\n  amends plugin sign book-seats/book-seats.wasm --key release.key\n\n\
                            The password of the key is asked for, or taken from \
                            AMENDS_KEY_PASSWORD. Signatures of other keys stay."
    )]
    Sign(sign::Sign),
    /// Deploy components: all of them become active, or none
    #[command(
        after_help = "Examples:\n  amends plugin deploy inventory.wasm shipment.wasm --dry-run\n  \
                            amends plugin deploy inventory=build/new.wasm --reason \"release 7\"\n  \
                            amends plugin deploy inventory.wasm --canary 10% --promote-after 1000\n  \
                            amends plugin deploy \
                            oci://ghcr.io/acme/inventory@sha256:…\n\n\
                            What sagas in flight have recorded and a component cannot read is a \
                            refusal; with --force their undos stay with the component that executed \
                            the step. The plugin folder is left as it is."
    )]
    Deploy(deploy::Deploy),
    /// Compare a new undo with the active one on recorded sagas, without any effect
    #[command(
        after_help = "Examples:\n  amends plugin rehearse inventory.wasm\n  amends plugin rehearse \
                            inventory=build/new.wasm --sagas 500 --json\n\nExit codes: 0 nothing \
                            differs, 8 something differs, 7 the time was up before anything was \
                            rehearsed.\n\nBoth are called on what sagas have recorded: no request \
                            leaves the host (each is answered 200, 404, 503 and not at all), and \
                            what they write is thrown away."
    )]
    Rehearse(rehearse::Rehearse),
    /// Show every component that a plugin had: when each was activated or refused, and why
    #[command(after_help = "Example:\n  amends plugin versions inventory")]
    Versions(versions::Versions),
    /// Promote a canary: it becomes the active component
    #[command(
        after_help = "Example:\n  amends plugin promote inventory --reason \"as good as 1.4\""
    )]
    Promote(versions::Promote),
    /// End a canary, or return to a component that was active before
    #[command(
        after_help = "Example:\n  amends plugin rollback inventory --reason \"loses reservations\"\n\n\
                            It serves at once, and within a second on every host of the store. \
                            The file in the plugin folder is left as it is, and counts again when \
                            it changes."
    )]
    Rollback(versions::Rollback),
}

/// What components export is shown on terminals from this width on.
const EXPORTS_FROM: u16 = 100;

/// The arguments of `plugin list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn run(command: Plugin) -> anyhow::Result<u8> {
    match command {
        Plugin::List(args) => list(args).await,
        Plugin::Inspect(args) => inspect::run(args).await,
        Plugin::New(args) => new::run(args),
        Plugin::Build(args) => build::run(args).await,
        Plugin::Test(args) => test::run(args).await,
        Plugin::Keygen(args) => sign::keygen(&args),
        Plugin::Sign(args) => sign::sign(&args),
        Plugin::Deploy(args) => deploy::deploy(args).await,
        Plugin::Rehearse(args) => rehearse::rehearse(args).await,
        Plugin::Versions(args) => versions::versions(args).await,
        Plugin::Promote(args) => versions::promote(args).await,
        Plugin::Rollback(args) => versions::rollback(args).await,
    }
}

async fn list(args: List) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let page: Page<PluginView> = client.get("/v1/plugins").await?;
    match args.output {
        Format::Json => print_json(&page.items)?,
        Format::Jsonl => page.items.iter().try_for_each(print_json_line)?,
        Format::Ids => page.items.iter().try_for_each(|plugin| say!("{}", plugin.name))?,
        Format::Table => {
            let look = Look::new();
            let since = if look.is_brief() { "active" } else { "active since" };
            let mut rows = table(&["name", "version", "digest", "exports", since, "last refused"]);
            for plugin in page.items {
                let digest = plugin.digest.unwrap_or_default();
                // What serves since then was taken after it.
                let since = plugin.active_since;
                let refused = plugin
                    .last_rejection
                    .filter(|last| since.is_none_or(|since| last.at > since))
                    .map(|last| format!("{}: {}", look.short_time(last.at), last.reason));
                let version = plugin.version.unwrap_or_else(|| "none".to_owned());
                let canary = plugin.canaries.first().filter(|one| one.ended.is_none());
                let version = match canary {
                    Some(CanaryView { version: canary, share, .. }) => {
                        format!("{version}, canary {canary} ({share} %)")
                    }
                    None => version,
                };
                rows.add_row(vec![
                    plugin.name,
                    version,
                    look.digest(&digest).to_owned(),
                    // A column in which nothing stands is left out: the refusal matters more.
                    if look.has_room(EXPORTS_FROM) {
                        plugin.exports.join(", ")
                    } else {
                        String::new()
                    },
                    plugin.active_since.map(|at| look.short_time(at)).unwrap_or_default(),
                    refused.unwrap_or_default(),
                ]);
            }
            print_table_as(&rows, look)?;
        }
    }
    Ok(EXIT_DONE)
}
