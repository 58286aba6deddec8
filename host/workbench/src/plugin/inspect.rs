//! `amends plugin inspect`: what a component exports, what it imports and why that is there, what it
//! says about itself, and what a config would grant it.

use std::path::PathBuf;

use amends_engine::{Digest, PluginName};
use amends_sandbox::{KeyId, LoadedComponent, Manifest, PluginSettings, Signed};
use serde::Serialize;
use serde_json::Value;

use super::component::{bytes_of, looked_at, plugins_of};
/// Which component is looked at.
#[derive(Debug, Clone)]
pub struct InspectOptions {
    /// A file, or `oci://REGISTRY/REPOSITORY@sha256:…`.
    pub file: PathBuf,
    /// A config: what it would grant the component, and whether it trusts who signed it.
    pub config: Option<PathBuf>,
    /// The plugin in the config, where that is not the one in the manifest.
    pub name: Option<PluginName>,
}

/// A component as a host would load it.
#[derive(Debug, Clone, Serialize)]
pub struct InspectReport {
    /// The name in its manifest.
    pub name: String,
    /// The version in its manifest.
    pub version: String,
    /// What it does, in the words of its manifest.
    pub summary: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub bytes: usize,
    /// The keys that signed it.
    pub signed_by: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// The interfaces that it imports.
    pub(crate) imports: Vec<String>,
    /// The same, each with why it is there.
    pub why: Vec<Import>,
    /// The capabilities that it cannot do without.
    pub needs: Vec<String>,
    /// The service that it calls.
    pub service: Option<String>,
    /// The JSON Schema of its input.
    pub input_schema: Value,
    /// The JSON Schema of its output.
    pub output_schema: Value,
    /// What the config says to it; absent without a config.
    #[serde(flatten)]
    pub verdict: Option<Verdict>,
}

/// Whether a host with a config would serve a component.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Whether it would.
    pub(crate) served: bool,
    /// Why not.
    pub refused: Option<String>,
}

/// Looks at a component.
///
/// # Errors
/// When a host would refuse the component whatever it is granted, or the config cannot be read.
pub async fn run(options: InspectOptions) -> anyhow::Result<InspectReport> {
    let file = options.file.display();
    let bytes = bytes_of(&options.file).await?;
    let failed = |rejection: &dyn std::fmt::Display| anyhow::anyhow!("{file}: {rejection}");
    let keys = Signed::read(&bytes).map_err(|rejection| failed(&rejection))?.keys();
    let component = looked_at(bytes.clone(), None).await.map_err(|rejection| failed(&rejection))?;
    let LoadedComponent { manifest, digest, exports, imports, bytes_len, .. } = component;
    let name = options.name.as_ref().map_or(manifest.name.as_str(), PluginName::as_str);
    let config = options.config.as_deref().map(plugins_of).transpose()?;
    let settings = match &config {
        Some(config) => Some(config.plugins.get(&plugin(name)?).cloned().unwrap_or_default()),
        None => None,
    };
    let why = imports.iter().map(|import| Import::of(import, &manifest, settings.as_ref()));
    let why = why.collect();
    let untrusted = config.and_then(|config| config.trusted_keys.check(&bytes).err());
    let verdict = settings.map(|settings| {
        let refused = untrusted
            .map(|rejection| rejection.to_string())
            .or_else(|| refused(&manifest, &settings));
        Verdict { served: refused.is_none(), refused }
    });
    Ok(InspectReport {
        name: manifest.name,
        version: manifest.version,
        summary: manifest.summary,
        digest,
        bytes: bytes_len,
        signed_by: keys.iter().map(KeyId::to_string).collect(),
        exports: exports.words(),
        imports,
        why,
        needs: manifest.needs,
        service: manifest.service,
        input_schema: manifest.input_schema,
        output_schema: manifest.output_schema,
        verdict,
    })
}

fn plugin(name: &str) -> anyhow::Result<PluginName> {
    name.parse().map_err(|error| {
        anyhow::anyhow!("`{name}` is no name of a plugin: {error}; name it with --as")
    })
}

/// One interface that a component imports.
#[derive(Debug, Clone, Serialize)]
pub struct Import {
    /// Its name.
    pub interface: String,
    /// Why it is there, and what grants it.
    pub why: String,
    /// What a config says to it; none without a config.
    pub granted: Option<String>,
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
