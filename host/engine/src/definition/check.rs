//! Checks a spec, and computes what the engine needs of it.

mod compile;
mod graph;
mod step_names;

use std::collections::BTreeSet;
use std::time::Duration;

use super::error::{DefinitionError, Mistakes};
use super::index::Index;
use super::personal::Personal;
use super::spec::{BackoffSpec, DefinitionSpec, ELEMENTS_MAX, RetrySpec, StepKind, StepSpec};
use super::step::{Step, StepInput};
use super::step_set::{STEPS_MAX, StepSet};
use crate::call::TIMEOUT_MAX;
use crate::ids::StepName;
use crate::limits::ATTEMPTS_MAX;
use compile::{compile, compile_input};
use graph::{ancestors, check_pivot, resolve_after};

/// The longest pause and the longest deadline: after this a person has forgotten the saga.
const DURATION_MAX: Duration = Duration::from_hours(24 * 366);

/// What the engine needs of a spec.
pub(super) struct Checked {
    pub(super) steps: Vec<Step>,
    pub(super) index: Index,
    pub(super) personal: Personal,
    pub(super) pivot: Option<usize>,
}

/// Checks a spec.
pub(super) fn check(spec: &DefinitionSpec) -> Result<Checked, Vec<DefinitionError>> {
    let mut mistakes = Mistakes::default();
    check_size(spec, &mut mistakes);
    let index = Index::compile(spec, &mut mistakes);
    let personal = Personal::compile(spec, &mut mistakes);
    if spec.steps.len() > STEPS_MAX {
        // Messages about one step name all others.
        let (steps, pivot) = (Vec::new(), None);
        return mistakes.into_result().map(|()| Checked { steps, index, personal, pivot });
    }
    for step in &spec.steps {
        check_limits(step, &mut mistakes);
        check_kind(spec, step, &mut mistakes);
        check_each(step, &mut mistakes);
    }
    let after = resolve_after(spec, &mut mistakes);
    // Everything else needs a valid graph.
    mistakes.into_result()?;
    let mut mistakes = Mistakes::default();
    let Some(ancestors) = ancestors(spec, &after, &mut mistakes) else {
        let (steps, pivot) = (Vec::new(), None);
        return mistakes.into_result().map(|()| Checked { steps, index, personal, pivot });
    };
    let pivot = check_pivot(spec, &ancestors, &mut mistakes);
    let mut steps = Vec::with_capacity(spec.steps.len());
    for (index, step) in spec.steps.iter().enumerate() {
        let mut compile = |field, source: &Option<String>| {
            let source = source.as_deref()?;
            compile(spec, index, field, source, &ancestors, &mut mistakes)
        };
        let when = compile("when", &step.when);
        let each = compile("each", &step.each.as_ref().map(|each| each.list.clone()));
        let input = compile_input(spec, index, &ancestors, &mut mistakes);
        let expressions: Vec<_> = when.iter().chain(&each).chain(input.expressions()).collect();
        let uses_all = matches!(input, StepInput::All)
            || expressions.iter().any(|expression| expression.uses_all_steps());
        let named = expressions.iter().flat_map(|expression| expression.steps());
        let named =
            named.filter_map(|name| spec.steps.iter().position(|step| step.name.as_str() == name));
        let reads =
            if uses_all { ancestors[index] } else { named.fold(StepSet::default(), StepSet::with) };
        let descendants = (0..spec.steps.len())
            .filter(|other| ancestors[*other].contains(index))
            .fold(StepSet::default(), StepSet::with);
        steps.push(Step {
            after: after[index],
            ancestors: ancestors[index],
            descendants,
            reads,
            each,
            when,
            input,
        });
    }
    mistakes.into_result().map(|()| Checked { steps, index, personal, pivot })
}

/// Checks the number and the names of the steps, and the limits of the whole saga.
fn check_size(spec: &DefinitionSpec, mistakes: &mut Mistakes) {
    if spec.steps.is_empty() {
        mistakes.add(None, "step", "a saga without steps does nothing", "add a [[saga.step]]");
    }
    if spec.steps.len() > STEPS_MAX {
        mistakes.add(
            None,
            "step",
            format!("{} steps, at most {STEPS_MAX} are allowed", spec.steps.len()),
            "split the saga",
        );
    }
    let mut seen = BTreeSet::new();
    for step in &spec.steps {
        if step.name.number().is_some() {
            mistakes.add(
                Some(&step.name),
                "name",
                format!("`{}` is the name of an element", step.name),
                "name the step without [ and ]",
            );
        }
        if !seen.insert(&step.name) {
            mistakes.add(
                Some(&step.name),
                "name",
                format!("two steps are named `{}`", step.name),
                "give each step of a saga a name of its own",
            );
        }
    }
    if let Some(deadline) = spec.deadline
        && (deadline.is_zero() || deadline > DURATION_MAX)
    {
        mistakes.add(
            None,
            "deadline",
            "the deadline is not between 1ms and 366d",
            "use a duration such as \"24h\", or leave it out",
        );
    }
    if spec.compensate_within.is_some_and(|within| within > DURATION_MAX) {
        mistakes.add(
            None,
            "compensate_within",
            "the time to compensate in is longer than 366d",
            "use a duration such as \"30d\", or leave it out",
        );
    }
}

