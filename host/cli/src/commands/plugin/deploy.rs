//! `plugin deploy`.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use reqwest::multipart::{Form, Part};

use amends_api_types::{DeployView, DeployedView, FlawView};
use amends_engine::{PluginName, on_one_line};
use amends_workbench::plugin::component::bytes_of;
use amends_workbench::plugin::oci;

use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::{EXIT_DONE, EXIT_ERROR, Failed};
use crate::commands::output::format::Format;
use crate::commands::output::{
    counted, print_json, print_json_line, print_table, say, short_digest, table,
};

/// Recorded outputs that are printed of each component.
const UNREADABLE_SHOWN: usize = 10;

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(
    after_help = "A dry run exits as the deploy itself would: with 0 when it would be taken, with \
                        1 when it would be refused.\n\nExamples:\n  amends plugin deploy \
                        shipment.wasm --dry-run && amends plugin deploy shipment.wasm"
)]
pub(crate) struct Deploy {
    /// The components: NAME.wasm and oci://REGISTRY/…/NAME@sha256:… are for plugin NAME, NAME=FILE
    /// for another one
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Show what the deploy would change, and change nothing; exits with 1 when it would be refused
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Deploy although an undo cannot read what sagas in flight have recorded, a definition does not
    /// fit a component, no plugin has this name, or the manifest has another name
    #[arg(long, requires = "reason")]
    pub(crate) force: bool,
    /// The reason, which the history of the plugins keeps
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Start a canary: the component serves this percentage of the sagas. The host ends the canary when
    /// it does worse than the active component
    #[arg(long, value_name = "PERCENT", value_parser = percent, allow_hyphen_values = true)]
    pub(crate) canary: Option<f64>,
    /// Of a canary: how many percentage points its rate of failed calls, or of calls of unknown
    /// outcome, may lie above that of the active component before the host ends it [default: 5]
    #[arg(long, value_name = "POINTS", value_parser = percent, allow_hyphen_values = true, requires = "canary")]
    pub(crate) margin: Option<f64>,
    /// Of a canary: the least number of its calls by which it is judged [default: 100]
    #[arg(long, value_name = "CALLS", requires = "canary")]
    pub(crate) min_calls: Option<u32>,
    /// Of a canary: promote it after this many calls [default: only `plugin promote` does]
    #[arg(long, value_name = "CALLS", requires = "canary")]
    pub(crate) promote_after: Option<u32>,
    /// How to print what it changes
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn deploy(args: Deploy) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let mut form = Form::new();
    for argument in &args.files {
        let (name, file) = named(argument)?;
        let bytes = bytes_of(&file).await?;
        form = form.part(name.to_string(), Part::bytes(bytes));
    }
    let mut path = format!("/v1/plugins:deploy?dry_run={}&force={}", args.dry_run, args.force);
    if let Some(reason) = &args.reason {
        path.push_str(&["&reason=", &escape(reason)].concat());
    }
    if let Some(share) = args.canary {
        let _ = write!(path, "&canary={share}");
        let of_canary = [
            ("margin", args.margin.map(|margin| margin.to_string())),
            ("min_calls", args.min_calls.map(|calls| calls.to_string())),
            ("promote_after", args.promote_after.map(|calls| calls.to_string())),
        ];
        for (key, value) in of_canary {
            if let Some(value) = value {
                let _ = write!(path, "&{key}={value}");
            }
        }
    }
    let response = client.upload(&path, form).await?;
    let done: DeployView = response.json().await.context("the host's answer cannot be read")?;
    match args.output {
        Format::Json => print_json(&done)?,
        Format::Jsonl => done.components.iter().try_for_each(print_json_line)?,
        Format::Ids => done.components.iter().try_for_each(|one| say!("{}", one.digest))?,
        Format::Table => print(&done)?,
    }
    let is_refused = done.components.iter().any(|one| one.refusal.is_some());
    Ok(if is_refused { EXIT_ERROR } else { EXIT_DONE })
}

