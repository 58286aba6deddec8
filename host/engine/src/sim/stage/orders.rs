//! The operator: what an order says, and whether its answer is true.

use super::calls::output_of;
use super::{Result, Stage};
use crate::sim::action::OrderKind;
use crate::sim::record::{Record, Wait};
use crate::{Event, Order, Payload, Refusal, Saga, Timestamp, Verb, permits};

impl Stage<'_> {
    /// Returns true when an operator may give this order now, as far as the host has noticed.
    pub(in crate::sim) fn may(
        &self,
        (saga, at): (&Saga, Timestamp),
        now: Timestamp,
        (ordered, step): (OrderKind, usize),
    ) -> bool {
        let knows = match ordered {
            // An operator who says that a call did not happen has made sure that it will not.
            OrderKind::Resolve => !self.ledger.may_land(step, now),
            OrderKind::Edit => self.units.has_effect(&self.definition, step),
            OrderKind::Retry
            | OrderKind::Skip
            | OrderKind::Pause
            | OrderKind::Resume
            | OrderKind::Compensate
            | OrderKind::Note
            | OrderKind::Abandon => true,
        };
        knows && permits(saga, at, &order("sim", self.verb(ordered, step))).is_ok()
    }

    /// Makes the verb of an order.
    pub(in crate::sim) fn verb(&self, ordered: OrderKind, step: usize) -> Verb {
        let named = Some(self.units.name(step).clone());
        match ordered {
            OrderKind::Retry => Verb::Retry { step: named, input: None, digest: None },
            OrderKind::Edit => {
                let edited = serde_json::json!({"edited": self.record.steps[step].edits + 1});
                let input = Payload::from_value(&edited).ok();
                Verb::Retry { step: named, input, digest: None }
            }
            OrderKind::Skip => Verb::Skip { step: named, undo: self.is_undone_by_hand(step) },
            OrderKind::Resolve => {
                let effect = &self.ledger.steps[step];
                let waits = self.record.steps[step].waits != Wait::No;
                // Only some operators know the output.
                let undo = self.is_undone_by_hand(step);
                let is_known = !undo && effect.stands && step.is_multiple_of(2);
                let output = is_known.then(|| output_of(step));
                let (happened, evidence) = (effect.stands || waits, "seen".to_owned());
                Verb::Resolve { step: named, happened, output, evidence, undo }
            }
            OrderKind::Pause => Verb::Pause,
            OrderKind::Resume => Verb::Resume,
            OrderKind::Compensate => Verb::Compensate,
            OrderKind::Note => Verb::Note,
            OrderKind::Abandon => Verb::Abandon,
        }
    }

    /// Returns true when an order about a step is about its undo.
    pub(in crate::sim) fn is_undone_by_hand(&self, step: usize) -> bool {
        let has_undo = self.definition.steps()[self.units.step(step)].undo.is_some();
        self.record.is_compensating && has_undo
    }

    /// Checks the answer to an order or a signal that led to `events`. An acknowledged one has a fact in the log, unless
    /// it was fulfilled already; a refused one has none. `fact` is the beginning of the fact's type.
    pub(in crate::sim) fn check_answer<'e>(
        &self,
        refused: Option<&Refusal>,
        mut events: impl Iterator<Item = &'e Event>,
        fact: &str,
        is_fulfilled: bool,
    ) -> Result<()> {
        let is_in_log = events.any(|event| event.kind().starts_with(fact));
        if refused.is_some() == is_in_log && !(refused.is_none() && is_fulfilled) {
            let answer = if refused.is_some() { "refused" } else { "acknowledged" };
            let so = if is_in_log { "recorded" } else { "not recorded" };
            return Err(self.violation(format!("an order or a signal is {answer} and {so}")));
        }
        Ok(())
    }
}

/// Makes an order of a verb.
pub(in crate::sim) fn order(who: &str, verb: Verb) -> Order {
    Order { who: who.to_owned(), reason: "a test".to_owned(), verb }
}

impl Record {
    /// Returns true when a saga is already as an order wants it.
    pub(in crate::sim) fn is_fulfilled(&self, verb: &Verb) -> bool {
        let undoes = matches!(verb, Verb::Cancel | Verb::Compensate);
        let pauses = matches!(verb, Verb::Pause);
        let is_undone = self.is_cancelled || self.is_compensating;
        let has_ended = self.has_ended && !self.is_completed;
        undoes && is_undone || has_ended || pauses && self.is_paused
    }
}
