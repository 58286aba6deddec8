//! `amends plugin inspect`: what a component exports, what it imports and why that is there, what it
//! says about itself, and what a config would grant it.

use std::path::PathBuf;

use amends_engine::{Digest, PluginName, on_one_line};
use amends_sandbox::{KeyId, LoadedComponent, Manifest, PluginSettings, Signed};
use clap::Args;
use serde_json::{Value, json};

use super::component::{bytes_of, looked_at, plugins_of};
use crate::commands::exit::{EXIT_DONE, EXIT_ERROR, Failed};
use crate::commands::output::format::Format;
use crate::commands::output::{print_json, print_json_line, print_table, say, table};

/// The arguments of the verb.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The component: a file, or oci://REGISTRY/REPOSITORY@sha256:…
    pub file: PathBuf,
    /// Say what this config would grant it, and whether it trusts who signed it
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// Its NAME in the config, where that is not the one in its manifest
    #[arg(long = "as", value_name = "NAME", requires = "config")]
    pub name: Option<PluginName>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// Runs the verb.
///
/// # Errors
/// When a host would refuse the component whatever it is granted, or the config cannot be read.
pub(crate) async fn run(args: Inspect) -> anyhow::Result<u8> {
    let file = args.file.display();
    let bytes = bytes_of(&args.file).await?;
    let failed = |rejection: &dyn std::fmt::Display| Failed {
        exit: EXIT_ERROR,
        message: format!("{file}: {rejection}"),
    };
    let keys = Signed::read(&bytes).map_err(|rejection| failed(&rejection))?.keys();
    let component = looked_at(bytes.clone(), None).await.map_err(|rejection| failed(&rejection))?;
    let name = args.name.as_ref().map_or(component.manifest.name.as_str(), PluginName::as_str);
    let config = args.config.as_deref().map(plugins_of).transpose()?;
    let settings = match &config {
        Some(config) => Some(config.plugins.get(&plugin(name)?).cloned().unwrap_or_default()),
        None => None,
    };
    let imports: Vec<Import> = component
        .imports
        .iter()
        .map(|import| Import::of(import, &component.manifest, settings.as_ref()))
        .collect();
    let untrusted = config.and_then(|config| config.trusted_keys.check(&bytes).err());
    let refused = untrusted
        .map(|rejection| rejection.to_string())
        .or_else(|| refused(&component.manifest, settings.as_ref()?));
    let json = || answer(&component, &keys, &imports, settings.is_some(), refused.as_deref());
    match args.output {
        Format::Json => print_json(&json())?,
        Format::Jsonl => print_json_line(&json())?,
        Format::Ids => say!("{}", component.digest)?,
        Format::Table => {
            print(&component, &keys, &imports)?;
            if let Some(config) = &args.config {
                let verdict = refused.map_or_else(
                    || "it would be served".to_owned(),
                    |why| format!("it would be refused: {why}"),
                );
                let verdict = on_one_line(&verdict);
                say!("\nas [plugin.{name}] of {}: {verdict}", config.display())?;
            }
        }
    }
    Ok(EXIT_DONE)
}

fn plugin(name: &str) -> anyhow::Result<PluginName> {
    name.parse().map_err(|error| {
        anyhow::anyhow!("`{name}` is no name of a plugin: {error}; name it with --as")
    })
}

/// One interface that a component imports.
struct Import {
    interface: String,
    why: String,
    /// What a config says to it; none without a config.
    granted: Option<String>,
}

impl Import {
    fn of(interface: &str, manifest: &Manifest, settings: Option<&PluginSettings>) -> Self {
        let capability = capability(interface);
        let why = match capability {
            Some(capability) => {
                let is_needed = manifest.needs.iter().any(|need| need == capability);
                let without = match (is_needed, capability) {
                    (_, "config") => "what it is set to, and whether it may do more: always there",
                    (true, _) => "needed: the component is refused without",
                    (false, "http") => "can do without: a request that is not allowed fails",
                    (false, _) => "can do without: a call that uses it is stopped",
                };
                let (_, key) = PluginSettings::default().grants(capability).unwrap_or_default();
                format!("{without}; {key}")
            }
            None => always(interface).to_owned(),
        };
        let granted = settings.map(|settings| match capability {
            Some("config") => {
                let (settings, secrets) = (settings.settings.len(), settings.secrets.len());
                format!("settings: {settings}, secrets: {secrets}")
            }
            Some(capability) => match settings.grants(capability) {
                Some((true, _)) => "granted".to_owned(),
                Some((false, key)) => format!("refused: no {key}"),
                None => "refused".to_owned(),
            },
            None => "given".to_owned(),
        });
        Self { interface: interface.to_owned(), why, granted }
    }

