//! Looks at the plugins of a config's folder, as the host will when it starts, and at whether those
//! that its definitions need fit what they are given.
//!
//! Each is read, and checked, compiled and asked for its manifest where the host does that. Nothing is
//! written, and nothing is taken from the cache: it lies beside the config, and may be its author's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::{
    Definition, DefinitionSpec, Digest, NamespaceName, PersonalMarks, PluginName, flaws,
    marked_places,
};
use amends_registry::{PluginError, misnamed, read_component, size};
use amends_runtime::EventEffect;
use amends_sandbox::{LoadedComponent, Loader, Priority, Rejection, call_memory_max};

use crate::definition::finding_of;
use crate::on::{UNSEALED_HELP, unsealed};
use crate::report::{Finding, Report, Severity};
use crate::suggest::{did_you_mean, list, nearest};
use crate::{Config, Loaded};

/// How long looking at a component may take before that is said.
const SILENT_MAX: Duration = Duration::from_secs(1);

/// What the lint found out.
#[derive(Debug)]
pub struct Lint {
    /// Warnings of the config, and what is wrong with its plugins.
    pub report: Report,
    /// The plugins that are sound, by name.
    pub plugins: BTreeMap<PluginName, LintedPlugin>,
    /// Those of the namespaces beside `default`.
    pub namespaces: BTreeMap<NamespaceName, BTreeMap<PluginName, LintedPlugin>>,
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

/// Looks at every plugin that a definition needs, and at what else is in the folder, in each namespace. `told` hears
/// of each that takes long, while it does. May be cancelled.
///
/// # Errors
/// When the sandbox cannot be set up.
pub async fn lint(loaded: &Loaded, told: &dyn Fn(&str)) -> Result<Lint, PluginError> {
    let (mut findings, plugins) = lint_one(loaded, told).await?;
    let mut namespaces = BTreeMap::new();
    for (name, namespace) in &loaded.namespaces {
        let (found, plugins) = lint_one(namespace, told).await?;
        let table = format!("namespace.{name}");
        let place = loaded.places.of(&table);
        findings.extend(found.into_iter().map(|mut finding| {
            finding.put_below(&table, place);
            finding
        }));
        namespaces.insert(name.clone(), plugins);
    }
    Ok(Lint { report: loaded.report.clone().with(findings), plugins, namespaces })
}

/// Looks at the plugins of one namespace. Returns what is wrong, with keys that count from its table.
async fn lint_one(
    loaded: &Loaded,
    told: &dyn Fn(&str),
) -> Result<(Vec<Finding>, BTreeMap<PluginName, LintedPlugin>), PluginError> {
    let config = &loaded.config;
    // Compiled code that lies beside a config is its author's: whoever only looks at it runs none of it.
    let (keys, inspection) =
        (config.plugins.trusted_keys.clone(), config.plugins.inspection.clone());
    let sandbox = Loader::new(None, keys, inspection)?;
    let mut linter = Linter { loaded, findings: Vec::new() };
    let files = linter.list_files();
    let needs = needs(&loaded.specs);
    let mut components = BTreeMap::new();
    for (name, needs) in &needs {
        let Some(files) = &files else { break };
        if !files.contains(name) {
            linter.missing(name, needs, files);
            continue;
        }
        match load(&sandbox, config, name, told).await {
            Ok(component) => {
                linter.check_exports(name, needs, &component);
                components.insert((*name).clone(), component);
            }
            // What follows from a mistake in its table is not worth telling.
            Err(_) if linter.is_mistaken(name) => {}
            Err(message) => linter.refused(name, needs, &message),
        }
    }
    // Nobody knows what the sagas need that could not be read.
    let is_read = loaded.report.errors() == 0;
    let files = files.unwrap_or_default();
    for name in files.iter().filter(|name| is_read && !needs.contains_key(name)) {
        if let Err(rejection) = load(&sandbox, config, name, told).await {
            linter.refused_unneeded(name, &rejection);
        }
    }
    for definition in &config.definitions {
        linter.check_fit(definition, &components);
    }
    if is_read {
        linter.check_settings(&files);
    }
    linter.check_memory();
    let findings = linter.findings;
    let plugins = components.into_iter().map(|(name, component)| (name, component.into()));
    Ok((findings, plugins.collect()))
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

/// The plugins that the definitions need, of those as well that have mistakes.
fn needs(specs: &[DefinitionSpec]) -> BTreeMap<&PluginName, Needs> {
    let mut plugins: BTreeMap<&PluginName, Needs> = BTreeMap::new();
    for spec in specs {
        for step in &spec.steps {
            let key = format!("saga.{}.step.{}", spec.name, step.name);
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

    /// Whether something is wrong in the plugin's own table, or in what counts for all plugins.
    fn is_mistaken(&self, name: &PluginName) -> bool {
        let (table, within) = (format!("plugin.{name}"), format!("plugin.{name}."));
        self.loaded.report.findings().iter().any(|finding| {
            let key = finding.key.as_str();
            let is_of_it = key == table || key.starts_with(&within) || key.starts_with("plugins.");
            is_of_it && finding.severity == Severity::Error
        })
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

    /// Whether what the definitions say fits the schemas of the plugins.
    fn check_fit(
        &mut self,
        definition: &Definition,
        components: &BTreeMap<PluginName, LoadedComponent>,
    ) {
        let schemas =
            |name: &PluginName| components.get(name).map(|component| component.manifest.schemas());
        for flaw in flaws(definition, &schemas) {
            self.findings.push(finding_of(definition, flaw, &self.loaded.places));
        }
        self.check_rules(definition, components);
    }

    /// Whether rules tell in tags or keys what a component marks as personal.
    fn check_rules(
        &mut self,
        definition: &Definition,
        components: &BTreeMap<PluginName, LoadedComponent>,
    ) {
        let mut places = Vec::new();
        for step in definition.steps() {
            let names = step.plugin().into_iter().chain(step.undo_plugin());
            for component in names.filter_map(|name| components.get(name)) {
                let marks = PersonalMarks::of(&component.manifest.schemas());
                places.extend(marked_places(definition, step, &marks));
            }
        }
        let places: Vec<_> = places.iter().map(ToString::to_string).collect();
        for rule in &self.loaded.config.event_rules {
            let EventEffect::Start(start) = &rule.effect else { continue };
            if start.definition != *definition.name() {
                continue;
            }
            for (key, message) in unsealed(start, &places) {
                self.error(&format!("on.{}.{key}", rule.name), message, UNSEALED_HELP.to_owned());
            }
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
        let needed = needs(&self.loaded.specs);
        for name in config.plugins.plugins.keys() {
            if files.contains(name) || needed.contains_key(name) {
                continue;
            }
            let near = nearest(name.as_str(), files.iter().map(PluginName::as_str));
            let near = near.map(|near| format!("did you mean `{near}`? Else ")).unwrap_or_default();
            // Without what it grants, sagas in flight could not be undone.
            let help = format!(
                "{near}keep it while sagas are in flight that ran it, because their undos need what it \
                 grants (`amends list` shows them), and remove it when there are none"
            );
            let message =
                format!("no step of this config uses the plugin `{name}`, and it has no file");
            self.add(Severity::Warning, &format!("plugin.{name}"), message, help);
        }
    }
}

async fn load(
    loader: &Loader,
    config: &Config,
    name: &PluginName,
    told: &dyn Fn(&str),
) -> Result<LoadedComponent, String> {
    let settings = Arc::new(config.plugins.plugins.get(name).cloned().unwrap_or_default());
    let wanted = settings.component.clone();
    let found = read_component(&config.plugins.dir, name).map_err(|error| error.to_string())?;
    let bytes = found.ok_or("it is no regular file; put the component itself there")?;
    let compiling = format!("compiling {name} ({})", size(bytes.len()));
    let mut loading = pin!(loader.load(bytes, settings, Priority::Awaited));
    let component = if let Ok(done) = tokio::time::timeout(SILENT_MAX, loading.as_mut()).await {
        done
    } else {
        told(&compiling);
        loading.await
    };
    let component = component.map_err(|rejection: Rejection| rejection.to_string())?;
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
