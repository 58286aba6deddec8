//! What a definition may say and hardly means: the engine takes it, a person should not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amends_engine::{
    BackoffSpec, Definition, DefinitionName, RetrySpec, StepKind, StepName, StepSpec,
};

use crate::children::Children;
use crate::table::Context;

/// Looks at definitions that are sound each by itself.
pub(super) fn check_graphs(
    definitions: &[Definition],
    children: &Children,
    context: &mut Context<'_>,
) {
    // Of each that runs none, then of those that run these, and so on.
    let mut needs = vec![Need::default(); definitions.len()];
    for index in children.order.iter().copied() {
        // One that comes to run itself was reported.
        if !children.is_in_circle(index) {
            let child =
                |name: &DefinitionName| children.index_of(name).map(|child| needs[child].time);
            needs[index] = longest(&definitions[index], &Graph::new(&definitions[index]), child);
        }
    }
    for (definition, need) in definitions.iter().zip(needs) {
        let graph = Graph::new(definition);
        for step in definition.steps() {
            check_when(definition, step, context);
            check_undo(definition, &graph, step, context);
        }
        check_deadline(definition, need, context);
    }
}

/// The step past which nothing is undone, if there is one.
struct Graph<'d> {
    pivot: Option<&'d StepSpec>,
    /// All steps before the pivot.
    before_pivot: BTreeSet<&'d StepName>,
}

impl<'d> Graph<'d> {
    fn new(definition: &'d Definition) -> Self {
        let steps: BTreeMap<_, _> =
            definition.steps().iter().map(|step| (&step.name, step)).collect();
        let pivot = definition.steps().iter().find(|step| step.pivot);
        let mut before_pivot = BTreeSet::new();
        let mut ahead: Vec<_> = pivot.iter().flat_map(|pivot| &pivot.after).collect();
        while let Some(name) = ahead.pop() {
            if before_pivot.insert(name) {
                ahead.extend(steps.get(name).into_iter().flat_map(|step| &step.after));
            }
        }
        Self { pivot, before_pivot }
    }
}

fn check_when(definition: &Definition, step: &StepSpec, context: &mut Context<'_>) {
    let Some(when) = &step.when else { return };
    let key = format!("saga.{}.step.{}.when", definition.name(), step.name);
    let place = context.places.of(&key);
    if is_false(when) {
        let message = format!("the step `{}` is never reached: `{when}` skips it", step.name);
        let help = "remove the step, or write what it depends on, such as \"input.ship == true\"";
        context.warn(place, &key, message, help);
    }
}

/// Whether the expression is the word `false`, in any number of brackets.
fn is_false(when: &str) -> bool {
    when.trim_matches(|c: char| c.is_whitespace() || c == '(' || c == ')') == "false"
}

fn check_undo(
    definition: &Definition,
    graph: &Graph<'_>,
    step: &StepSpec,
    context: &mut Context<'_>,
) {
    let has_effect = match &step.kind {
        StepKind::Call { .. } | StepKind::Saga { .. } => true,
        StepKind::Wait { .. } | StepKind::Sleep { .. } => false,
    };
    let Some(pivot) = graph.pivot else { return };
    if !has_effect || step.undo.is_some() || !graph.before_pivot.contains(&step.name) {
        return;
    }
    let key = format!("saga.{}.step.{}.undo", definition.name(), step.name);
    let message = format!(
        "the step `{}` has no undo and comes before the pivot `{}`: when a step up to the pivot \
         fails, its effect stands",
        step.name, pivot.name
    );
    let help = "name what undoes it, or put it after the pivot; leave it so when it only reads";
    context.warn(context.places.of(&key), &key, message, help);
}

/// The deadline undoes what has not come to the pivot, or to its end: there must be time for all
/// attempts until then.
fn check_deadline(definition: &Definition, need: Need, context: &mut Context<'_>) {
    let Some(deadline) = definition.spec().deadline else { return };
    let Need { time, path } = need;
    if time <= deadline {
        return;
    }
    let key = format!("saga.{}.deadline", definition.name());
    let path: Vec<_> = path.iter().map(|name| format!("`{name}`")).collect();
    let message = format!(
        "the deadline of {} is shorter than all attempts of {} may take: {} with their timeouts \
         and pauses, so it undoes a saga that has attempts left",
        words(deadline),
        path.join(", "),
        words(time)
    );
    let help =
        format!("raise it to {} or more, or lower timeouts, attempts or pauses", round(time));
    context.warn(context.places.of(&key), &key, message, help);
}

/// How long steps may take one after another.
#[derive(Debug, Clone, Default)]
struct Need {
    time: Duration,
    path: Vec<StepName>,
}

