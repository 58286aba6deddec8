//! Which component serves a call, and which may.

use amends_engine::{
    Chosen, Digest, Direction, Due, Order, Payload, PlannedUndo, PluginName, Refusal, Saga, SagaId,
    StepName, StepStatus, Verb, steps_of,
};
use amends_registry::{Registry, now};
use amends_sandbox::LoadedComponent;

use crate::saga_state::SagaState;

/// Earlier components of a plugin that are tried for an undo: each that is not in memory is loaded.
const EARLIER_MAX: usize = 8;

/// The component that serves a call: its digest, and why when it is not the active one.
pub(crate) type Served = (Digest, Option<String>);

/// Which component serves a call that is due, as far as that can be said at once.
pub(crate) enum Serving {
    /// This component serves the call.
    Known(Served),
    /// None: the plugin has no component at all yet.
    Nobody,
    /// An undo whose recorded output has to be held against a schema, and for which another component
    /// may have to be loaded: [`Undo::served`] says it, after seconds if need be.
    Unclear(Basis),
}

/// What the choice of a component for an undo rests on: it is made anew when that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Basis {
    /// The canary for its share of the sagas, else the active component.
    serving: Digest,
    active: Option<Digest>,
    executed_by: Option<Digest>,
}

/// Which component serves a call that is due, without waiting for anything.
///
/// The one that an operator chose for the step comes first. A canary replaces the active component for
/// its share of the sagas. Exception: an undo whose recorded output the canary cannot read is served as
/// if there were no canary. An undo is served by the active component when that can read the recorded
/// output, else by the one that executed the step, if that can undo, else by the latest of the plugin
/// that can read it.
pub(crate) fn serving(plugins: &Registry, saga: &Saga, due: &Due, plugin: &PluginName) -> Serving {
    if let Some(chosen) = chosen(saga, &due.step, due.direction) {
        return Serving::Known(chosen);
    }
    let Some((component, is_canary)) = plugins.serving(plugin, saga.id()) else {
        return Serving::Nobody;
    };
    let output = || saga.step(&due.step).and_then(|step| step.output);
    match due.direction {
        Direction::Execute => Serving::Known((component.digest, None)),
        Direction::Compensate if is_fit_at_once(&component, output(), due.executed_by) => {
            Serving::Known((component.digest, is_canary.then(|| by_canary(plugin))))
        }
        Direction::Compensate => Serving::Unclear(Basis {
            serving: component.digest,
            active: plugins.active(plugin).map(|active| active.digest),
            executed_by: due.executed_by,
        }),
    }
}

fn by_canary(plugin: &PluginName) -> String {
    format!("served by the canary of {plugin}")
}

/// Which component would serve an undo that is planned, as for [`serving`]. None while the plugin has no
/// component at all.
pub(crate) async fn undo_component(
    plugins: &Registry,
    saga: &Saga,
    undo: &PlannedUndo,
    plugin: &PluginName,
) -> Option<Served> {
    match chosen(saga, &undo.step, Direction::Compensate) {
        Some(chosen) => Some(chosen),
        None => Undo::of(saga, &undo.step, plugin, undo.executed_by).served(plugins).await,
    }
}

/// An undo for which no operator has chosen a component. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Undo {
    saga: SagaId,
    plugin: PluginName,
    /// The plugin that executed the step.
    owner: Option<PluginName>,
    executed_by: Option<Digest>,
    output: Option<Payload>,
}

impl Undo {
    pub(crate) fn of(
        saga: &Saga,
        step: &StepName,
        plugin: &PluginName,
        executed_by: Option<Digest>,
    ) -> Self {
        Self {
            saga: saga.id(),
            plugin: plugin.clone(),
            owner: owner(saga, step).cloned(),
            executed_by,
            output: saga.step(step).and_then(|step| step.output).cloned(),
        }
    }

    pub(crate) const fn saga(&self) -> SagaId {
        self.saga
    }

    /// Which component serves it, as for [`serving`]. None while the host cannot tell. May take seconds,
    /// and be dropped at any time.
    pub(crate) async fn served(&self, plugins: &Registry) -> Option<Served> {
        if let Some((canary, true)) = plugins.serving(&self.plugin, self.saga)
            && self.unfit(&canary).await.is_none()
        {
            return Some((canary.digest, Some(by_canary(&self.plugin))));
        }
        let active = plugins.active(&self.plugin)?;
        self.served_with(plugins, &active).await
    }

