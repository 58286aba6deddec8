//! Checks a spec and computes what the engine needs of it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::definition::error::Mistakes;
use crate::definition::{
    BackoffSpec, DefinitionError, DefinitionSpec, ELEMENTS_MAX, Expression, Input, InputSpec,
    RetrySpec, STEPS_MAX, Step, StepKind, StepSet, StepSpec,
};
use crate::ids::StepName;
use crate::{ATTEMPTS_MAX, TIMEOUT_MAX};

/// No pause and no deadline is longer: past it a person has forgotten the saga.
pub(crate) const DURATION_MAX: Duration = Duration::from_hours(24 * 366);

type Checked = (Vec<Step>, Option<usize>);

pub(super) fn check(spec: &DefinitionSpec) -> Result<Checked, Vec<DefinitionError>> {
    let mut mistakes = Mistakes::default();
    check_size(spec, &mut mistakes);
    if spec.steps.len() > STEPS_MAX {
        // What is said of one step names the others.
        return mistakes.into_result().map(|()| (Vec::new(), None));
    }
    for step in &spec.steps {
        check_limits(step, &mut mistakes);
        check_kind(spec, step, &mut mistakes);
        check_each(step, &mut mistakes);
    }
    let after = resolve_after(spec, &mut mistakes);
    // Without a sound graph the rest cannot be judged.
    mistakes.into_result()?;
    let mut mistakes = Mistakes::default();
    let Some(ancestors) = ancestors(spec, &after, &mut mistakes) else {
        return mistakes.into_result().map(|()| (Vec::new(), None));
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
        let uses_all = matches!(input, Input::All)
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
    mistakes.into_result().map(|()| (steps, pivot))
}

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

/// Of what is not a call.
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

/// Of a step that runs over a list.
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

fn check_limits(step: &StepSpec, mistakes: &mut Mistakes) {
    check_timeout(&step.name, "timeout", step.timeout, mistakes);
    check_retry(&step.name, "retry", &step.retry, mistakes);
    if let Some(undo) = &step.undo {
        check_timeout(&step.name, "undo.timeout", undo.timeout, mistakes);
        check_retry(&step.name, "undo.retry", &undo.retry, mistakes);
    }
}

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

fn resolve_after(spec: &DefinitionSpec, mistakes: &mut Mistakes) -> Vec<StepSet> {
    let mut resolved = Vec::with_capacity(spec.steps.len());
    for step in &spec.steps {
        let mut set = StepSet::default();
        // Which of two steps of one name is meant nobody knows; that was told.
        let is_one = spec.steps.iter().filter(|other| other.name == step.name).count() == 1;
        for name in &step.after {
            let found = spec.steps.iter().take(STEPS_MAX).position(|other| other.name == *name);
            match found {
                Some(_) if *name == step.name && !is_one => {}
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

/// All steps before each, or none when there is a cycle.
fn ancestors(
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

/// Walks back from a step that has no place until a step repeats.
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

fn check_pivot(
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

fn compile_input(
    spec: &DefinitionSpec,
    index: usize,
    ancestors: &[StepSet],
    mistakes: &mut Mistakes,
) -> Input {
    match &spec.steps[index].input {
        None => Input::All,
        Some(InputSpec::Whole(source)) => {
            compile(spec, index, "input", source, ancestors, mistakes)
                .map_or(Input::All, |expression| Input::Whole(Box::new(expression)))
        }
        Some(InputSpec::Fields(fields)) => Input::Fields(
            fields
                .iter()
                .filter_map(|(name, source)| {
                    compile(spec, index, "input", source, ancestors, mistakes)
                        .map(|expression| (name.clone(), expression))
                })
                .collect(),
        ),
    }
}

fn compile(
    spec: &DefinitionSpec,
    index: usize,
    field: &'static str,
    source: &str,
    ancestors: &[StepSet],
    mistakes: &mut Mistakes,
) -> Option<Expression> {
    if mistakes.is_full() {
        return None;
    }
    let step = Some(&spec.steps[index].name);
    let expression = match Expression::compile(source) {
        Ok(expression) => expression,
        Err(message) => {
            mistakes.add(
                step,
                field,
                message,
                "write CEL over input, steps.NAME.output and saga, such as \
                 \"input.quantity > 0\"",
            );
            return None;
        }
    };
    let of_element = field == "input" && spec.steps[index].each.is_some();
    for name in expression.unknown_variables(of_element) {
        if ["item", "index"].contains(&name.as_str()) {
            let message =
                format!("`{source}` uses `{name}`, which only the input of a step with `each` has");
            let remedy = if spec.steps[index].each.is_some() {
                "it is known in the step's input only: use input.… or steps.NAME.output.… here"
            } else {
                "add each = \"input.items\" to the step, or use input.…"
            };
            mistakes.add(step, field, message, remedy);
            continue;
        }
        let known = if of_element {
            "input.…, steps.NAME.output.…, saga.…, item or index"
        } else {
            "input.…, steps.NAME.output.… or saga.…"
        };
        mistakes.add(
            step,
            field,
            format!("`{source}` uses `{name}`, which is not known here"),
            format!("use {known}, or quote it as text: '{name}'"),
        );
    }
    for name in expression.steps() {
        let found = spec.steps.iter().position(|other| other.name.as_str() == name);
        match found {
            Some(other) if ancestors[index].contains(other) => {}
            Some(other) if other == index => mistakes.add(
                step,
                field,
                format!("`{source}` reads the output of its own step"),
                "a step can read those that are done before it: use input.…, or move what it needs \
                 into a step before it",
            ),
            Some(other) if ancestors[other].contains(index) => mistakes.add(
                step,
                field,
                format!(
                    "`{source}` reads step `{name}`: `{name}` is after `{0}`, so `{0}` cannot read it",
                    spec.steps[index].name
                ),
                format!("move `{name}` before this step, or read something that is known earlier"),
            ),
            Some(_) => mistakes.add(
                step,
                field,
                format!("`{source}` reads step `{name}`, which is not done before this one"),
                format!("add `{name}` to this step's `after`"),
            ),
            None => mistakes.add(
                step,
                field,
                format!("`{source}` reads step `{name}`, which does not exist"),
                format!("the steps are {}", names(spec)),
            ),
        }
    }
    Some(expression)
}

fn names(spec: &DefinitionSpec) -> String {
    let names: Vec<_> = spec.steps.iter().map(|step| step.name.clone()).collect();
    join(&names, ", ")
}

fn join(names: &[StepName], by: &str) -> String {
    names.iter().map(StepName::as_str).collect::<Vec<_>>().join(by)
}
