//! The leave of one call to begin.

use std::sync::Arc;

use amends_engine::{Outcome, ServiceName, Timestamp};

use crate::breakers::Breakers;
use crate::breakers::settings::Ticket;

/// The leave of one call to begin, which its breaker gave. When it is dropped before the call was
/// reported on, the call did not begin, and the place of a trial is free again.
#[derive(Debug)]
pub(crate) struct Permit {
    breakers: Arc<Breakers>,
    service: ServiceName,
    ticket: Option<Ticket>,
}

impl Permit {
    pub(crate) fn new(breakers: &Arc<Breakers>, service: &ServiceName, ticket: Ticket) -> Self {
        Self { breakers: Arc::clone(breakers), service: service.clone(), ticket: Some(ticket) }
    }

    /// It tries whether the service works again.
    pub(crate) fn is_trial(&self) -> bool {
        self.ticket.is_some_and(|ticket| ticket.is_trial)
    }

    /// What came of the call. Sagas that wait for the service go on when that closes its breaker.
    pub(crate) fn report(mut self, outcome: &Outcome, at: Timestamp) {
        if let Some(ticket) = self.ticket.take()
            && self.breakers.report(&self.service, ticket, outcome, at)
        {
            self.breakers.wake.breaker_has_changed(&self.service);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A call that panics has begun, and nothing is heard of it.
        if let Some(ticket) = self.ticket.take()
            && !std::thread::panicking()
            && self.breakers.give_back(&self.service, ticket)
        {
            self.breakers.wake.trial_is_free(&self.service);
        }
    }
}
