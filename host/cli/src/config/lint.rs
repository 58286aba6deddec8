//! Looks at the plugins of a config's folder, as the host will when it starts, and at whether those
//! that its definitions need fit what they are given.
//!
//! Each is read, and checked, compiled and asked for its manifest where the host does that. Nothing is
//! written, and nothing is taken from the cache: it lies beside the config, and may be its author's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amends_engine::{Definition, Digest, InputSpec, PluginName, StepSpec};
use amends_plugins::{
    LoadedComponent, Loader, Misfit, PluginError, Priority, Rejection, Schema, call_memory_max,
    misfits, misnamed, read_component,
};

use crate::config::report::{Finding, Report, Severity};
use crate::config::suggest::{did_you_mean, list};
use crate::config::table::join;
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

/// Looks at every plugin that a definition needs, and at what else is in the folder. May be
/// cancelled.
///
/// # Errors
/// When the sandbox cannot be set up.
pub async fn lint(loaded: &Loaded) -> Result<Lint, PluginError> {
    let config = &loaded.config;
    // Compiled code that lies beside a config is its author's: whoever only looks at it runs none of it.
    let (keys, inspection) =
        (config.plugins.trusted_keys.clone(), config.plugins.inspection.clone());
    let sandbox = Loader::new(None, keys, inspection)?;
    let mut linter = Linter { loaded, findings: Vec::new() };
    let files = linter.list_files();
    let needs = needs(config);
    let mut components = BTreeMap::new();
    for (name, needs) in &needs {
        let Some(files) = &files else { break };
        if !files.contains(name) {
            linter.missing(name, needs, files);
            continue;
        }
        match load(&sandbox, config, name).await {
            Ok(component) => {
                linter.check_exports(name, needs, &component);
                components.insert((*name).clone(), component);
            }
            Err(message) => linter.refused(name, needs, &message),
        }
    }
    let files = files.unwrap_or_default();
    for name in files.iter().filter(|name| !needs.contains_key(name)) {
        if let Err(rejection) = load(&sandbox, config, name).await {
            linter.refused_unneeded(name, &rejection);
        }
    }
    for definition in &config.definitions {
        for step in definition.steps() {
            linter.check_schemas(definition, step, &components);
        }
    }
    linter.check_settings(&files);
    linter.check_memory();
    let report = loaded.warnings.clone().with(linter.findings);
    let plugins = components.into_iter().map(|(name, component)| (name, component.into()));
    Ok(Lint { report, plugins: plugins.collect() })
}

impl From<LoadedComponent> for LintedPlugin {
    fn from(component: LoadedComponent) -> Self {
        let LoadedComponent { digest, manifest, exports, .. } = component;
        Self { digest, version: manifest.version, exports: exports.words() }
    }
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

    fn warn(&mut self, key: &str, message: String, help: String) {
        self.add(Severity::Warning, key, message, help);
    }

