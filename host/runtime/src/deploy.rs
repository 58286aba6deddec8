//! Deploys: what a component that is to become active would change, and its activation.

mod fit;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::pin::Pin;

use amends_engine::{
    Definition, DefinitionName, Digest, Misfit, PluginName, Saga, SagaId, Schema, StepName,
    misfits, undo_plan,
};
use amends_registry::{
    ActivationCause, ActivationReason, CanarySpec, Candidate, Guard, PluginError,
};
use amends_sandbox::{LoadedComponent, Rejection};
use amends_store::StoreError;

pub use fit::FoundFlaw;

use crate::action::{Action, authorize};
use crate::deploy::fit::Ahead;
use crate::host::{Host, WeakHost};
use crate::principal::{Principal, Via};

/// Recorded outputs that cannot be read and are named one by one; all of them are counted.
const UNREADABLE_NAMED_MAX: usize = 100;

/// Of those, how many a refusal names.
const EXAMPLES_MAX: usize = 5;

/// What a component would change for definitions and for sagas in flight.
#[derive(Debug, Clone, Default)]
pub struct Impact {
    /// Definitions with a step that the plugin executes or undoes: those in force, and those that
    /// sagas in flight are pinned to.
    pub definitions: BTreeSet<DefinitionName>,
    /// How many sagas in flight have these definitions.
    pub sagas: usize,
    /// Steps of sagas in flight that a compensation would have undone by it, as they stand now.
    pub to_undo: usize,
    /// Of those, what it cannot read; at most [`UNREADABLE_NAMED_MAX`].
    pub unreadable: Vec<Unreadable>,
    /// How many steps there are whose output it cannot read.
    pub unreadable_total: usize,
    /// Where the outputs of the component that serves now do not fit its schema.
    pub misfits: Vec<Misfit>,
    /// What in the definitions does not fit it, or may not; as `amends check` says of a config.
    pub flaws: Vec<FoundFlaw>,
}

/// A recorded output that a component cannot read.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// The saga.
    pub saga: SagaId,
    /// Its step.
    pub step: StepName,
    /// Why the component cannot read it.
    pub why: String,
    /// The component that executed the step, and that would undo it.
    pub executed_by: Option<Digest>,
}

/// The components of a deploy, and how to deploy them.
#[derive(Debug)]
pub struct DeployRequest {
    /// The bytes, by plugin.
    pub components: Vec<(PluginName, Vec<u8>)>,
    /// The reason, which is kept with the activation.
    pub reason: Option<String>,
    /// Also when sagas in flight have recorded what they cannot read, or definitions do not fit them.
    pub is_forced: bool,
    /// Only says what it would change.
    pub is_dry_run: bool,
    /// Serves a share of the sagas at first; then there is one component.
    pub canary: Option<CanarySpec>,
}

/// One component of a deploy.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The plugin.
    pub plugin: PluginName,
    /// The component.
    pub digest: Digest,
    /// Its version.
    pub version: String,
    /// The component that served before, if one did.
    pub previous: Option<Digest>,
    /// What the component changes for definitions and sagas.
    pub impact: Impact,
    /// Of a dry run: why it would be refused.
    pub refusal: Option<String>,
}

/// Says why nothing was deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A component is refused. Its author, or the caller by forcing it.
    #[error("plugin {plugin}: {rejection}")]
    Rejected {
        /// The plugin.
        plugin: PluginName,
        /// Why.
        rejection: Rejection,
    },
    /// It is most likely not what is meant. The caller, by another name or by forcing it.
    #[error("plugin {plugin}: {message}")]
    Doubtful {
        /// The plugin.
        plugin: PluginName,
        /// Why.
        message: String,
    },
    /// The store failed. Operator.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

fn uses(definition: &Definition, plugin: &PluginName) -> bool {
    let steps = definition.steps().iter();
    steps
        .into_iter()
        .any(|step| step.plugin() == Some(plugin) || step.undo_plugin() == Some(plugin))
}

impl Host {
    /// What a component would change if it became active for a plugin now, together with `others`.
    ///
    /// # Errors
    /// When the store fails: then it is not known what sagas in flight have recorded.
    async fn impact(
        &self,
        plugin: &PluginName,
        component: &LoadedComponent,
        others: &[Candidate],
    ) -> Result<Impact, StoreError> {
        let mut impact = Impact::default();
        let active = self.registry().active(plugin);
        if let Some(active) = active.filter(|active| active.digest != component.digest) {
            let made = Schema::new(&active.manifest.output_schema);
            impact.misfits = misfits(made, Schema::new(&component.manifest.output_schema));
        }
        let in_force = self.definitions().filter(|definition| uses(definition, plugin));
        let in_force: Vec<_> = in_force.cloned().collect();
        impact.definitions = in_force.iter().map(|definition| definition.name().clone()).collect();
        let mut ahead = Ahead::new(in_force);
        let mut live = self.live_pages();
        while let Some(page) = live.next(|definition| uses(definition, plugin)).await? {
            for (number, loaded) in page.iter().enumerate() {
                ahead.add(&loaded.saga);
                impact.add(&loaded.saga, plugin, component).await;
                // There may be very many of them, and others want this thread.
                if number % 256 == 255 {
                    tokio::task::yield_now().await;
                }
            }
        }
        impact.flaws = self.find_flaws(plugin, component, others, &ahead).await;
        Ok(impact)
    }

