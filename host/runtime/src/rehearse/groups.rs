//! The same difference in many sagas is told once.

use std::collections::{BTreeMap, BTreeSet};

use amends_engine::{SagaId, StepName};
use amends_sandbox::StubAnswer;

use super::compare::{Difference, Unsteady};

/// Groups that are named one by one: more tell nobody more.
const GROUPS_MAX: usize = 50;

/// Differences that are named of one group.
const DIFFERENCES_MAX: usize = 20;

/// Steps at which the same differs in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RehearsalGroup {
    /// How many steps differ in this way.
    pub steps: usize,
    /// Only when requests are answered so; empty: whatever they are answered.
    pub answers: Vec<StubAnswer>,
    /// One of the sagas, as an example.
    pub saga: SagaId,
    /// The step of that saga.
    pub step: StepName,
    /// What differs at that step.
    pub differences: Vec<Difference>,
    /// How many differences there are.
    pub differences_total: usize,
}

/// The kinds of what differs.
type Kinds = BTreeSet<String>;

/// What differs between what two components did at one step.
#[derive(Default)]
pub(super) struct Compared {
    /// By what was answered; none: whatever is answered.
    pub(super) found: Vec<(Option<StubAnswer>, Vec<Difference>)>,
    pub(super) left_out: Unsteady,
    pub(super) sends: bool,
}

#[derive(Default)]
pub(super) struct Groups {
    steps: usize,
    found: BTreeMap<(Kinds, Option<StubAnswer>), OneAnswer>,
    left_out: BTreeMap<String, usize>,
}

/// The steps of a group with one answer.
struct OneAnswer {
    steps: Vec<usize>,
    saga: SagaId,
    step: StepName,
    differences: Vec<Difference>,
}

impl Groups {
    pub(super) fn add(&mut self, saga: SagaId, step: &StepName, compared: Compared) {
        let number = self.steps;
        self.steps += 1;
        for kind in compared.left_out.into_kinds() {
            *self.left_out.entry(kind).or_default() += 1;
        }
        for (answer, differences) in compared.found {
            if differences.is_empty() {
                continue;
            }
            let kinds: Kinds = differences.iter().map(|one| one.kind.clone()).collect();
            let new = || OneAnswer { steps: Vec::new(), saga, step: step.clone(), differences };
            self.found.entry((kinds, answer)).or_insert_with(new).steps.push(number);
        }
    }

    /// The groups, how many there are, and what was left out at how many steps; the most frequent
    /// first.
    pub(super) fn finish(self) -> (Vec<RehearsalGroup>, usize, Vec<(String, usize)>) {
        // Answers with which the same steps differ in the same way go together.
        let mut groups: BTreeMap<(Kinds, Vec<usize>), RehearsalGroup> = BTreeMap::new();
        for ((kinds, answer), of) in self.found {
            let OneAnswer { steps, saga, step, mut differences } = of;
            let (count, differences_total) = (steps.len(), differences.len());
            differences.truncate(DIFFERENCES_MAX);
            let group = groups.entry((kinds, steps)).or_insert_with(|| RehearsalGroup {
                steps: count,
                answers: Vec::new(),
                saga,
                step,
                differences,
                differences_total,
            });
            group.answers.extend(answer);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        for group in &mut groups {
            if group.answers.len() == StubAnswer::ALL.len() {
                group.answers.clear();
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.steps));
        let total = groups.len();
        groups.truncate(GROUPS_MAX);
        let mut left_out: Vec<_> = self.left_out.into_iter().collect();
        left_out.sort_by_key(|(_, steps)| std::cmp::Reverse(*steps));
        left_out.truncate(GROUPS_MAX);
        (groups, total, left_out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn difference(kind: &str) -> Difference {
        Difference { what: kind.to_owned(), old: None, new: None, kind: kind.to_owned() }
    }

    /// Adds a step for which this differs with each of these answers.
    fn add(groups: &mut Groups, found: &[(Option<StubAnswer>, &[&str])]) {
        let saga = SagaId::from_bytes([1; 16]);
        let found = found.iter().map(|(answer, kinds)| {
            (*answer, kinds.iter().map(|kind| difference(kind)).collect::<Vec<_>>())
        });
        let compared = Compared { found: found.collect(), ..Compared::default() };
        groups.add(saga, &"step".parse().unwrap(), compared);
    }

    #[test]
    fn the_same_is_told_once_with_the_answers_that_lead_to_it() {
        use StubAnswer::Status;
        let mut groups = Groups::default();
        for _ in 0..3 {
            add(&mut groups, &[(None, &["a"])]);
            let all = StubAnswer::ALL.map(|answer| (Some(answer), &["b"][..]));
            add(&mut groups, &all);
            add(&mut groups, &[(Some(Status(200)), &[]), (Some(Status(404)), &["b", "c"])]);
            add(&mut groups, &[(Some(Status(200)), &["d"]), (Some(Status(503)), &["d"])]);
        }
        add(&mut groups, &[(None, &["a"])]);
        let (groups, total, _) = groups.finish();
        assert_eq!(total, 4);
        let told: Vec<_> = groups
            .iter()
            .map(|group| {
                let kinds: Vec<_> = group.differences.iter().map(|one| &*one.what).collect();
                (group.steps, kinds.join(" "), group.answers.clone())
            })
            .collect();
        assert_eq!(told[0], (4, "a".to_owned(), Vec::new()), "the most frequent first");
        assert!(told.contains(&(3, "b".to_owned(), Vec::new())), "whatever is answered: {told:?}");
        assert!(told.contains(&(3, "b c".to_owned(), vec![Status(404)])), "{told:?}");
        assert!(told.contains(&(3, "d".to_owned(), vec![Status(200), Status(503)])), "{told:?}");
    }

    #[test]
    fn no_more_are_named_than_anybody_reads() {
        let mut groups = Groups::default();
        for number in 0..2 * GROUPS_MAX {
            add(&mut groups, &[(None, &[&*format!("kind {number}")])]);
        }
        let many: Vec<_> = (0..2 * DIFFERENCES_MAX).map(|number| number.to_string()).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        for _ in 0..2 {
            add(&mut groups, &[(None, &many)]);
        }
        let (groups, total, _) = groups.finish();
        assert_eq!((groups.len(), total), (GROUPS_MAX, 2 * GROUPS_MAX + 1));
        assert_eq!(groups[0].differences.len(), DIFFERENCES_MAX);
        assert_eq!(groups[0].differences_total, 2 * DIFFERENCES_MAX);
    }
}
