//! The graph of the steps: what comes after what.

use super::step_names::{join, names};
use crate::definition::error::Mistakes;
use crate::definition::spec::DefinitionSpec;
use crate::definition::step_set::{STEPS_MAX, StepSet};
use crate::ids::StepName;

/// Returns the steps that each step names in `after`.
pub(super) fn resolve_after(spec: &DefinitionSpec, mistakes: &mut Mistakes) -> Vec<StepSet> {
    let mut resolved = Vec::with_capacity(spec.steps.len());
    for step in &spec.steps {
        let mut set = StepSet::default();
        // Of two steps of one name nobody knows which is meant; that is a mistake of its own.
        let is_unique = spec.steps.iter().filter(|other| other.name == step.name).count() == 1;
        for name in &step.after {
            let found = spec.steps.iter().take(STEPS_MAX).position(|other| other.name == *name);
            match found {
                Some(_) if *name == step.name && !is_unique => {}
                Some(_) if *name == step.name => mistakes.add(
                    Some(&step.name),
                    "after",
                    "the step comes after itself",
                    "name the steps that must be done before it, or [] for none",
                ),
                Some(index) => set = set.with(index),
                None => mistakes.add(
                    Some(&step.name),
                    "after",
                    format!("there is no step `{name}` in {}", spec.name),
                    format!("the steps are {}", names(spec)),
                ),
            }
        }
        resolved.push(set);
    }
    resolved
}

/// Returns all steps before each step, or none when there is a cycle.
pub(super) fn ancestors(
    spec: &DefinitionSpec,
    after: &[StepSet],
    mistakes: &mut Mistakes,
) -> Option<Vec<StepSet>> {
    let mut ancestors = vec![None; after.len()];
    let mut left = after.len();
    while left > 0 {
        let before = left;
        for step in 0..after.len() {
            if ancestors[step].is_some() || after[step].iter().any(|dep| ancestors[dep].is_none()) {
                continue;
            }
            let set = after[step]
                .iter()
                .fold(after[step], |set, dep| ancestors[dep].map_or(set, |more| set.union(more)));
            ancestors[step] = Some(set);
            left -= 1;
        }
        if left == before {
            let cycle = cycle(spec, after, &ancestors);
            mistakes.add(
                cycle.first(),
                "after",
                format!("the steps wait for each other: {}", join(&cycle, " after ")),
                "remove one of them from an `after`",
            );
            return None;
        }
    }
    Some(ancestors.into_iter().map(Option::unwrap_or_default).collect())
}

/// Returns the steps of a cycle: walks back from a step that has no place until a step repeats.
fn cycle(spec: &DefinitionSpec, after: &[StepSet], placed: &[Option<StepSet>]) -> Vec<StepName> {
    let Some(mut at) = placed.iter().position(Option::is_none) else { return Vec::new() };
    let mut path = vec![at];
    while let Some(next) = after[at].iter().find(|dep| placed[*dep].is_none()) {
        at = next;
        if let Some(start) = path.iter().position(|step| *step == at) {
            path.drain(..start);
            path.push(at);
            break;
        }
        path.push(at);
    }
    path.into_iter().map(|step| spec.steps[step].name.clone()).collect()
}

/// Checks that there is at most one pivot and that no step runs beside it. Returns the pivot.
pub(super) fn check_pivot(
    spec: &DefinitionSpec,
    ancestors: &[StepSet],
    mistakes: &mut Mistakes,
) -> Option<usize> {
    let mut pivots = (0..spec.steps.len()).filter(|step| spec.steps[*step].pivot);
    let pivot = pivots.next()?;
    let name = &spec.steps[pivot].name;
    if let Some(second) = pivots.next() {
        mistakes.add(
            Some(&spec.steps[second].name),
            "pivot",
            format!("`{name}` is the pivot already"),
            "a saga has one point of no return: mark the first",
        );
    }
    for (index, step) in spec.steps.iter().enumerate() {
        let is_after = ancestors[index].contains(pivot);
        if index != pivot && !is_after && !ancestors[pivot].contains(index) {
            mistakes.add(
                Some(&step.name),
                "after",
                format!(
                    "the step runs beside the pivot `{name}`: nobody could tell whether it may \
                     still be undone"
                ),
                "put it before or after the pivot",
            );
        }
        if is_after && step.undo.is_some() {
            mistakes.add(
                Some(&step.name),
                "undo",
                format!("nothing is undone after the pivot `{name}`, so this undo never runs"),
                "set undo = false, or move the step before the pivot",
            );
        }
    }
    Some(pivot)
}
