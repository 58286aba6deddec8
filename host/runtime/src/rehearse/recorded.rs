//! What there is to rehearse on: steps that a plugin undoes, in real sagas.

use std::collections::BTreeSet;

use amends_engine::{
    Definition, DefinitionName, PluginName, Saga, SagaId, SagaStatus, StepName, StepStatus,
    StepView, Timestamp,
};
use amends_store::SagaQuery;

use crate::error::RuntimeError;
use crate::host::Host;

/// Steps of one saga: the elements of a list are much alike, and a thousand of one saga say less
/// than those of a hundred.
const STEPS_OF_ONE_SAGA_MAX: usize = 10;

/// Ended sagas that are read at once.
const ENDED_PER_READ: u32 = 500;

/// Ended sagas of one definition that are looked at: where a step is rarely reached the last one may
/// be far back, and somebody waits.
const ENDED_SAGAS_MAX: usize = 5_000;

/// A saga, and steps of it that the plugin undoes.
pub(super) struct Recorded {
    pub(super) saga: Saga,
    pub(super) steps: Vec<StepName>,
}

/// Sagas in flight, then those that ended last; of both the latest first. Of those that have ended,
/// whose definitions are in force.
pub(super) async fn find(
    host: &Host,
    plugin: &PluginName,
    sagas_max: usize,
) -> Result<Vec<Recorded>, RuntimeError> {
    let mut live = host.live_pages();
    let mut found = Vec::new();
    while let Some(page) = live.next(|definition| is_undone_by(definition, plugin)).await? {
        found.extend(page.into_iter().filter_map(|loaded| recorded(loaded.saga, plugin)));
        // No more of them is kept than may be told.
        found = latest(found, sagas_max, |one| one.saga.started_at());
    }
    // One may have ended between the two looks.
    let known: BTreeSet<SagaId> = found.iter().map(|one| one.saga.id()).collect();
    let room = sagas_max - found.len();
    let mut ended = Vec::new();
    let in_force = host.definitions();
    for definition in in_force.filter(|definition| is_undone_by(definition, plugin)) {
        ended.extend(find_ended(host, plugin, definition.name(), &known, room).await?);
    }
    found.extend(latest(ended, room, |one| one.saga.ended_at().unwrap_or_default()));
    Ok(found)
}

fn latest(
    mut found: Vec<Recorded>,
    max: usize,
    when: impl Fn(&Recorded) -> Timestamp,
) -> Vec<Recorded> {
    found.sort_by_key(|one| std::cmp::Reverse((when(one), one.saga.id())));
    found.truncate(max);
    found
}

async fn find_ended(
    host: &Host,
    plugin: &PluginName,
    definition: &DefinitionName,
    known: &BTreeSet<SagaId>,
    max: usize,
) -> Result<Vec<Recorded>, RuntimeError> {
    let mut query = SagaQuery {
        statuses: vec![SagaStatus::Completed, SagaStatus::Compensated],
        definition: Some(definition.clone()),
        limit: ENDED_PER_READ,
        ..SagaQuery::default()
    };
    // Their rows first: one that started long before another may have ended after it.
    let mut ended = Vec::new();
    while ended.len() < ENDED_SAGAS_MAX {
        let page = host.store().sagas().list(query.clone()).await?;
        let Some(last) = page.last() else { break };
        query.before = Some(last.id);
        ended.extend(page.into_iter().map(|row| (row.ended_at, row.id)));
    }
    ended.retain(|(_, id)| !known.contains(id));
    ended.sort_unstable_by_key(|ended| std::cmp::Reverse(*ended));
    let mut found = Vec::new();
    for (_, id) in ended {
        if found.len() == max {
            break;
        }
        match host.state(id).await {
            Ok(state) => found.extend(state.and_then(|state| recorded(state.saga, plugin))),
            // One that cannot be read stops no look at the others.
            Err(
                RuntimeError::DefinitionLost { .. }
                | RuntimeError::Unreadable { .. }
                | RuntimeError::Archive(_),
            ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_undone_by(definition: &Definition, plugin: &PluginName) -> bool {
    definition.steps().iter().any(|step| step.undo_plugin() == Some(plugin))
}

fn recorded(saga: Saga, plugin: &PluginName) -> Option<Recorded> {
    if !is_undone_by(saga.definition(), plugin) {
        return None;
    }
    let of_plugin = |step: &StepView<'_>| step.spec.undo_plugin() == Some(plugin);
    let steps = saga.steps().filter(|step| of_plugin(step) && is_recorded(step));
    let steps: Vec<_> = steps.map(|step| step.name.clone()).take(STEPS_OF_ONE_SAGA_MAX).collect();
    (!steps.is_empty()).then_some(Recorded { saga, steps })
}

/// Whether its undo has been called, or would be if the saga came undone.
fn is_recorded(step: &StepView<'_>) -> bool {
    // A step over a list makes no call: its elements do.
    if step.spec.each.is_some() && step.name.number().is_none() {
        return false;
    }
    match step.status {
        StepStatus::Unknown
        | StepStatus::Undoing
        | StepStatus::UndoBackingOff
        | StepStatus::Undone
        | StepStatus::UndoBlocked
        | StepStatus::UndoSkipped => true,
        StepStatus::Pending
        | StepStatus::Waiting
        | StepStatus::Running
        | StepStatus::BackingOff
        | StepStatus::BreakerOpen
        | StepStatus::Succeeded
        | StepStatus::Failed
        | StepStatus::Skipped => step.output.is_some(),
    }
}
