//! The definitions that are tried: every small graph, and large random ones.

use std::sync::Arc;
use std::time::Duration;

use crate::{
    BackoffSpec, Definition, DefinitionSpec, EachSpec, PluginName, RetrySpec, StepKind, StepName,
    StepSpec, UndoSpec, WaitSpec,
};

/// The variants of each graph that are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variants {
    /// The graph with an undo for each step.
    Plain,
    /// The plain graph, and more. Each step in turn has no undo, is skipped, is the pivot, waits
    /// for a signal or a time, or runs a saga. One variant has a deadline.
    All,
    /// Each step in turn runs over a list of two elements: both at once, and one by one.
    Lists,
}

/// Returns every graph of `steps` steps, as definitions with two attempts in each direction.
#[must_use]
pub fn graphs(steps: usize, variants: Variants) -> Vec<Arc<Definition>> {
    let pairs: Vec<_> = (0..steps).flat_map(|to| (0..to).map(move |from| (from, to))).collect();
    let mut found = Vec::new();
    for edges in 0..1_u32 << pairs.len() {
        let mut graph = vec![Vec::new(); steps];
        for (bit, (from, to)) in pairs.iter().enumerate() {
            if edges >> bit & 1 == 1 {
                graph[*to].push(*from);
            }
        }
        let plain = spec(&graph, |_| ());
        let mut specs = vec![plain.clone()];
        if variants == Variants::Lists {
            let lists = (0..steps).flat_map(|index| [(index, 1), (index, 2)]);
            specs = lists
                .map(|(index, concurrency)| {
                    let mut spec = plain.clone();
                    spec.steps[index].each = Some(each(2, concurrency));
                    spec
                })
                .collect();
        }
        if variants == Variants::All {
            specs.push(DefinitionSpec { deadline: Some(Duration::from_secs(1)), ..plain.clone() });
            for index in 0..steps {
                let mut change = |to: &dyn Fn(&mut StepSpec)| {
                    let mut spec = plain.clone();
                    to(&mut spec.steps[index]);
                    specs.push(spec);
                };
                change(&|step| step.undo = None);
                change(&|step| step.when = Some("false".to_owned()));
                let wait = |timeout| WaitSpec { signal: name("go"), timeout };
                let long = Some(Duration::from_secs(1));
                for kind in [
                    StepKind::Wait { wait: wait(None) },
                    StepKind::Wait { wait: wait(long) },
                    StepKind::Sleep { sleep: Duration::from_secs(1) },
                    StepKind::Saga { saga: name("child") },
                ] {
                    change(&|step| *step = of_kind(step.clone(), kind.clone()));
                }
                specs.extend(pivots(&plain, index));
            }
        }
        // The check rejects some specs, such as steps beside a pivot.
        found.extend(specs.into_iter().filter_map(|spec| Definition::new(spec).ok()).map(Arc::new));
    }
    found
}

/// Returns a spec with the step `pivot` as its pivot: with an undo, and without.
fn pivots(spec: &DefinitionSpec, pivot: usize) -> [DefinitionSpec; 2] {
    let mut with = spec.clone();
    with.steps[pivot].pivot = true;
    with.deadline = Some(Duration::from_secs(1));
    let mut after = vec![with.steps[pivot].name.clone()];
    for step in &mut with.steps[pivot + 1..] {
        if step.after.iter().any(|name| after.contains(name)) {
            step.undo = None;
            after.push(step.name.clone());
        }
    }
    let mut without = with.clone();
    without.steps[pivot].undo = None;
    [with, without]
}

fn spec(graph: &[Vec<usize>], mut change: impl FnMut(&mut StepSpec)) -> DefinitionSpec {
    let steps = graph.iter().enumerate().map(|(index, after)| {
        let mut step = step(index, after);
        change(&mut step);
        step
    });
    DefinitionSpec {
        name: name("simulated"),
        deadline: None,
        compensate_within: None,
        index: std::collections::BTreeMap::new(),
        subject: None,
        personal: Vec::new(),
        steps: steps.collect(),
    }
}

/// Returns a step as one of another kind, with the undo that such a step has.
fn of_kind(step: StepSpec, kind: StepKind) -> StepSpec {
    let undo = match &kind {
        StepKind::Call { .. } => step.undo,
        StepKind::Saga { .. } => step.undo.map(|undo| UndoSpec { plugin: None, ..undo }),
        StepKind::Wait { .. } | StepKind::Sleep { .. } => None,
    };
    StepSpec { kind, undo, ..step }
}