/// `10`, or `10%`; what is in range the host says.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
    number.filter(|number: &f64| number.is_finite()).ok_or_else(|| "write such as 10%".to_owned())
}

/// `NAME=FILE`, or a file or repository that is named after its plugin.
pub(in crate::commands) fn named(argument: &str) -> anyhow::Result<(PluginName, PathBuf)> {
    if let Some((name, file)) = argument.split_once('=')
        && let Ok(name) = name.parse()
    {
        return Ok((name, PathBuf::from(file)));
    }
    let file = PathBuf::from(argument);
    let stem = if oci::is_reference(argument) {
        argument.parse::<oci::Reference>()?.name().to_owned()
    } else {
        file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned()
    };
    match stem.parse() {
        Ok(name) => Ok((name, file)),
        Err(error) => {
            let message = format!("{argument}: {error}\n  help: write NAME={argument}");
            Err(Failed { exit: EXIT_ERROR, message }.into())
        }
    }
}

fn print(done: &DeployView) -> anyhow::Result<()> {
    let mut rows = table(&["plugin", "version", "digest", "definitions", "sagas", "to undo"]);
    for one in &done.components {
        rows.add_row(vec![
            one.plugin.clone(),
            one.version.clone(),
            short_digest(&one.digest).to_owned(),
            one.definitions.join(", "),
            one.sagas.to_string(),
            one.to_undo.to_string(),
        ]);
    }
    print_table(&rows)?;
    done.components.iter().try_for_each(print_flaws)?;
    done.components.iter().try_for_each(print_misfits)?;
    let serves = |one: &DeployedView| one.previous.as_ref() == Some(&one.digest);
    if done.activated && done.components.iter().all(serves) {
        say!("\nnothing is changed: it serves already")?;
    } else if done.activated {
        say!("\nactive from now on")?;
    } else if let ([one], true) = (done.components.as_slice(), done.canary) {
        let name = &one.plugin;
        say!(
            "\na canary from now on: amends plugin versions {name} shows how it does, amends plugin \
             promote {name} has it serve all sagas, amends plugin rollback {name} takes it back"
        )?;
    } else if done.components.iter().any(|one| one.refusal.is_some()) {
        say!("\na dry run: nothing is changed; this would be refused without --force")?;
    } else {
        say!("\na dry run: nothing is changed; this would be taken")?;
    }
    Ok(())
}

/// In the words of `amends check`, below one another: they are too long for a table.
fn print_flaws(one: &DeployedView) -> anyhow::Result<()> {
    for FlawView { definition, is_older, step, key, refuses, message, help } in &one.flaws {
        let severity = if *refuses { "error" } else { "warning" };
        let older = if *is_older { " (an older definition, of sagas in flight)" } else { "" };
        let (message, help) = (on_one_line(message), on_one_line(help));
        say!(
            "\n{}: {severity}: saga.{definition}.step.{step}.{key}{older}: {message}\n    help: {help}",
            one.plugin
        )?;
    }
    Ok(())
}

fn print_misfits(one: &DeployedView) -> anyhow::Result<()> {
    for misfit in &one.misfits {
        let verb = if misfit.is_certain { "cannot" } else { "may not be able to" };
        let message = on_one_line(&misfit.message);
        say!("\n{}: it {verb} read what served before: it {message}", one.plugin)?;
    }
    if one.unreadable_total == 0 {
        return Ok(());
    }
    say!(
        "\n{}: {} of sagas in flight cannot be read; their undos stay with the component that \
         executed the step:",
        one.plugin,
        counted(one.unreadable_total, "recorded output")
    )?;
    let mut rows = table(&["saga", "step", "executed by", "why"]);
    for output in one.unreadable.iter().take(UNREADABLE_SHOWN) {
        let digest = output.executed_by.as_deref().unwrap_or_default();
        rows.add_row(vec![
            output.saga.clone(),
            output.step.clone(),
            short_digest(digest).to_owned(),
            output.why.clone(),
        ]);
    }
    print_table(&rows)
}
