//! Looks at the plugins that a config's definitions need, as the host will when it starts.
//!
//! Each is read, checked, compiled and asked for its manifest in the host's own sandbox.
//! Nothing is written, except compiled code when the cache folder is there already.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amends_engine::{Digest, PluginName};
use amends_plugins::{LoadedComponent, Loader, PluginError, PluginSettings, Rejection};

use crate::config::report::{Finding, Report, Severity};
use crate::config::suggest::{did_you_mean, list};
use crate::config::{Config, Loaded};

/// What the lint found out.
#[derive(Debug)]
pub struct Lint {
    /// Warnings of the config, and what is wrong with its plugins.
    pub report: Report,
    /// The plugins that are sound, by name.
    pub plugins: BTreeMap<PluginName, LintedPlugin>,
}

/// A plugin that is sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintedPlugin {
    /// Of its file.
    pub digest: Digest,
    /// As its manifest says.
    pub version: String,
    /// The calls that it serves: `execute`, `compensate`, `probe`.
    pub exports: Vec<String>,
}

/// Looks at every plugin that a definition needs. May be cancelled.
///
/// # Errors
/// When the sandbox cannot be set up.
pub async fn lint(loaded: &Loaded) -> Result<Lint, PluginError> {
    let config = &loaded.config;
    let cache = Some(config.plugins.cache.clone()).filter(|cache| cache.is_dir());
    let sandbox = Loader::new(cache)?;
    let mut linter = Linter { loaded, findings: Vec::new() };
    let files = linter.list_files();
    let mut plugins = BTreeMap::new();
    for (name, needs) in needs(config) {
        let Some(files) = &files else { break };
        if !files.contains(name) {
            linter.missing(name, &needs, files);
            continue;
        }
        let path = file_of(&config.plugins.dir, name);
        let settings = Arc::new(config.plugins.plugins.get(name).cloned().unwrap_or_default());
        match load(&sandbox, &path, settings).await {
            Ok(component) => {
                linter.check_exports(name, &needs, &component);
                let LoadedComponent { digest, manifest, exports, .. } = component;
                let exports = exports.words();
                plugins.insert(
                    name.clone(),
                    LintedPlugin { digest, version: manifest.version, exports },
                );
            }
            Err(message) => linter.refused(name, &needs, &path, &message),
        }
    }
    linter.check_settings(files.as_deref().unwrap_or_default());
    let report = loaded.warnings.clone().with(linter.findings);
    Ok(Lint { report, plugins })
}

/// The keys that name a plugin, in the order of the file.
#[derive(Debug, Default)]
struct Needs {
    execute: Vec<String>,
    compensate: Vec<String>,
}

impl Needs {
    fn first(&self) -> &str {
        self.execute.first().or(self.compensate.first()).map_or("plugins", String::as_str)
    }
}

/// The plugins that the definitions need.
fn needs(config: &Config) -> BTreeMap<&PluginName, Needs> {
    let mut plugins: BTreeMap<&PluginName, Needs> = BTreeMap::new();
    for definition in &config.definitions {
        for step in definition.steps() {
            let key = format!("saga.{}.step.{}", definition.name(), step.name);
            if let Some(plugin) = step.plugin() {
                plugins.entry(plugin).or_default().execute.push(format!("{key}.plugin"));
            }
            if let Some(plugin) = step.undo_plugin() {
                plugins.entry(plugin).or_default().compensate.push(format!("{key}.undo"));
            }
        }
    }
    plugins
}

struct Linter<'l> {
    loaded: &'l Loaded,
    findings: Vec<Finding>,
}

