//! The operator: which orders they may give, and that each is heard.

use super::World;
use crate::sim::action::OrderKind;
use crate::sim::stage::Result;
use crate::sim::stage::orders::order;
use crate::{Input, Verb, decide_on};

impl World<'_> {
    /// Returns true when an operator may give this order now, as far as the host has noticed.
    pub(in crate::sim) fn may(&self, ordered: OrderKind, step: usize) -> bool {
        self.stage.may((&self.memory.saga, self.now), self.now, (ordered, step))
    }

    /// Gives an order, if it is permitted.
    pub(super) fn order(&mut self, ordered: OrderKind, step: usize) -> Result<()> {
        if !self.may(ordered, step) {
            return Ok(());
        }
        let verb = self.stage.verb(ordered, step);
        if ordered == OrderKind::Resolve && self.stage.is_undone_by_hand(step) {
            self.stage.ledger.steps[step].stands = false;
        }
        self.operate(&verb)
    }

    /// Gives an order with this verb.
    pub(super) fn operate(&mut self, verb: &Verb) -> Result<()> {
        self.feed_and_hear(Input::Operate(order("sim", verb.clone())), "operator.", Some(verb))
    }

    /// Gives an order or a signal, and checks the answer. `fact` is the beginning of the fact's
    /// type.
    pub(super) fn feed_and_hear(
        &mut self,
        input: Input,
        fact: &str,
        verb: Option<&Verb>,
    ) -> Result<()> {
        let refused = decide_on(&mut self.memory.saga.clone(), self.now, input.clone()).refused;
        let from = self.stage.log.len();
        self.feed(input)?;
        let events = self.stage.log[from..].iter().map(|(_, event)| &**event);
        let is_fulfilled = verb.is_some_and(|verb| self.stage.record.is_fulfilled(verb));
        self.stage.check_answer(refused.as_ref(), events, fact, is_fulfilled)
    }
}