    fn to_json(&self) -> Value {
        json!({"interface": self.interface, "why": self.why, "granted": self.granted})
    }
}

/// The capability that an interface belongs to; none of one that every component has.
fn capability(interface: &str) -> Option<&'static str> {
    let is = |name: &str| {
        interface.strip_prefix("amends:saga/").is_some_and(|rest| {
            rest.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
        })
    };
    if interface.starts_with("wasi:http/") {
        return Some("http");
    }
    ["config", "state", "events"].into_iter().find(|name| is(name))
}

/// Why an interface is there that nobody has to grant.
fn always(interface: &str) -> &'static str {
    let package = interface.split_once('/').map_or(interface, |(package, _)| package);
    match package {
        "amends:saga" if interface.contains("/log") => "lines in the host's log",
        "amends:saga" => "the words of the interfaces, no calls",
        "wasi:cli" => "of its language's library: no arguments, no environment, streams to nowhere",
        "wasi:clocks" => "the time",
        "wasi:filesystem" => "of its language's library: no folders",
        "wasi:io" => "what other interfaces read and write by",
        "wasi:random" => "random numbers",
        _ => "given",
    }
}

/// Why a host with these settings would not load it.
fn refused(manifest: &Manifest, settings: &PluginSettings) -> Option<String> {
    manifest.needs.iter().find_map(|need| match settings.grants(need) {
        Some((true, _)) => None,
        Some((false, key)) => Some(format!("it needs {need}; grant it by {key}")),
        None => Some(format!("it needs `{need}`, which is no capability")),
    })
}

fn answer(
    component: &LoadedComponent,
    keys: &[KeyId],
    imports: &[Import],
    has_config: bool,
    refused: Option<&str>,
) -> Value {
    let manifest = &component.manifest;
    let mut all = json!({
        "name": manifest.name,
        "version": manifest.version,
        "summary": manifest.summary,
        "digest": component.digest,
        "bytes": component.bytes_len,
        "signed_by": keys.iter().map(KeyId::to_string).collect::<Vec<_>>(),
        "exports": component.exports.words(),
        "imports": component.imports,
        "why": imports.iter().map(Import::to_json).collect::<Vec<_>>(),
        "needs": manifest.needs,
        "service": manifest.service,
        "input_schema": manifest.input_schema,
        "output_schema": manifest.output_schema,
    });
    if has_config {
        all["served"] = json!(refused.is_none());
        all["refused"] = json!(refused);
    }
    all
}

fn print(component: &LoadedComponent, keys: &[KeyId], imports: &[Import]) -> anyhow::Result<()> {
    let (manifest, digest): (&Manifest, Digest) = (&component.manifest, component.digest);
    let title = format!("{} {}: {}", manifest.name, manifest.version, manifest.summary);
    say!("{}", on_one_line(&title))?;
    say!("digest   {digest}, {} bytes", component.bytes_len)?;
    let keys: Vec<_> = keys.iter().map(KeyId::to_string).collect();
    let signed_by = if keys.is_empty() { "nobody".to_owned() } else { keys.join(", ") };
    say!("signed   by {signed_by}")?;
    say!("exports  {}", component.exports.words().join(", "))?;
    if !manifest.needs.is_empty() {
        say!("needs    {}", on_one_line(&manifest.needs.join(", ")))?;
    }
    if let Some(service) = &manifest.service {
        say!("service  {}", on_one_line(service))?;
    }
    say!("input    {}", serde_json::to_string_pretty(&manifest.input_schema)?)?;
    say!("output   {}", serde_json::to_string_pretty(&manifest.output_schema)?)?;
    say!("")?;
    let has_config = imports.iter().any(|import| import.granted.is_some());
    let columns: &[&str] =
        if has_config { &["imports", "granted", "why"] } else { &["imports", "why"] };
    let mut rows = table(columns);
    for import in imports {
        let granted = import.granted.as_deref();
        rows.add_row(
            [Some(import.interface.as_str()), granted, Some(&import.why)].into_iter().flatten(),
        );
    }
    print_table(&rows)
}
