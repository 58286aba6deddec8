//! Rules that take domain events of the log: each is a subscription whose receiver is the host.

use std::fmt;
use std::sync::Arc;

use amends_subscriptions::{
    BatchSettings, EventFilter, NamedEvent, NotTaken, RetrySettings, SOURCE_DEFAULT, StartFrom,
    SubscriptionSettings, TakesEvents, Target,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::SetOnce;

use super::settings::{EVENT_KEY_PREFIX, EventEffect, EventOrigin, EventRule};
use crate::limits::EVENT_ATTEMPTS_MAX;

/// How the events of a rule reach the host.
pub(crate) trait EventPort: fmt::Debug + Send + Sync {
    /// Takes an event of the log, and returns when what it does is durable.
    fn take_of_log(
        &self,
        rule: Arc<EventRule>,
        event: Arc<NamedEvent>,
    ) -> BoxFuture<'_, Result<(), NotTaken>>;
}

/// The host, once there is one. A clone is the same.
pub(crate) type LateEventPort = Arc<SetOnce<Arc<dyn EventPort>>>;

/// Returns the subscriptions of the rules that take events of the log. They wait until there is a host.
pub(crate) fn subscriptions_of(
    rules: &[Arc<EventRule>],
    port: &LateEventPort,
) -> Vec<SubscriptionSettings> {
    let of_log = rules.iter().filter(|rule| matches!(rule.origin, EventOrigin::Log));
    let subscription = |rule: &Arc<EventRule>| SubscriptionSettings {
        name: format!("{EVENT_KEY_PREFIX}{}", rule.name),
        target: Target::Local(Arc::new(LogRule { rule: Arc::clone(rule), port: Arc::clone(port) })),
        filter: EventFilter { definitions: Vec::new(), types: vec![rule.event.clone()] },
        from: StartFrom::Now,
        source: SOURCE_DEFAULT.to_owned(),
        batch: BatchSettings::default(),
        retry: RetrySettings { attempts_max: EVENT_ATTEMPTS_MAX, ..RetrySettings::default() },
    };
    of_log.map(subscription).collect()
}

/// A rule that takes events of the log.
#[derive(Debug)]
struct LogRule {
    rule: Arc<EventRule>,
    port: LateEventPort,
}

impl TakesEvents for LogRule {
    fn take(&self, event: Arc<NamedEvent>) -> BoxFuture<'_, Result<(), NotTaken>> {
        async move { self.port.wait().await.take_of_log(Arc::clone(&self.rule), event).await }
            .boxed()
    }

    fn target(&self) -> String {
        match &self.rule.effect {
            EventEffect::Start(start) => format!("saga {}", start.definition),
            EventEffect::Signal(signal) => format!("signal {}", signal.name),
        }
    }
}
