//! Which component serves a call, and which may.

use amends_engine::{
    Chosen, Digest, Direction, Due, Order, Payload, PlannedUndo, PluginName, Refusal, Saga,
    StepName, StepStatus, Verb, steps_of,
};
use amends_plugins::{LoadedComponent, PluginHost};

use crate::clock::now;

/// Earlier components of a plugin that are tried for an undo: each that is not in memory is loaded.
const EARLIER_MAX: usize = 8;

/// Which component serves a call that is due: its digest, and why when it is not the active one.
/// None while the plugin has no component at all.
///
/// The one that an operator chose for the step comes first. Where a canary runs it is the active one
/// of its share of the sagas, but that an undo whose output it cannot read is served as if it were not
/// there. An undo is served by the active component when that can read the recorded output, else by the
/// one that executed the step, if that can undo, else by the latest of the plugin that can read it.
pub(crate) async fn component(
    plugins: &PluginHost,
    saga: &Saga,
    due: &Due,
    plugin: &PluginName,
) -> Option<(Digest, Option<String>)> {
    match due.direction {
        Direction::Execute => match chosen(saga, &due.step, due.direction) {
            Some(chosen) => Some(chosen),
            None => Some((plugins.serving(plugin, saga.id())?.0.digest, None)),
        },
        Direction::Compensate => {
            serve_undo(plugins, saga, (&due.step, plugin), due.executed_by).await
        }
    }
}

/// Which component would serve an undo that is planned, as for [`component`].
pub(crate) async fn undo_component(
    plugins: &PluginHost,
    saga: &Saga,
    undo: &PlannedUndo,
    plugin: &PluginName,
) -> Option<(Digest, Option<String>)> {
    serve_undo(plugins, saga, (&undo.step, plugin), undo.executed_by).await
}

async fn serve_undo(
    plugins: &PluginHost,
    saga: &Saga,
    (step, plugin): (&StepName, &PluginName),
    executed_by: Option<Digest>,
) -> Option<(Digest, Option<String>)> {
    if let Some(chosen) = chosen(saga, step, Direction::Compensate) {
        return Some(chosen);
    }
    if let Some((canary, true)) = plugins.serving(plugin, saga.id())
        && unfit(&canary, saga.step(step).and_then(|step| step.output), executed_by).await.is_none()
    {
        return Some((canary.digest, Some(format!("served by the canary of {plugin}"))));
    }
    let active = plugins.active(plugin)?;
    Some(serve_undo_as(plugins, saga, (step, plugin), executed_by, &active).await)
}

/// Which component would serve an undo, as for [`component`], if this one were the active one.
pub(crate) async fn serve_undo_as(
    plugins: &PluginHost,
    saga: &Saga,
    (step, plugin): (&StepName, &PluginName),
    executed_by: Option<Digest>,
    active: &LoadedComponent,
) -> (Digest, Option<String>) {
    let output = saga.step(step).and_then(|step| step.output);
    let Some(why) = unfit(active, output, executed_by).await else {
        return (active.digest, None);
    };
    if let Some(digest) = executed_by
        && digest != active.digest
        && let Some(owner) = owner(saga, step)
        && let Ok(executed_by) = plugins.by_digest(owner, digest).await
        && executed_by.exports.compensate
    {
        let note = format!(
            "served by the component that executed the step, because the active {} cannot: {why}",
            active.digest
        );
        return (digest, Some(note));
    }
    if let Some(output) = output
        && let Some(digest) = earlier(plugins, plugin, active.digest, output).await
    {
        let note = format!(
            "served by an earlier component of {plugin}, because the active {} cannot: {why}",
            active.digest
        );
        return (digest, Some(note));
    }
    (active.digest, None)
}

/// Why a component cannot undo a step that answered this. What it answered itself it reads.
async fn unfit(
    component: &LoadedComponent,
    output: Option<&Payload>,
    executed_by: Option<Digest>,
) -> Option<String> {
    match output {
        _ if !component.exports.compensate => Some("it exports no undo".to_owned()),
        Some(output) if executed_by != Some(component.digest) => {
            component.reads_output_aside(output).await.err()
        }
        Some(_) | None => None,
    }
}

/// The component that an operator chose for a call of a step, and in what words.
fn chosen(saga: &Saga, step: &StepName, direction: Direction) -> Option<(Digest, Option<String>)> {
    let chosen = saga.step(step)?.chosen.filter(|chosen| chosen.direction == direction)?;
    let Chosen { who, reason, .. } = chosen;
    Some((chosen.digest, Some(format!("served by the component that {who} chose: {reason}"))))
}

/// Whether an operator may have a component serve a step of a saga.
///
/// # Errors
/// When it serves or served no plugin of the step, cannot be loaded, or does not serve such calls.
pub(crate) async fn may_choose(
    plugins: &PluginHost,
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
        Ok(_) => Ok(()),
        Err(error) => refuse(error.to_string()),
    }
}

/// Whether what an operator says that a step gave is what its component may give.
///
/// # Errors
/// When it does not fit the component's output schema.
pub(crate) async fn may_resolve(
    plugins: &PluginHost,
    saga: &Saga,
    order: &Order,
) -> Result<(), Refusal> {
    let Verb::Resolve { happened: true, output: Some(output), .. } = &order.verb else {
        return Ok(());
    };
    // Whether the order itself fits is decided when its turn comes.
    for step in steps_of(saga, now(), order).unwrap_or_default() {
        let Some(view) = saga.step(&step) else { continue };
        let is_undo = matches!(view.status, StepStatus::UndoBlocked | StepStatus::UndoBackingOff);
        let Some(plugin) = view.spec.plugin().filter(|_| !is_undo) else { continue };
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

/// The latest component that served a plugin before and that can undo what gave this output.
async fn earlier(
    plugins: &PluginHost,
    plugin: &PluginName,
    active: Digest,
    output: &Payload,
) -> Option<Digest> {
    let mut tried = vec![active];
    for digest in plugins.info(plugin)?.history.iter().map(|one| one.digest) {
        if tried.contains(&digest) {
            continue;
        }
        if tried.len() > EARLIER_MAX {
            break;
        }
        tried.push(digest);
        if let Ok(component) = plugins.by_digest(plugin, digest).await
            && component.exports.compensate
            && component.reads_output_aside(output).await.is_ok()
        {
            return Some(digest);
        }
    }
    None
}

/// The plugin that executes a step.
pub(crate) fn owner<'s>(saga: &'s Saga, step: &StepName) -> Option<&'s PluginName> {
    saga.step(step)?.spec.plugin()
}
