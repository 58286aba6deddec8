//! Which sagas run which others, by way of others as well.
//!
//! A config has up to ten thousand sagas, and each may run any other: so this is done in one pass over
//! all of them, and without recursion.

use std::collections::BTreeMap;

use amends_engine::{Definition, DefinitionName, StepKind};

/// The sagas that the steps of others run.
pub(super) struct Children {
    by_name: BTreeMap<DefinitionName, usize>,
    /// By the number of the definition that runs them.
    of: Vec<Vec<usize>>,
    /// Each definition after those that it runs; in a circle, after some of them.
    pub(super) order: Vec<usize>,
    /// Definitions that come to run one another have the same number.
    circles: Vec<usize>,
}

impl Children {
    /// Kosaraju's algorithm: what is reached both along the edges and against them is one circle.
    pub(super) fn of(definitions: &[Definition]) -> Self {
        let names = definitions.iter().map(|definition| definition.name().clone());
        let by_name: BTreeMap<_, _> = names.zip(0..).collect();
        let child = |kind: &StepKind| match kind {
            StepKind::Saga { saga } => by_name.get(saga).copied(),
            StepKind::Call { .. } | StepKind::Wait { .. } | StepKind::Sleep { .. } => None,
        };
        let children: Vec<Vec<usize>> = definitions
            .iter()
            .map(|definition| {
                definition.steps().iter().filter_map(|step| child(&step.kind)).collect()
            })
            .collect();
        let mut parents = vec![Vec::new(); definitions.len()];
        for (index, children) in children.iter().enumerate() {
            for child in children {
                parents[*child].push(index);
            }
        }
        let mut order = Vec::with_capacity(definitions.len());
        let mut is_reached = vec![false; definitions.len()];
        for start in 0..definitions.len() {
            order.extend(reached(start, &children, &mut is_reached));
        }
        let mut circles = vec![0; definitions.len()];
        let mut is_reached = vec![false; definitions.len()];
        for start in order.iter().rev().copied() {
            for index in reached(start, &parents, &mut is_reached) {
                circles[index] = start;
            }
        }
        Self { by_name, of: children, order, circles }
    }

    /// The number of the definition of this name.
    pub(super) fn index_of(&self, name: &DefinitionName) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Whether the saga of this name, which `index` runs, comes to run `index` again.
    pub(super) fn comes_back(&self, index: usize, name: &DefinitionName) -> bool {
        self.index_of(name).is_some_and(|child| self.circles[child] == self.circles[index])
    }

    /// Whether `index` is one of several that come to run one another.
    pub(super) fn is_in_circle(&self, index: usize) -> bool {
        self.of[index].iter().any(|child| self.circles[*child] == self.circles[index])
    }
}

/// What can be reached from one that was not reached before, each after what it leads to.
fn reached(start: usize, edges: &[Vec<usize>], is_reached: &mut [bool]) -> Vec<usize> {
    let mut order = Vec::new();
    if std::mem::replace(&mut is_reached[start], true) {
        return order;
    }
    let mut path = vec![(start, 0)];
    while let Some((index, next)) = path.last_mut() {
        let Some(child) = edges[*index].get(*next) else {
            order.push(*index);
            path.pop();
            continue;
        };
        *next += 1;
        if !std::mem::replace(&mut is_reached[*child], true) {
            path.push((*child, 0));
        }
    }
    order
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    /// Definitions `0`, `1`, …, each of which runs these.
    fn definitions(children: &[&[usize]]) -> Vec<Definition> {
        let step = |(number, child): (usize, &usize)| {
            let retry = r#"{"attempts":1,"backoff":{"listed":[]}}"#;
            format!(
                r#"{{"name":"s{number}","saga":"{child}","after":[],"timeout":1000,"retry":{retry}}}"#
            )
        };
        let wait = r#"{"name":"w","sleep":1000,"after":[],"timeout":1000,"retry":{"attempts":1,"backoff":{"listed":[]}}}"#;
        let definition = |(number, children): (usize, &&[usize])| {
            let steps = children.iter().enumerate().map(step);
            let steps: Vec<_> = steps.chain([wait.to_owned()]).collect();
            let text = format!(r#"{{"name":"{number}","steps":[{}]}}"#, steps.join(","));
            Definition::from_canonical(&text).unwrap()
        };
        children.iter().enumerate().map(definition).collect()
    }

    #[test]
    fn circles_are_told_from_what_leads_to_them() {
        // 0 leads to the circle of 1, 2 and 3, and that to 4; 5 runs 9, which there is not.
        let definitions = definitions(&[&[1], &[2, 4], &[3], &[1], &[], &[9]]);
        let children = Children::of(&definitions);
        let comes_back =
            |index: usize, name: &str| children.comes_back(index, &name.parse().unwrap());
        assert!(comes_back(1, "2") && comes_back(2, "3") && comes_back(3, "1"));
        assert!(!comes_back(0, "1") && !comes_back(1, "4") && !comes_back(5, "9"));
        let in_circle: Vec<_> = (0..6).filter(|index| children.is_in_circle(*index)).collect();
        assert_eq!(in_circle, [1, 2, 3]);
        let place = |index: usize| children.order.iter().position(|at| *at == index).unwrap();
        assert!(place(4) < place(1) && place(1) < place(0), "{:?}", children.order);
    }
}
