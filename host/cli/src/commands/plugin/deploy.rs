//! `plugin deploy`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use reqwest::Method;
use reqwest::multipart::{Form, Part};

use amends_api::{DeployView, DeployedView};
use amends_engine::PluginName;

use crate::commands::Format;
use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::{EXIT_DONE, EXIT_ERROR, Failed};
use crate::commands::output::{print_json, print_json_line, print_table, say, short_digest, table};

/// Recorded outputs that are printed of each component.
const UNREADABLE_SHOWN: usize = 10;

/// The arguments of the verb.
#[derive(Debug, Args)]
pub struct Deploy {
    /// The components: NAME.wasm is for plugin NAME, NAME=FILE for another one
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// Say what it would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Also when sagas in flight have recorded what a component cannot read
    #[arg(long, requires = "reason")]
    pub force: bool,
    /// Why: it is kept in the history of the plugins
    #[arg(long)]
    pub reason: Option<String>,
    /// How to print what it changes
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub host: HostArgs,
}

pub(crate) async fn deploy(args: Deploy) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let mut form = Form::new();
    for argument in &args.files {
        let (name, file) = named(argument)?;
        let bytes =
            std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        form = form.part(name.to_string(), Part::bytes(bytes));
    }
    let mut path = format!("/v1/plugins:deploy?dry_run={}&force={}", args.dry_run, args.force);
    if let Some(reason) = &args.reason {
        path.push_str(&["&reason=", &escape(reason)].concat());
    }
    let request = client.request(Method::POST, &path);
    let response = client.send_as_user(request.multipart(form)).await?;
    let done: DeployView = response.json().await.context("the host's answer cannot be read")?;
    match args.output {
        Format::Json => print_json(&done)?,
        Format::Jsonl => done.components.iter().try_for_each(print_json_line)?,
        Format::Ids => done.components.iter().try_for_each(|one| say!("{}", one.digest))?,
        Format::Table => print(&done)?,
    }
    Ok(EXIT_DONE)
}

/// `NAME=FILE`, or a file that is named after its plugin.
pub(super) fn named(argument: &str) -> anyhow::Result<(PluginName, PathBuf)> {
    if let Some((name, file)) = argument.split_once('=')
        && let Ok(name) = name.parse()
    {
        return Ok((name, PathBuf::from(file)));
    }
    let file = PathBuf::from(argument);
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
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
    done.components.iter().try_for_each(print_misfits)?;
    if done.activated {
        say!("\nactive from now on")?;
    } else if done.components.iter().any(|one| one.unreadable_total > 0) {
        say!("\na dry run: nothing is changed; this would be refused without --force")?;
    } else {
        say!("\na dry run: nothing is changed; this would be taken")?;
    }
    Ok(())
}

fn print_misfits(one: &DeployedView) -> anyhow::Result<()> {
    for misfit in &one.misfits {
        let verb = if misfit.is_certain { "cannot" } else { "may not be able to" };
        say!("\n{}: it {verb} read what served before: it {}", one.plugin, misfit.message)?;
    }
    if one.unreadable_total == 0 {
        return Ok(());
    }
    say!(
        "\n{}: {} recorded outputs of sagas in flight cannot be read; their undos stay with the \
         component that executed the step:",
        one.plugin,
        one.unreadable_total
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
