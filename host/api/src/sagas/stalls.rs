//! What holds a saga back outside its events.

use std::fmt::Write as _;

use amends_runtime::{SagaState, Stall, StallReason};

/// The most reasons that are given for one saga.
const REASONS_MAX: usize = 3;

/// The most calls that are named for one reason: a list has a thousand elements.
const CALLS_MAX: usize = 3;

/// Says what holds a saga back, as clauses. The calls that wait for the same thing share one.
pub(crate) fn held_back(state: &SagaState) -> Vec<String> {
    let mut reasons: Vec<(&StallReason, Vec<&Stall>)> = Vec::new();
    for stall in &state.stalls {
        match reasons.iter_mut().find(|(reason, _)| **reason == stall.reason) {
            Some((_, calls)) => calls.push(stall),
            None => reasons.push((&stall.reason, vec![stall])),
        }
    }
    let more = reasons.len().saturating_sub(REASONS_MAX);
    let said = reasons.iter().take(REASONS_MAX).map(|(reason, calls)| {
        let verb = if calls.len() == 1 { "waits" } else { "wait" };
        format!("{} {verb} for {reason}", names(calls))
    });
    let more = (more > 0).then(|| format!("and {more} more reasons"));
    state.unrecorded.iter().cloned().chain(said).chain(more).collect()
}

/// Lists calls: `a`, `a and b`, or `a, b, c and 7 more`.
fn names(calls: &[&Stall]) -> String {
    let mut names: Vec<_> = calls.iter().take(CALLS_MAX).map(|stall| stall.call()).collect();
    let more = calls.len().saturating_sub(CALLS_MAX);
    let last = if more > 0 { Some(format!("{more} more")) } else { names.pop() };
    let (mut text, last) = (names.join(", "), last.unwrap_or_default());
    if text.is_empty() {
        return last;
    }
    let _ = write!(text, " and {last}");
    text
}

#[cfg(test)]
mod tests {
    use amends_engine::{Direction, PluginName};
    use amends_runtime::RoomKey;

    use super::*;

    fn stall(step: &str, direction: Direction, plugin: &str) -> Stall {
        let plugin: PluginName = plugin.parse().unwrap_or_else(|_| panic!("a name"));
        let reason = StallReason::NoRoom(RoomKey::Plugin(plugin));
        let step = step.parse().unwrap_or_else(|_| panic!("a name"));
        Stall { step, direction, reason }
    }

    #[test]
    fn calls_that_wait_for_the_same_share_a_clause() {
        let mut stalls = vec![
            stall("a", Direction::Execute, "one"),
            stall("b", Direction::Execute, "two"),
            stall("c", Direction::Compensate, "one"),
        ];
        let one = stalls.iter().filter(|stall| stall.step.as_str() != "b").collect::<Vec<_>>();
        assert_eq!(names(&one), "a and the undo of c");
        assert_eq!(names(&one[..1]), "a");
        stalls.extend((0..7).map(|number| stall(&format!("d{number}"), Direction::Execute, "one")));
        assert_eq!(names(&stalls.iter().collect::<Vec<_>>()), "a, b, the undo of c and 7 more");
    }
}
