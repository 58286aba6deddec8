//! Rules whose events come from streams of NATS JetStream.

use std::fmt;
use std::sync::Arc;

use amends_subscriptions::{IncomingEvent, NatsSourceSettings, NotTaken, TakesIncoming};
use futures::future::BoxFuture;

use super::settings::{EventOrigin, EventRule};

/// How events from outside reach the host.
pub(crate) trait IncomingPort: fmt::Debug + Send + Sync {
    /// Takes an event, and returns when what it does is durable.
    fn take_incoming(
        &self,
        rule: Arc<EventRule>,
        event: IncomingEvent,
    ) -> BoxFuture<'_, Result<(), NotTaken>>;

    /// Counts a message that is no event.
    fn refuse_incoming(&self, rule: &EventRule, why: &str);

    /// Tells operators that events can come, or why they cannot.
    fn is_away(&self, rule: &EventRule, why: Option<String>);
}

/// Returns the sources of the rules that have one.
pub(crate) fn sources_of(
    rules: &[Arc<EventRule>],
    port: &Arc<dyn IncomingPort>,
) -> Vec<(NatsSourceSettings, Arc<dyn TakesIncoming>)> {
    let source = |rule: &Arc<EventRule>| match &rule.origin {
        EventOrigin::Nats(settings) => {
            let taker = SourceRule { rule: Arc::clone(rule), port: Arc::clone(port) };
            let taker: Arc<dyn TakesIncoming> = Arc::new(taker);
            Some((settings.clone(), taker))
        }
        EventOrigin::Webhook(_) | EventOrigin::Log => None,
    };
    rules.iter().filter_map(source).collect()
}

/// A rule whose events come from a source.
#[derive(Debug)]
struct SourceRule {
    rule: Arc<EventRule>,
    port: Arc<dyn IncomingPort>,
}

impl TakesIncoming for SourceRule {
    fn take(&self, event: IncomingEvent) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.port.take_incoming(Arc::clone(&self.rule), event)
    }

    fn refuse(&self, why: &str) {
        self.port.refuse_incoming(&self.rule, why);
    }

    fn is_away(&self, why: Option<String>) {
        self.port.is_away(&self.rule, why);
    }
}
