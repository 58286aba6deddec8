//! The operator: which orders they may give, and that each is heard.

use super::calls::output_of;
use super::{Result, World};
use crate::sim::action::OrderKind;
use crate::sim::record::{Record, Wait};
use crate::{Input, Order, Payload, Verb, decide_on, permits};

impl World<'_> {
    /// Returns true when an operator may give this order now, as far as the host has noticed.
    pub(in crate::sim) fn may(&self, ordered: OrderKind, step: usize) -> bool {
        let knows = match ordered {
            // An operator who says that a call did not happen has made sure that it will not.
            OrderKind::Resolve => !self.ledger.may_land(step, self.now),
            OrderKind::Edit => self.units.has_effect(&self.definition, step),
            OrderKind::Retry
            | OrderKind::Skip
            | OrderKind::Pause
            | OrderKind::Resume
            | OrderKind::Compensate
            | OrderKind::Note
            | OrderKind::Abandon => true,
        };
        knows && permits(&self.saga, self.now, &order(self.verb(ordered, step))).is_ok()
    }

    /// Makes the verb of an order.
    fn verb(&self, ordered: OrderKind, step: usize) -> Verb {
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
    fn is_undone_by_hand(&self, step: usize) -> bool {
        let has_undo = self.definition.steps()[self.units.step(step)].undo.is_some();
        self.record.is_compensating && has_undo
    }

    /// Gives an order, if it is permitted.
    pub(super) fn order(&mut self, ordered: OrderKind, step: usize) -> Result<()> {
        if !self.may(ordered, step) {
            return Ok(());
        }
        let verb = self.verb(ordered, step);
        if ordered == OrderKind::Resolve && self.is_undone_by_hand(step) {
            self.ledger.steps[step].stands = false;
        }
        self.operate(verb, |record| ordered == OrderKind::Pause && record.is_paused)
    }

    /// Gives an order with this verb. `is_done` says whether it was fulfilled already.
    pub(super) fn operate(&mut self, verb: Verb, is_done: impl Fn(&Record) -> bool) -> Result<()> {
        let undoes = matches!(verb, Verb::Cancel | Verb::Compensate);
        self.feed_and_hear(Input::Operate(order(verb)), "operator.", |record| {
            let is_undone = record.is_cancelled || record.is_compensating;
            let ended = record.has_ended && !record.is_completed;
            undoes && is_undone || ended || is_done(record)
        })
    }

    /// Gives an order or a signal, and checks the answer. An acknowledged one has a fact in the
    /// log, unless it was fulfilled already; a refused one has none. `fact` is the beginning of the
    /// fact's type.
    pub(super) fn feed_and_hear(
        &mut self,
        input: Input,
        fact: &str,
        is_done: impl Fn(&Record) -> bool,
    ) -> Result<()> {
        let refused = decide_on(&mut self.saga.clone(), self.now, input.clone()).refused;
        let from = self.log.len();
        self.feed(input)?;
        let is_in_log = self.log[from..].iter().any(|(_, event)| event.kind().starts_with(fact));
        if refused.is_some() == is_in_log && !(refused.is_none() && is_done(&self.record)) {
            let answer = if refused.is_some() { "refused" } else { "acknowledged" };
            let so = if is_in_log { "recorded" } else { "not recorded" };
            return Err(self.violation(format!("an order or a signal is {answer} and {so}")));
        }
        Ok(())
    }
}

/// Makes an order of a verb.
fn order(verb: Verb) -> Order {
    Order { who: "sim".to_owned(), reason: "a test".to_owned(), verb }
}