fn step(index: usize, after: &[usize]) -> StepSpec {
    let retry =
        RetrySpec { attempts: 2, backoff: BackoffSpec::Listed(vec![Duration::from_millis(700)]) };
    let timeout = Duration::from_secs(1);
    StepSpec {
        name: step_name(index),
        kind: StepKind::Call { plugin: name("plugin"), service: None },
        after: after.iter().map(|index| step_name(*index)).collect(),
        each: None,
        when: None,
        input: None,
        timeout,
        retry: retry.clone(),
        undo: Some(UndoSpec { plugin: Some(name::<PluginName>("undo")), timeout, retry }),
        pivot: false,
    }
}

/// Returns a list of so many numbers.
fn each(elements: usize, concurrency: usize) -> EachSpec {
    EachSpec { list: format!("{:?}", (0..elements).collect::<Vec<_>>()), concurrency }
}

fn step_name(index: usize) -> StepName {
    name(&format!("s{index}"))
}

fn name<T: std::str::FromStr<Err = crate::IdError>>(text: &str) -> T {
    match text.parse() {
        Ok(name) => name,
        Err(error) => panic!("{error}"),
    }
}

/// Random numbers from a seed, by SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 up to and without `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or_default()
    }

    /// Returns true with this chance in percent.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Returns a random definition of up to 16 steps, which are listed in a random order.
pub(super) fn random(random: &mut Random) -> Definition {
    let steps = 1 + random.below(16);
    let density = random.below(100);
    let mut graph = vec![Vec::new(); steps];
    for (to, after) in graph.iter_mut().enumerate() {
        after.extend((0..to).filter(|_| random.chance(density)));
    }
    let pivot = random.chance(30).then(|| random.below(steps));
    if let Some(pivot) = pivot {
        // Nothing may run beside the pivot.
        graph[pivot] = (0..pivot).collect();
        for after in &mut graph[pivot + 1..] {
            after.push(pivot);
            after.sort_unstable();
            after.dedup();
        }
    }
    let mut index = 0;
    let mut spec = spec(&graph, |step| {
        let is_after = pivot.is_some_and(|pivot| index > pivot);
        step.pivot = pivot == Some(index);
        vary(step, index, random);
        if is_after {
            step.undo = None;
        }
        index += 1;
    });
    spec.deadline =
        random.chance(20).then(|| Duration::from_millis(1 + random.below(20_000) as u64));
    for last in (1..steps).rev() {
        let other = random.below(last + 1);
        spec.steps.swap(last, other);
    }
    match Definition::new(spec) {
        Ok(definition) if random.chance(25) => {
            let (max, more) = (2 + random.below(60) as u64, 1 + random.below(20) as u64);
            definition.with_log_limits(max, more)
        }
        Ok(definition) => definition,
        Err(errors) => panic!("a definition that should be right is refused: {errors:?}"),
    }
}

fn vary(step: &mut StepSpec, index: usize, random: &mut Random) {
    step.retry = retry(random);
    if let Some(undo) = &mut step.undo {
        undo.retry = retry(random);
    }
    if random.chance(15) {
        step.undo = None;
    }
    let kind = match random.below(20) {
        0 => StepKind::Wait { wait: WaitSpec { signal: name("go"), timeout: None } },
        1 => StepKind::Wait {
            wait: WaitSpec { signal: name("go"), timeout: Some(Duration::from_secs(3)) },
        },
        2 => StepKind::Sleep { sleep: Duration::from_millis(1 + random.below(3_000) as u64) },
        3 => StepKind::Saga { saga: name("child") },
        _ => step.kind.clone(),
    };
    *step = of_kind(step.clone(), kind);
    let may_run_over_list =
        !step.pivot && matches!(step.kind, StepKind::Call { .. } | StepKind::Saga { .. });
    if may_run_over_list && random.chance(15) {
        step.each = Some(each(random.below(5), 1 + random.below(3)));
    }
    if random.chance(15) {
        let when = if random.chance(50) { "false" } else { "input.yes" };
        step.when = Some(when.to_owned());
    }
    let reads = step.after.first().filter(|_| random.chance(30));
    if let Some(other) = reads {
        let fields = [("from", format!("steps.{other}.output")), ("n", index.to_string())];
        let fields = fields.into_iter().map(|(name, source)| (name.to_owned(), source));
        step.input = Some(crate::InputSpec::Fields(fields.collect()));
    }
}

fn retry(random: &mut Random) -> RetrySpec {
    let attempts = 1 + u32::try_from(random.below(4)).unwrap_or_default();
    let backoff = if random.chance(50) && attempts > 1 {
        let pauses = 1 + random.below(attempts as usize - 1);
        BackoffSpec::Listed(
            (0..pauses).map(|_| Duration::from_millis(random.below(5_000) as u64)).collect(),
        )
    } else {
        let initial = Duration::from_millis(1 + random.below(1_000) as u64);
        let max = Duration::from_secs(10);
        BackoffSpec::Exponential { initial, factor: 2.0, max, jitter: 0.5 }
    };
    RetrySpec { attempts, backoff }
}