    /// Which component would serve it if this one were the active one and there were no canary. None
    /// while the host cannot tell, because it cannot load one that may have to.
    pub(crate) async fn served_with(
        &self,
        plugins: &Registry,
        active: &LoadedComponent,
    ) -> Option<Served> {
        let Some(why) = self.unfit(active).await else { return Some((active.digest, None)) };
        if let Some(digest) = self.executed_by
            && digest != active.digest
            && let Some(owner) = &self.owner
            && undoes(plugins, owner, digest, None).await?
        {
            let note = format!(
                "served by the component that executed the step, because the active {} cannot: \
                 {why}",
                active.digest
            );
            return Some((digest, Some(note)));
        }
        if let Some(output) = &self.output
            && let Some(digest) = earlier(plugins, &self.plugin, active.digest, output).await?
        {
            let plugin = &self.plugin;
            let note = format!(
                "served by an earlier component of {plugin}, because the active {} cannot: {why}",
                active.digest
            );
            return Some((digest, Some(note)));
        }
        Some((active.digest, None))
    }

    /// Why a component cannot undo the step. What it answered itself it reads.
    async fn unfit(&self, component: &LoadedComponent) -> Option<String> {
        match &self.output {
            _ if !component.exports.compensate => Some("it exports no undo".to_owned()),
            Some(output) if self.executed_by != Some(component.digest) => {
                component.reads_output_aside(output).await.err()
            }
            Some(_) | None => None,
        }
    }
}

/// Whether a component certainly can undo a step that answered this.
fn is_fit_at_once(
    component: &LoadedComponent,
    output: Option<&Payload>,
    executed_by: Option<Digest>,
) -> bool {
    let is_read = output.is_none() || executed_by == Some(component.digest);
    component.exports.compensate && is_read
}

/// The component that an operator chose for a call of a step, and in what words.
fn chosen(saga: &Saga, step: &StepName, direction: Direction) -> Option<Served> {
    let chosen = saga.step(step)?.chosen.filter(|chosen| chosen.direction == direction)?;
    let Chosen { who, reason, .. } = chosen;
    Some((chosen.digest, Some(format!("served by the component that {who} chose: {reason}"))))
}

/// Whether an operator may have a component serve a step of a saga.
///
/// # Errors
/// When it serves or served no plugin of the step, cannot be loaded, or does not serve such calls.
pub(crate) async fn may_choose(
    plugins: &Registry,
    saga: &Saga,
    step: &StepName,
    digest: Digest,
) -> Result<(), Refusal> {
    // What is wrong with the step itself, the saga says.
    let Some(view) = saga.step(step) else { return Ok(()) };
    let is_undo = matches!(view.status, StepStatus::UndoBlocked | StepStatus::UndoBackingOff);
    let undoes = view.spec.undo_plugin().filter(|_| is_undo);
    let names: Vec<_> = [undoes, view.spec.plugin()].into_iter().flatten().collect();
    let refuse = |message: String| {
        let name = names.first().map(|name| name.as_str()).unwrap_or_default();
        let remedy = format!("amends plugin versions {name} lists the components that served it");
        Err(Refusal { message, remedy })
    };
    let Some(name) = names.iter().find(|name| plugins.has_served(name, digest)) else {
        return refuse(format!("{digest} never served a plugin of the step `{step}`"));
    };
    match plugins.by_digest(name, digest).await {
        Ok(found) if is_undo && !found.exports.compensate => {
            refuse(format!("{digest} exports no undo"))
        }
        Ok(found) if !is_undo && !found.exports.execute => {
            refuse(format!("{digest} exports no action"))
        }
        Ok(_) => match plugins.keep(digest, now()).await {
            Ok(true) => Ok(()),
            Ok(false) => refuse(format!("{digest} is not in the store any more")),
            Err(error) => refuse(error.to_string()),
        },
        Err(error) => refuse(error.to_string()),
    }
}