    /// Has components serve, all or none, as one event; the answer is what that changes.
    ///
    /// # Errors
    /// When one of them cannot serve; or cannot read what sagas in flight have recorded, or does not fit
    /// the definitions, and that is not forced; nothing is changed then, and the history of a plugin that is known has the refusal.
    pub async fn deploy(
        &self,
        principal: &Principal,
        request: DeployRequest,
    ) -> Result<Vec<Deployed>, DeployError> {
        let DeployRequest { components, reason, is_forced, is_dry_run, canary } = request;
        let plugins = components.iter().map(|(plugin, _)| plugin).collect();
        authorize(principal, &Action::Deploy { plugins, is_dry_run });
        let (mut candidates, mut deployed) = (Vec::new(), Vec::new());
        for (plugin, bytes) in components {
            let digest = Digest::of(&bytes);
            match self.registry().candidate(&plugin, bytes).await {
                Ok(candidate) => candidates.push(candidate),
                Err(rejection) if is_dry_run => {
                    return Err(DeployError::Rejected { plugin, rejection });
                }
                Err(rejection) => return Err(self.refuse(plugin, digest, rejection).await?),
            }
        }
        let _turn = self.registry().turn().await;
        for Candidate { plugin, component, .. } in &candidates {
            let impact = self.impact(plugin, component, &candidates).await;
            let impact = impact.map_err(PluginError::Store)?;
            if let Some(message) = self.doubt(plugin, component, &impact)
                && !is_forced
            {
                return Err(DeployError::Doubtful { plugin: plugin.clone(), message });
            }
            let rejection = impact.rejection().filter(|_| !is_forced);
            let refusal = rejection.as_ref().map(ToString::to_string);
            if let Some(rejection) = rejection.filter(|_| !is_dry_run) {
                return Err(self.refuse(plugin.clone(), component.digest, rejection).await?);
            }
            deployed.push(Deployed {
                plugin: plugin.clone(),
                digest: component.digest,
                version: component.manifest.version.clone(),
                previous: self.registry().active(plugin).map(|active| active.digest),
                impact,
                refusal,
            });
        }
        if !is_dry_run {
            let forced = deployed.iter().any(|one| one.impact.rejection().is_some());
            let who = Some(principal.subject.clone());
            let why = ActivationReason { cause: ActivationCause::Deploy, who, reason, forced };
            match canary {
                None => self.registry().activate(candidates, why).await?,
                Some(spec) => {
                    for candidate in candidates {
                        self.registry().start_canary(candidate, spec, why.clone()).await?;
                    }
                }
            }
        }
        Ok(deployed)
    }

    /// Why a deploy is most likely a slip.
    fn doubt(
        &self,
        plugin: &PluginName,
        component: &LoadedComponent,
        impact: &Impact,
    ) -> Option<String> {
        if self.registry().info(plugin).is_none() && impact.definitions.is_empty() {
            let names: Vec<_> = self.registry().list().into_iter().map(|one| one.name).collect();
            let names = names.iter().map(PluginName::as_str).collect::<Vec<_>>().join(", ");
            let message =
                format!("there is no such plugin, and no definition uses it; there are {names}");
            return Some(message);
        }
        self.registry().misnamed(plugin, component).map(|misnamed| misnamed.to_string())
    }

    async fn refuse(
        &self,
        plugin: PluginName,
        digest: Digest,
        rejection: Rejection,
    ) -> Result<DeployError, PluginError> {
        // A name that nobody knows is more likely a slip than a plugin.
        if self.registry().info(&plugin).is_some() {
            self.registry().reject(&plugin, Some(digest), &rejection).await?;
        }
        Ok(DeployError::Rejected { plugin, rejection })
    }
}

impl Impact {
    async fn add(&mut self, saga: &Saga, plugin: &PluginName, component: &LoadedComponent) {
        self.definitions.insert(saga.definition().name().clone());
        self.sagas += 1;
        for undo in undo_plan(saga) {
            if undo.plugin.as_ref() != Some(plugin) {
                continue;
            }
            self.to_undo += 1;
            let Some(output) = &undo.output else { continue };
            let Err(why) = component.reads_output_aside(output).await else { continue };
            self.unreadable_total += 1;
            if self.unreadable.len() < UNREADABLE_NAMED_MAX {
                let (saga, step, executed_by) = (saga.id(), undo.step, undo.executed_by);
                self.unreadable.push(Unreadable { saga, step, why, executed_by });
            }
        }
    }

    /// None when it reads all that is recorded, and the definitions fit it.
    fn rejection(&self) -> Option<Rejection> {
        self.unreadable_rejection().or_else(|| fit::rejection(&self.flaws))
    }

    fn unreadable_rejection(&self) -> Option<Rejection> {
        let steps = self.unreadable_total;
        let mut examples = String::new();
        for Unreadable { saga, step, why, .. } in self.unreadable.iter().take(EXAMPLES_MAX) {
            let separator = if examples.is_empty() { "" } else { "; " };
            let _ = write!(examples, "{separator}{step} of {saga}: {why}");
        }
        if steps > EXAMPLES_MAX {
            examples += "; and others";
        }
        (steps > 0).then_some(Rejection::Unreadable { steps, examples })
    }
}

/// What is dropped into the folder is held against sagas in flight and definitions like what is
/// deployed.
impl Guard for WeakHost {
    fn objection<'a>(
        &'a self,
        plugin: &'a PluginName,
        component: &'a LoadedComponent,
        cause: ActivationCause,
    ) -> Pin<Box<dyn Future<Output = Option<Rejection>> + Send + 'a>> {
        Box::pin(async move {
            let host = self.host()?;
            // What operators ask for was authorized where they asked.
            if cause == ActivationCause::File {
                let folder = Principal::local("plugin folder", Via::Folder);
                let action = Action::Deploy { plugins: vec![plugin], is_dry_run: false };
                authorize(&folder, &action);
            }
            match host.impact(plugin, component, &[]).await {
                Ok(impact) => impact.rejection(),
                Err(error) => {
                    Some(Rejection::Failed(format!("sagas in flight cannot be read: {error}")))
                }
            }
        })
    }
}