/// Checks a step that is not a call.
fn check_kind(saga: &DefinitionSpec, step: &StepSpec, mistakes: &mut Mistakes) {
    let name = Some(&step.name);
    let pause = |field, pause: Duration, mistakes: &mut Mistakes| {
        if pause.is_zero() || pause > DURATION_MAX {
            let remedy = "use a duration such as \"10m\"";
            mistakes.add(name, field, "the time is not between 1ms and 366d", remedy);
        }
    };
    match &step.kind {
        StepKind::Call { .. } => return,
        StepKind::Wait { wait } => {
            if let Some(timeout) = wait.timeout {
                pause("wait", timeout, mistakes);
            }
        }
        StepKind::Sleep { sleep } => pause("sleep", *sleep, mistakes),
        StepKind::Saga { saga: child } => {
            if *child == saga.name {
                let message = format!("`{child}` would start itself without end");
                mistakes.add(name, "saga", message, "name another saga");
            }
            if step.undo_plugin().is_some() {
                let message = "a saga is undone by compensating it, not by a plugin";
                mistakes.add(name, "undo", message, "leave undo out, or set undo = false");
            }
            return;
        }
    }
    if step.undo.is_some() {
        let message = "a step that only waits has nothing to undo";
        mistakes.add(name, "undo", message, "leave undo out");
    }
}

/// Checks a step that runs over a list.
fn check_each(step: &StepSpec, mistakes: &mut Mistakes) {
    let Some(each) = &step.each else { return };
    let name = Some(&step.name);
    match step.kind {
        StepKind::Call { .. } | StepKind::Saga { .. } => {}
        StepKind::Wait { .. } | StepKind::Sleep { .. } => {
            let message = "a step that only waits does not run over a list";
            mistakes.add(name, "each", message, "call a plugin, or run a saga that waits");
        }
    }
    if step.pivot {
        let message = "a step that runs over a list cannot be the pivot: it happens bit by bit";
        mistakes.add(name, "pivot", message, "put a step after it that is the pivot");
    }
    if !(1..=ELEMENTS_MAX).contains(&each.concurrency) {
        let message = format!("concurrency = {}, it is from 1 to {ELEMENTS_MAX}", each.concurrency);
        mistakes.add(name, "each.concurrency", message, "16 is the default");
    }
}

/// Checks the timeouts and retries of a step.
fn check_limits(step: &StepSpec, mistakes: &mut Mistakes) {
    check_timeout(&step.name, "timeout", step.timeout, mistakes);
    check_retry(&step.name, "retry", &step.retry, mistakes);
    if let Some(undo) = &step.undo {
        check_timeout(&step.name, "undo.timeout", undo.timeout, mistakes);
        check_retry(&step.name, "undo.retry", &undo.retry, mistakes);
    }
}

/// Checks one timeout.
fn check_timeout(step: &StepName, field: &'static str, timeout: Duration, mistakes: &mut Mistakes) {
    if timeout.is_zero() || timeout > TIMEOUT_MAX {
        mistakes.add(
            Some(step),
            field,
            "a timeout is between 1ms and 1h",
            "use a duration such as \"30s\"",
        );
    }
}

/// Checks one policy of retries.
fn check_retry(step: &StepName, field: &'static str, retry: &RetrySpec, mistakes: &mut Mistakes) {
    let mut wrong = |message: String, remedy: &str| {
        mistakes.add(Some(step), field, message, remedy);
    };
    if retry.attempts == 0 || retry.attempts > ATTEMPTS_MAX {
        wrong(
            format!("attempts = {}, it is from 1 to {ATTEMPTS_MAX}", retry.attempts),
            "count all attempts, the first included",
        );
    }
    match &retry.backoff {
        BackoffSpec::Listed(pauses) => {
            let reachable = retry.attempts.saturating_sub(1) as usize;
            if pauses.is_empty() && reachable > 0 {
                wrong("backoff is an empty list".to_owned(), "list at least one pause");
            }
            if pauses.len() > reachable && retry.attempts > 0 {
                wrong(
                    format!(
                        "backoff lists {} pauses, but {} attempts have only {reachable} between \
                         them: the rest is never reached",
                        pauses.len(),
                        retry.attempts
                    ),
                    "raise attempts or shorten the list",
                );
            }
            if pauses.iter().any(|pause| *pause > DURATION_MAX) {
                wrong("a pause is longer than 366d".to_owned(), "shorten it");
            }
        }
        BackoffSpec::Exponential { initial, factor, max, jitter } => {
            if !factor.is_finite() || *factor < 1.0 {
                wrong(
                    format!("factor = {factor}, it is at least 1"),
                    "2.0 doubles the pause each time, 1.0 keeps it",
                );
            }
            if !(0.0..=1.0).contains(jitter) {
                wrong(
                    format!("jitter = {jitter}, it is from 0 to 1"),
                    "0.2 spreads pauses by a fifth",
                );
            }
            if initial > max {
                wrong("initial is longer than max".to_owned(), "raise max or shorten initial");
            }
            if *max > DURATION_MAX {
                wrong("max is longer than 366d".to_owned(), "shorten it");
            }
        }
    }
}