/// Whether what an operator says that a step gave is what its component may give.
///
/// # Errors
/// When it does not fit the component's output schema.
pub(crate) async fn may_resolve(
    plugins: &Registry,
    state: &SagaState,
    order: &Order,
) -> Result<(), Refusal> {
    let Verb::Resolve { happened: true, output: Some(output), .. } = &order.verb else {
        return Ok(());
    };
    // Whether the order itself fits is decided when its turn comes.
    let saga = &state.saga;
    for step in steps_of(saga, state.now, order).unwrap_or_default() {
        let Some(view) = saga.step(&step) else { continue };
        let Some(plugin) = view.spec.plugin() else { continue };
        let component = match view.digest {
            Some(digest) => plugins.by_digest(plugin, digest).await.ok(),
            None => plugins.active(plugin),
        };
        // One that cannot be loaded says nothing of what it gives.
        let Some(component) = component else { continue };
        component.reads_output_aside(output).await.map_err(|why| Refusal {
            message: format!(
                "the result does not fit the output schema of {plugin} ({}), which executes {step}: \
                 {why}",
                component.digest
            ),
            remedy: "give the output that the step would have given, or none when nobody knows it"
                .to_owned(),
        })?;
    }
    Ok(())
}

/// Whether the component of a step takes the input that an operator gives it. An undo takes any: what it
/// cannot read it says itself.
///
/// # Errors
/// When the input does not fit the component's input schema: its call would be refused at once.
pub(crate) async fn may_edit(
    plugins: &Registry,
    state: &SagaState,
    order: &Order,
) -> Result<(), Refusal> {
    let Verb::Retry { input: Some(input), digest, .. } = &order.verb else { return Ok(()) };
    // Whether the order itself fits is decided when its turn comes.
    let saga = &state.saga;
    for step in steps_of(saga, state.now, order).unwrap_or_default() {
        let Some(view) = saga.step(&step) else { continue };
        let is_undo = matches!(view.status, StepStatus::UndoBlocked | StepStatus::UndoBackingOff);
        // Of a step over a list it is the list, and each element makes its own of it.
        let is_list = view.spec.each.is_some() && step.number().is_none();
        let Some(plugin) = view.spec.plugin().filter(|_| !is_undo && !is_list) else { continue };
        let component = match digest {
            Some(digest) => plugins.by_digest(plugin, *digest).await.ok(),
            None => plugins.serving(plugin, saga.id()).map(|(component, _)| component),
        };
        // One that cannot be loaded says nothing of what it takes.
        let Some(component) = component else { continue };
        component.would_take_input(input).await.map_err(|why| Refusal {
            message: format!(
                "the input does not fit the input schema of {plugin} ({}), which executes {step}: {why}",
                component.digest
            ),
            remedy: format!(
                "give an input that fits; `amends plugin versions {plugin}` lists the components, and \
                 --digest has another one serve the step"
            ),
        })?;
    }
    Ok(())
}

/// Whether a component can undo what gave this output, or anything. None while it cannot be loaded for
/// a reason that passes.
async fn undoes(
    plugins: &Registry,
    plugin: &PluginName,
    digest: Digest,
    output: Option<&Payload>,
) -> Option<bool> {
    match plugins.by_digest(plugin, digest).await {
        Ok(component) if !component.exports.compensate => Some(false),
        Ok(component) => match output {
            Some(output) => Some(component.reads_output_aside(output).await.is_ok()),
            None => Some(true),
        },
        Err(error) if error.is_passing() => {
            // Twice a second for each saga; `why` says what it waits for.
            tracing::debug!(%plugin, %digest, %error, "an undo waits for a component");
            None
        }
        Err(_) => Some(false),
    }
}

/// The latest component that served a plugin before and that can undo what gave this output. The outer
/// none: as for [`undoes`].
async fn earlier(
    plugins: &Registry,
    plugin: &PluginName,
    active: Digest,
    output: &Payload,
) -> Option<Option<Digest>> {
    let mut tried = vec![active];
    let history = plugins.info(plugin).map(|info| info.history).unwrap_or_default();
    for digest in history.iter().map(|one| one.digest) {
        if tried.contains(&digest) {
            continue;
        }
        if tried.len() > EARLIER_MAX {
            break;
        }
        tried.push(digest);
        if undoes(plugins, plugin, digest, Some(output)).await? {
            return Some(Some(digest));
        }
    }
    Some(None)
}

/// The plugin that executes a step.
pub(crate) fn owner<'s>(saga: &'s Saga, step: &StepName) -> Option<&'s PluginName> {
    saga.step(step)?.spec.plugin()
}
