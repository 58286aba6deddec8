//! `amends plugin test`: calls a component the way that a host does when things go wrong, and says
//! whether it keeps to what a host counts on.
//!
//! The calls are real ones, over a store of their own that goes with the process: what a call
//! writes of its state is there for the next.

mod checks;
mod said;
mod trial;

use std::cell::Cell;
use std::path::PathBuf;

use amends_engine::{Digest, Payload, PluginName};
use amends_sandbox::{AllowHost, PluginSettings};
use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::Value;

use super::component;

pub use checks::{Check, Verdict};

use said::Said;
use trial::Trial;

/// Which component is tested, and with what.
#[derive(Debug, Clone)]
pub struct TestOptions {
    /// The component: a file, or `oci://REGISTRY/REPOSITORY@sha256:…`.
    pub file: PathBuf,
    /// The component of its undo, where that is another one.
    pub undo: Option<PathBuf>,
    /// Inputs to call it with, beside the `examples` of its input schema.
    pub inputs: Vec<Payload>,
    /// A config that says what is granted, instead of state and events.
    pub config: Option<PathBuf>,
    /// The plugin in the config, where that is not the one in the manifest.
    pub name: Option<PluginName>,
    /// Services to which requests are granted, without a config.
    pub allow_hosts: Vec<AllowHost>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct TestReport {
    /// The component, as it was named.
    pub(crate) file: String,
    /// The name in its manifest.
    pub name: String,
    /// The version in its manifest.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// Whether no check failed.
    pub ok: bool,
    /// The checks, in the order in which they were made.
    pub checks: Vec<Check>,
}

/// Tests a component. What components of this process log goes to the checks from now on.
///
/// # Errors
/// When nothing could be tested. A check that fails is in the report, and is no error.
pub async fn run(options: TestOptions) -> anyhow::Result<TestReport> {
    let file = options.file.display();
    let bytes = component::bytes_of(&options.file).await?;
    let undo = match &options.undo {
        Some(undo) => Some(component::bytes_of(undo).await?),
        None => None,
    };
    let said = Said::listen();
    let is_first = Cell::new(true);
    let trial = Trial::open(bytes, undo, |name| {
        // The undo has the name of its manifest.
        let other = options.name.as_ref().filter(|_| is_first.take());
        granted(&options, other.unwrap_or(name))
    })
    .await
    .with_context(|| format!("{file} cannot be tested"))?;
    let manifest = &trial.component().manifest;
    let inputs = inputs(&manifest.input_schema, &options.inputs)?;
    let checks = checks::run(&trial, &inputs, &said).await?;
    let report = TestReport {
        file: file.to_string(),
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        digest: trial.component().digest,
        ok: !checks.iter().any(|check| matches!(check.verdict, Verdict::Failed(_))),
        checks,
    };
    trial.close().await?;
    Ok(report)
}

/// What a config grants the plugin; without one its state and events, and the services that are named.
fn granted(options: &TestOptions, name: &PluginName) -> anyhow::Result<PluginSettings> {
    let Some(path) = &options.config else {
        let allow_hosts = options.allow_hosts.iter().cloned().collect();
        let granted = PluginSettings { state: true, events: true, ..PluginSettings::default() };
        return Ok(PluginSettings { allow_hosts, ..granted });
    };
    component::granted(path, name)
}

fn inputs(schema: &Value, given: &[Payload]) -> anyhow::Result<Vec<Payload>> {
    let mut inputs = Vec::new();
    for example in schema["examples"].as_array().into_iter().flatten() {
        inputs.push(Payload::parse(&example.to_string()).context("an input cannot be used")?);
    }
    inputs.extend_from_slice(given);
    if inputs.is_empty() {
        bail!(
            "there is nothing to call it with: put `examples` into the input schema of its \
             manifest, or give an input with --input JSON|FILE"
        );
    }
    Ok(inputs)
}