    /// The plugins that have a file; none when the folder cannot be read.
    fn list_files(&mut self) -> Option<Vec<PluginName>> {
        let dir = &self.loaded.config.plugins.dir;
        let stems = std::fs::read_dir(dir).map(|entries| {
            let mut stems: Vec<String> =
                entries.filter_map(|entry| stem_of(&entry.ok()?.path())).collect();
            stems.sort();
            stems
        });
        match stems {
            Ok(stems) => {
                let names = stems.into_iter().filter_map(|stem| {
                    let name = stem.parse().ok();
                    if name.is_none() {
                        self.misnamed_file(&stem);
                    }
                    name
                });
                Some(names.collect())
            }
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

    fn refused(&mut self, name: &PluginName, needs: &Needs, rejection: &str) {
        let (message, help) = self.refusal(name, rejection);
        self.error(needs.first(), message, help);
    }

    /// The host would refuse it as well, and start.
    fn refused_unneeded(&mut self, name: &PluginName, rejection: &str) {
        let (message, help) = self.refusal(name, rejection);
        let message = format!("{message}; no step names it");
        self.add(Severity::Warning, "plugins.dir", message, help);
    }

    /// A rejection ends with its remedy.
    fn refusal(&self, name: &PluginName, rejection: &str) -> (String, String) {
        let (reason, help) = rejection.rsplit_once("; ").unwrap_or((rejection, "build it again"));
        let path = file_of(&self.loaded.config.plugins.dir, name);
        let message = format!("the plugin `{name}` cannot serve ({}): {reason}", path.display());
        (message, help.to_owned())
    }

    /// The host does not look at such a file.
    fn misnamed_file(&mut self, stem: &str) {
        let message = format!("`{stem}.wasm` is no plugin: `{stem}` is not a name");
        let help = format!(
            "rename it: 1 to {} of a-z, 0-9, `-` and `_`, beginning with a letter or digit",
            amends_engine::NAME_BYTES_MAX
        );
        self.add(Severity::Warning, "plugins.dir", message, help);
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
    }

    /// What a step gives to its plugin and to its undo.
    fn check_schemas(
        &mut self,
        definition: &Definition,
        step: &StepSpec,
        components: &BTreeMap<PluginName, LoadedComponent>,
    ) {
        let key = format!("saga.{}.step.{}", definition.name(), step.name);
        let Some(plugin) = step.plugin() else { return };
        let own = components.get(plugin);
        if let Some(own) = own {
            self.check_input(&key, step, plugin, Schema::new(&own.manifest.input_schema));
        }
        let Some(undo) = step.undo_plugin().filter(|undo| *undo != plugin) else { return };
        let (Some(own), Some(undoing)) = (own, components.get(undo)) else { return };
        let key = format!("{key}.undo");
        self.check_undo_input(&key, step, undo, Schema::new(&undoing.manifest.input_schema));
        let (made, read) = (&own.manifest.output_schema, &undoing.manifest.output_schema);
        for Misfit { is_certain, message: what } in misfits(Schema::new(made), Schema::new(read)) {
            let (severity, verb) = if is_certain {
                (Severity::Error, "cannot")
            } else {
                (Severity::Warning, "may not be able to")
            };
            let message =
                format!("the undo `{undo}` {verb} read the output of `{plugin}`: it {what}");
            let help = format!(
                "name an undo that reads what `{plugin}` answers, or change its type of the output"
            );
            self.add(severity, &key, message, help);
        }
    }

    /// An undo is given the input of its step.
    fn check_undo_input(
        &mut self,
        key: &str,
        step: &StepSpec,
        undo: &PluginName,
        schema: Schema<'_>,
    ) {
        let Some(names) = given(step) else { return };
        let missing: Vec<_> = schema.required().filter(|name| !names.contains(name)).collect();
        if !missing.is_empty() {
            let message = format!(
                "the undo `{undo}` needs {}, which the input of its step has not",
                list(missing)
            );
            let help = "an undo is given the input of its step: add it there";
            self.warn(key, message, help.to_owned());
        }
    }

    /// Warnings only: which component is behind a plugin may change while the config stays.
    fn check_input(&mut self, key: &str, step: &StepSpec, plugin: &PluginName, schema: Schema<'_>) {
        let key = format!("{key}.input");
        let Some(names) = given(step) else { return };
        let missing: Vec<_> = schema.required().filter(|name| !names.contains(name)).collect();
        if step.input.is_none() {
            let why = if !missing.is_empty() {
                format!("needs {}", list(missing.iter().copied()))
            } else if names.iter().any(|name| !schema.takes(name)) {
                format!("takes {} only", list(schema.names()))
            } else {
                return;
            };
            let whole: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            let message = format!(
                "the step `{}` has no input, so `{plugin}` is given {}, and it {why}",
                step.name,
                and(&whole)
            );
            let of_element = "write input = \"item\" when each element is what the plugin needs, \
                              else a table such as { drug = \"item.drug\" }";
            let help = "write input = \"input\" when the saga is given what the plugin needs, else a \
                        table such as { order_id = \"input.order_id\" }";
            let help = if step.each.is_some() { of_element } else { help };
            self.warn(&key, message, help.to_owned());
            return;
        }
        let from = if step.each.is_some() { "item" } else { "input" };
        for name in missing {
            let message = format!("`{name}` is missing, which the plugin `{plugin}` needs");
            let help = format!("add an expression, such as {name} = \"{from}.{name}\"");
            self.warn(&key, message, help);
        }
        for name in names.into_iter().filter(|name| !schema.takes(name)) {
            let help = did_you_mean(name, schema.names(), || {
                format!("leave it out; it takes {}", list(schema.names()))
            });
            let message = format!("the plugin `{plugin}` does not take `{name}`");
            self.warn(&join(&key, name), message, help);
        }
    }

    /// A call has what its plugin may have or the host can give, whichever is less.
    fn check_memory(&mut self) {
        let config = &self.loaded.config.plugins;
        let max = call_memory_max(config.memory_bytes_max);
        for (name, settings) in &config.plugins {
            if settings.memory_bytes_max > max {
                let message = format!(
                    "a call of `{name}` may have {} MiB, and gets {} MiB of the host's {} MiB at most",
                    settings.memory_bytes_max >> 20,
                    max >> 20,
                    config.memory_bytes_max >> 20
                );
                let help = "raise memory_max in [host] to five times as much, or write less here";
                self.warn(&format!("plugin.{name}.memory_max"), message, help.to_owned());
            }
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

/// The keys of a step's input: those of its table, or the two of an input that is not said. None
/// when one expression makes it: what that gives is not known.
fn given(step: &StepSpec) -> Option<Vec<&str>> {
    match &step.input {
        None if step.each.is_some() => Some(vec!["input", "steps", "item", "index"]),
        None => Some(vec!["input", "steps"]),
        Some(InputSpec::Fields(fields)) => Some(fields.keys().map(String::as_str).collect()),
        Some(InputSpec::Whole(_)) => None,
    }
}

/// `a`, `a and b`, `a, b and c`.
fn and(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

async fn load(
    loader: &Loader,
    config: &Config,
    name: &PluginName,
) -> Result<LoadedComponent, String> {
    let settings = Arc::new(config.plugins.plugins.get(name).cloned().unwrap_or_default());
    let wanted = settings.component.clone();
    let found = read_component(&config.plugins.dir, name).map_err(|error| error.to_string())?;
    let bytes = found.ok_or("it is no regular file; put the component itself there")?;
    let component = loader
        .load(bytes, settings, Priority::Awaited)
        .await
        .map_err(|rejection: Rejection| rejection.to_string())?;
    misnamed(name, wanted.as_deref(), None, &component.manifest.name)
        .map_or(Ok(component), |misnamed| Err(misnamed.to_string()))
}

fn file_of(dir: &Path, name: &PluginName) -> PathBuf {
    dir.join(format!("{name}.wasm"))
}

/// The name of a component's file without its ending.
fn stem_of(path: &Path) -> Option<String> {
    let is_component = path.extension().is_some_and(|extension| extension == "wasm");
    let stem = path.file_stem().filter(|_| is_component)?.to_string_lossy().into_owned();
    // Such are on their way to be something else.
    Some(stem).filter(|stem| !stem.starts_with('.'))
}

/// `the step `inventory``, from a key of it.
fn step_of(key: &str) -> String {
    let step = key.split('.').nth(3).unwrap_or(key);
    format!("the step `{step}`")
}