impl Linter<'_> {
    fn add(&mut self, severity: Severity, key: &str, message: String, help: String) {
        let place = self.loaded.places.of(key);
        self.findings.push(Finding { severity, place, key: key.to_owned(), message, help });
    }

    fn error(&mut self, key: &str, message: String, help: String) {
        self.add(Severity::Error, key, message, help);
    }

    /// The plugins that have a file; none when the folder cannot be read.
    fn list_files(&mut self) -> Option<Vec<PluginName>> {
        let dir = &self.loaded.config.plugins.dir;
        let names = std::fs::read_dir(dir).map(|entries| {
            let mut names: Vec<PluginName> =
                entries.filter_map(|entry| name_of(&entry.ok()?.path())).collect();
            names.sort();
            names
        });
        match names {
            Ok(names) => Some(names),
            Err(error) => {
                let message = if error.kind() == std::io::ErrorKind::NotFound {
                    format!("there is no folder {}", dir.display())
                } else {
                    format!("the folder {} cannot be read: {error}", dir.display())
                };
                let help = "name the folder with the plugins' .wasm files; a relative path counts \
                            from the config's folder";
                self.error("plugins.dir", message, help.to_owned());
                None
            }
        }
    }

    fn missing(&mut self, name: &PluginName, needs: &Needs, files: &[PluginName]) {
        let file = file_of(&self.loaded.config.plugins.dir, name);
        let help = did_you_mean(name.as_str(), files.iter().map(PluginName::as_str), || {
            let put = format!("put its component at {}", file.display());
            if files.is_empty() {
                format!("{put}; the folder has no plugins")
            } else {
                format!("{put}, or name one of {}", list(files.iter().map(PluginName::as_str)))
            }
        });
        let message = format!(
            "the plugin `{name}`, which {} needs, is missing: there is no file {}",
            step_of(needs.first()),
            file.display()
        );
        self.error(needs.first(), message, help);
    }

    fn refused(&mut self, name: &PluginName, needs: &Needs, path: &Path, rejection: &str) {
        // A rejection ends with its remedy.
        let (reason, help) = rejection.rsplit_once("; ").unwrap_or((rejection, "build it again"));
        let message = format!("the plugin `{name}` cannot serve ({}): {reason}", path.display());
        self.error(needs.first(), message, help.to_owned());
    }

    fn check_exports(&mut self, name: &PluginName, needs: &Needs, component: &LoadedComponent) {
        if !component.exports.execute {
            for key in &needs.execute {
                let message = format!(
                    "the plugin `{name}` has no `execute`, so {} cannot be done by it",
                    step_of(key)
                );
                self.error(
                    key,
                    message,
                    "name a plugin that exports amends:saga/action".to_owned(),
                );
            }
        }
        if !component.exports.compensate {
            for key in &needs.compensate {
                let message = format!(
                    "the plugin `{name}` has no `compensate`, so {} cannot be undone by it",
                    step_of(key)
                );
                let help = "set undo = false when there is nothing to undo, or name an undo plugin: \
                            undo = \"NAME\"";
                self.error(key, message, help.to_owned());
            }
        }
        if component.manifest.name != name.as_str() {
            let said = &component.manifest.name;
            let message = format!("{name}.wasm calls itself `{said}` in its manifest");
            let help = format!("rename the file to {said}.wasm if this is the wrong component");
            self.add(Severity::Warning, needs.first(), message, help);
        }
    }

    /// Settings for a plugin that nobody has are most likely a slip.
    fn check_settings(&mut self, files: &[PluginName]) {
        let config = &self.loaded.config;
        let needed = needs(config);
        for name in config.plugins.plugins.keys() {
            if files.contains(name) || needed.contains_key(name) {
                continue;
            }
            let help = did_you_mean(name.as_str(), files.iter().map(PluginName::as_str), || {
                format!("put {name}.wasm into {}, or remove it", config.plugins.dir.display())
            });
            let message = format!("no file and no step is of the plugin `{name}`");
            self.add(Severity::Warning, &format!("plugin.{name}"), message, help);
        }
    }
}

async fn load(
    loader: &Loader,
    path: &Path,
    settings: Arc<PluginSettings>,
) -> Result<LoadedComponent, String> {
    let bytes = std::fs::read(path).map_err(|error| {
        format!("the file cannot be read: {error}; check the file and its permissions")
    })?;
    loader.load(bytes, settings).await.map_err(|rejection: Rejection| rejection.to_string())
}

fn file_of(dir: &Path, name: &PluginName) -> PathBuf {
    dir.join(format!("{name}.wasm"))
}

fn name_of(path: &Path) -> Option<PluginName> {
    let is_component = path.extension().is_some_and(|extension| extension == "wasm");
    path.file_stem().filter(|_| is_component)?.to_str()?.parse().ok()
}

/// `the step `inventory``, from a key of it.
fn step_of(key: &str) -> String {
    let step = key.split('.').nth(3).unwrap_or(key);
    format!("the step `{step}`")
}
