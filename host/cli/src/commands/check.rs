//! `amends check CONFIG`: the lint.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use amends_engine::{Definition, NamespaceName, PluginName};
use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use crate::commands::output::{shown, write};
use crate::commands::{EXIT_DONE, EXIT_ERROR, Format};
use amends_config::lint::{LintedPlugin, lint};
use amends_config::{OverrideFlags, Overrides, Report, Severity, look};

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(
    long_about = "Looks for mistakes in a config, its definitions and its plugins, and starts \
                  nothing.\n\nExits with 0 when there are none (warnings are allowed), else with 1. A \
                  missing secret is a warning, because a config can be checked without the secrets of \
                  the host that runs it.",
    after_help = "Example:\n  amends check examples/order-fulfillment/amends.toml"
)]
pub(crate) struct Check {
    /// The config file (TOML)
    pub(crate) config: PathBuf,
    /// Treat a missing secret as an error, as a host does at its start
    #[arg(long)]
    pub(crate) secrets: bool,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// What stands above the file.
    #[command(flatten)]
    pub(crate) overrides: OverrideFlags,
}

/// What a check came to.
#[derive(Debug)]
pub struct Checked {
    /// What to print on standard output.
    pub text: String,
    /// Whether there is no error.
    pub(crate) is_sound: bool,
}

/// Runs the verb.
///
/// # Errors
/// When nothing could be checked.
pub(crate) fn run(check: &Check) -> anyhow::Result<ExitCode> {
    let overrides = Overrides::of_process(check.overrides.clone());
    let lacking_secrets = if check.secrets { Severity::Error } else { Severity::Warning };
    let checked = check_file(&check.config, &overrides, lacking_secrets, check.output)?;
    write(shown(&checked.text).as_bytes())?;
    Ok(ExitCode::from(if checked.is_sound { EXIT_DONE } else { EXIT_ERROR }))
}

/// Checks a config and its plugins.
///
/// # Errors
/// When the sandbox in which plugins are tried cannot be set up.
pub fn check_file(
    path: &Path,
    overrides: &Overrides,
    lacking_secrets: Severity,
    format: Format,
) -> anyhow::Result<Checked> {
    let loaded = match look(path, overrides, lacking_secrets) {
        Ok(loaded) => loaded,
        Err(report) => return Ok(render(&report, &[], format)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    // Not on standard output: others read that.
    let told = |words: &str| eprintln!("{}", shown(words));
    let lint = runtime.block_on(lint(&loaded, &told)).context("cannot try the plugins")?;
    let mut sound = vec![Sound {
        namespace: None,
        definitions: &loaded.config.definitions,
        plugins: &lint.plugins,
    }];
    for (name, plugins) in &lint.namespaces {
        let Some(namespace) = loaded.namespaces.get(name) else { continue };
        let definitions = &namespace.config.definitions;
        sound.push(Sound { namespace: Some(name), definitions, plugins });
    }
    Ok(render(&lint.report, &sound, format))
}

/// What is sound of a namespace.
struct Sound<'c> {
    /// None: it is `default`.
    namespace: Option<&'c NamespaceName>,
    definitions: &'c [Definition],
    plugins: &'c BTreeMap<PluginName, LintedPlugin>,
}

fn render(report: &Report, sound: &[Sound<'_>], format: Format) -> Checked {
    let is_sound = report.errors() == 0;
    let text = match format {
        Format::Table | Format::Ids => render_text(report, sound),
        Format::Json => format!("{:#}\n", answer(report, sound)),
        Format::Jsonl => format!("{}\n", answer(report, sound)),
    };
    Checked { text, is_sound }
}

fn render_text(report: &Report, sound: &[Sound<'_>]) -> String {
    let mut text = report.to_string();
    if !text.is_empty() {
        text.push('\n');
    }
    let is_sound = report.errors() == 0;
    // What is sound is listed only when all of it is: an error must not scroll away.
    for Sound { namespace, definitions, plugins } in sound.iter().filter(|_| is_sound) {
        let of = namespace.map_or_else(String::new, |name| format!("namespace {name}: "));
        for definition in *definitions {
            let steps: Vec<_> = definition.steps().iter().map(|step| step.name.as_str()).collect();
            let _ = writeln!(
                text,
                "{of}saga {} {}: {}",
                definition.name(),
                definition.digest().short(),
                steps.join(", ")
            );
        }
        for (name, plugin) in *plugins {
            let _ = writeln!(
                text,
                "{of}plugin {name} {} {}: {}",
                plugin.version,
                plugin.digest.short(),
                plugin.exports.join(", ")
            );
        }
    }
    let verdict = if is_sound { "is sound: " } else { "" };
    let _ = writeln!(text, "{}: {verdict}{}", report.file().display(), report.summary());
    text
}

fn answer(report: &Report, sound: &[Sound<'_>]) -> Value {
    let mut answer = json!({
        "file": report.file().display().to_string(),
        "ok": report.errors() == 0,
        "errors": report.errors(),
        "warnings": report.warnings(),
        "findings": report.to_json(),
        "definitions": [],
        "plugins": [],
    });
    let mut namespaces = Vec::new();
    for one in sound {
        let (definitions, plugins) = views(one);
        if let Some(name) = one.namespace {
            namespaces.push(json!({"name": name, "definitions": definitions, "plugins": plugins}));
        } else {
            answer["definitions"] = definitions.into();
            answer["plugins"] = plugins.into();
        }
    }
    if !namespaces.is_empty() {
        answer["namespaces"] = namespaces.into();
    }
    answer
}

fn views(sound: &Sound<'_>) -> (Vec<Value>, Vec<Value>) {
    let definitions = sound.definitions.iter().map(|definition| {
        let steps: Vec<_> = definition.steps().iter().map(|step| &step.name).collect();
        json!({"name": definition.name(), "digest": definition.digest(), "steps": steps})
    });
    let plugins = sound.plugins.iter().map(|(name, plugin)| {
        json!({
            "name": name,
            "version": plugin.version,
            "digest": plugin.digest,
            "exports": plugin.exports,
        })
    });
    (definitions.collect(), plugins.collect())
}