/// Of the path that may take longest, up to the pivot if there is one. `child`: how long a saga may
/// take that a step runs.
fn longest(
    definition: &Definition,
    graph: &Graph<'_>,
    child: impl Fn(&DefinitionName) -> Option<Duration>,
) -> Need {
    let mut needs: BTreeMap<&StepName, Need> = BTreeMap::new();
    let mut left: Vec<&StepSpec> = definition.steps().iter().collect();
    // The engine has refused cycles, so each round finds one at least.
    while !left.is_empty() {
        left.retain(|step| {
            if step.after.iter().any(|name| !needs.contains_key(name)) {
                return true;
            }
            let before = step.after.iter().filter_map(|name| needs.get(name));
            let mut need = before.max_by_key(|need| need.time).cloned().unwrap_or_default();
            need.time = need.time.saturating_add(step_time(step, &child));
            need.path.push(step.name.clone());
            needs.insert(&step.name, need);
            false
        });
    }
    let counts = |name: &StepName| {
        graph.pivot.is_none_or(|pivot| pivot.name == *name || graph.before_pivot.contains(name))
    };
    let needs = needs.into_iter().filter(|(name, _)| counts(name));
    needs.map(|(_, need)| need).max_by_key(|need| need.time).unwrap_or_default()
}

/// How long a step may take. A wait without a timeout counts for nothing: the deadline is its only
/// end, so it is meant.
fn step_time(step: &StepSpec, child: impl Fn(&DefinitionName) -> Option<Duration>) -> Duration {
    match &step.kind {
        StepKind::Call { .. } => {
            step.timeout.saturating_mul(step.retry.attempts).saturating_add(pauses(&step.retry))
        }
        StepKind::Wait { wait } => wait.timeout.unwrap_or_default(),
        StepKind::Sleep { sleep } => *sleep,
        StepKind::Saga { saga } => child(saga).unwrap_or_default(),
    }
}

/// All pauses between attempts, without what jitter takes off them.
fn pauses(retry: &RetrySpec) -> Duration {
    let count = retry.attempts.saturating_sub(1);
    match &retry.backoff {
        BackoffSpec::Listed(pauses) => {
            let last = pauses.last().copied().unwrap_or_default();
            let pause = |index| pauses.get(index as usize).copied().unwrap_or(last);
            (0..count).map(pause).fold(Duration::ZERO, Duration::saturating_add)
        }
        BackoffSpec::Exponential { initial, factor, max, .. } => {
            let pause = |index: u32| {
                let exponent = i32::try_from(index).unwrap_or(i32::MAX);
                (initial.as_secs_f64() * factor.powi(exponent)).min(max.as_secs_f64())
            };
            Duration::try_from_secs_f64((0..count).map(pause).sum()).unwrap_or(Duration::MAX)
        }
    }
}

/// `1d 2h`, `4m 7s`, `300ms`: what is not zero, down to seconds; milliseconds below ten seconds.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(duration.subsec_millis()) * u64::from(seconds < 10), "ms"),
    ];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    parts.join(" ")
}

/// The next whole second, minute, hour or day, as the config takes it.
fn round(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let (unit, name) = match seconds {
        0..600 => (1, "s"),
        600..36_000 => (60, "m"),
        36_000..864_000 => (3_600, "h"),
        _ => (86_400, "d"),
    };
    format!("\"{}{name}\"", seconds.div_ceil(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_words() {
        let ms = Duration::from_millis;
        for (duration, told, next) in [
            (ms(300), "300ms", "\"1s\""),
            (ms(127_500), "2m 7s", "\"128s\""),
            (ms(3_601_000), "1h 1s", "\"61m\""),
            (Duration::from_hours(49), "2d 1h", "\"49h\""),
            (Duration::from_hours(24 * 11 + 1), "11d 1h", "\"12d\""),
        ] {
            assert_eq!((words(duration).as_str(), round(duration).as_str()), (told, next));
        }
    }

    #[test]
    fn false_is_found_in_brackets() {
        assert!(is_false("false") && is_false(" ((false)) "));
        assert!(!is_false("'false'") && !is_false("false || input.a") && !is_false(""));
    }

    #[test]
    fn pauses_of_both_forms() {
        let listed = BackoffSpec::Listed(vec![Duration::from_secs(1), Duration::from_secs(5)]);
        assert_eq!(pauses(&RetrySpec { attempts: 4, backoff: listed }), Duration::from_secs(11));
        // 1 + 2 + 4 seconds.
        assert_eq!(pauses(&RetrySpec::default()), Duration::from_secs(7));
        let once = RetrySpec { attempts: 1, ..RetrySpec::default() };
        assert_eq!(pauses(&once), Duration::ZERO);
    }
}
