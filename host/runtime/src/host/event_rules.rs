//! The rules for events of a host: what comes is taken, and how they stand.

use std::sync::Arc;

use amends_engine::{EventType, SagaId};
use amends_registry::now;
use amends_store::Stream;
use amends_subscriptions::{IncomingEvent, NamedEvent, NotTaken, SOURCE_DEFAULT};
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};

use super::{Host, StartRequest, WeakHost};
use crate::error::StartError;
use crate::event_rules::{
    EVENT_CHAIN_TAG, EventChain, EventEffect, EventError, EventOrigin, EventPort, EventRule,
    EventRuleStatus, EventsError, IncomingPort, Outcome, Plan, SignalTo,
};
use crate::limits::EVENTS_AT_ONCE;
use crate::principal::{Principal, Via};

/// What became of an event that was taken. It is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventTaken {
    /// It started this saga, now or, when `is_new` is false, when it was delivered before.
    Started {
        /// The saga.
        saga: SagaId,
        /// Whether this delivery started it.
        is_new: bool,
    },
    /// It became a signal to this saga, now or when it was delivered before.
    Signalled(SagaId),
    /// The rule takes events of another type.
    Ignored,
}

impl EventTaken {
    fn outcome(self) -> Outcome {
        match self {
            Self::Started { is_new: true, .. } => Outcome::Started,
            Self::Started { is_new: false, .. } => Outcome::Repeated,
            Self::Signalled(_) => Outcome::Signalled,
            Self::Ignored => Outcome::Ignored,
        }
    }
}

impl Host {
    /// Returns how each rule for events stands, in the order of the config.
    #[must_use]
    pub fn event_rules(&self) -> Vec<EventRuleStatus> {
        self.inner.event_rules.list()
    }

    /// Returns the rule of this name.
    #[must_use]
    pub fn event_rule(&self, name: &str) -> Option<Arc<EventRule>> {
        self.inner.event_rules.named(name).cloned()
    }

    /// Counts a delivery to a rule that is no event, or not one of a sender who knows a secret.
    pub fn refuse_events(&self, rule: &EventRule, why: &str) {
        self.inner.event_rules.count(&rule.name, Outcome::Refused);
        self.inner.event_rules.tell(&rule.name, why, now());
    }

    /// Takes events that came from outside: each does what the rule says, once, however often it comes. Returns
    /// what became of each, in their order, when all is durable. When the rule fails on one of them, none is
    /// taken. `sender` is who has shown a token with them; none when a signature or nobody vouches for them. May be
    /// cancelled; what was begun goes on.
    ///
    /// # Errors
    /// When an event has not done what the rule says. Of several errors it is one that passes, if there is
    /// one: then sending all of them again may help, and does nothing twice.
    pub async fn take_events(
        &self,
        rule: &Arc<EventRule>,
        events: Vec<IncomingEvent>,
        traceparent: Option<String>,
        sender: Option<&Principal>,
    ) -> Result<Vec<EventTaken>, EventsError> {
        let taken = self.take_all(rule, events, traceparent, sender).await;
        if let Err(error) = &taken {
            self.inner.event_rules.tell(&rule.name, &error.to_string(), now());
        }
        taken
    }

    async fn take_all(
        &self,
        rule: &Arc<EventRule>,
        events: Vec<IncomingEvent>,
        traceparent: Option<String>,
        sender: Option<&Principal>,
    ) -> Result<Vec<EventTaken>, EventsError> {
        let plans =
            self.plan(rule, events).await.inspect_err(|error| self.count(rule, &error.error))?;
        let via =
            if matches!(rule.origin, EventOrigin::Webhook(_)) { Via::Http } else { Via::Host };
        let principal = Principal::of_event_rule(&rule.name, sender, via);
        let (mut plans, mut all) = (plans.into_iter(), Vec::new());
        loop {
            let some = plans.by_ref().take(EVENTS_AT_ONCE);
            let some = some.map(|plan| self.carry_out(rule, &principal, plan, traceparent.clone()));
            let some: Vec<_> = some.collect();
            if some.is_empty() {
                break;
            }
            all.extend(join_all(some).await);
        }
        let (mut taken, mut failed) = (Vec::with_capacity(all.len()), None);
        for (index, result) in all.into_iter().enumerate() {
            match result {
                Ok(one) => taken.push(one),
                Err(error) => {
                    let failure = EventsError { index, error };
                    let is_more = |first: &EventsError| {
                        failure.error.is_passing() && !first.error.is_passing()
                    };
                    if failed.as_ref().is_none_or(is_more) {
                        failed = Some(failure);
                    }
                }
            }
        }
        failed.map_or(Ok(taken), Err)
    }

    /// Says what each event is to do.
    async fn plan(
        &self,
        rule: &Arc<EventRule>,
        events: Vec<IncomingEvent>,
    ) -> Result<Vec<Plan>, EventsError> {
        let rule = Arc::clone(rule);
        let place = self.inner.event_rules.place_for_plan().await;
        // Expressions may compute for milliseconds each.
        let planned = tokio::task::spawn_blocking(move || {
            let _place = place;
            let plan = |(index, event): (usize, &IncomingEvent)| {
                rule.plan(event).map_err(|error| EventsError { index, error })
            };
            events.iter().enumerate().map(plan).collect()
        });
        // The runtime ends, or the plan has panicked; then the same event panics again.
        planned.await.unwrap_or_else(|error| {
            let error = if error.is_panic() {
                EventError::Unreadable("its evaluation has panicked".to_owned())
            } else {
                EventError::Stopping
            };
            Err(EventsError { index: 0, error })
        })
    }

    async fn carry_out(
        &self,
        rule: &EventRule,
        principal: &Principal,
        plan: Plan,
        traceparent: Option<String>,
    ) -> Result<EventTaken, EventError> {
        let taken = match (plan, &rule.effect) {
            (Plan::Start { key, is_own_key, input, tags }, EventEffect::Start(start)) => {
                let definition = start.definition.to_string();
                let key = Some(key);
                let request =
                    StartRequest { definition, input, key, tags, traceparent, start_at: None };
                match self.start(principal, request).await {
                    Ok(started) => {
                        Ok(EventTaken::Started { saga: started.id, is_new: started.created })
                    }
                    // The same event; the rule, or the sender, has another input for it since.
                    Err(StartError::KeyReused(saga)) if is_own_key => {
                        Ok(EventTaken::Started { saga, is_new: false })
                    }
                    Err(error) => Err(error.into()),
                }
            }
            (Plan::Signal { id, to, payload }, EventEffect::Signal(signal)) => {
                let saga = match to {
                    SignalTo::Saga(saga) => Ok(saga),
                    SignalTo::Key(key) => match self.key(key.clone()).await {
                        Ok(found) => found.map(|(saga, _)| saga).ok_or(EventError::KeyUnknown(key)),
                        Err(error) => Err(error.into()),
                    },
                };
                match saga {
                    Ok(saga) => {
                        let name = signal.name.clone();
                        let sent = self.signal_at_owner(principal, saga, name, Some(id), payload);
                        sent.await.map(|()| EventTaken::Signalled(saga)).map_err(EventError::from)
                    }
                    Err(error) => Err(error),
                }
            }
            // A plan is made by the same rule.
            (Plan::Ignore | Plan::Start { .. } | Plan::Signal { .. }, _) => Ok(EventTaken::Ignored),
        };
        match &taken {
            Ok(taken) => self.inner.event_rules.count(&rule.name, taken.outcome()),
            Err(error) => self.count(rule, error),
        }
        taken
    }

    fn count(&self, rule: &EventRule, error: &EventError) {
        let outcome = if error.is_passing() { Outcome::Failed } else { Outcome::Refused };
        self.inner.event_rules.count(&rule.name, outcome);
    }
}

impl Host {
    /// Takes an event of the log. Only the domain events of plugins count: sagas that the events of the host
    /// start have such events themselves.
    async fn take_of_log(
        &self,
        rule: &Arc<EventRule>,
        named: &NamedEvent,
    ) -> Result<(), EventError> {
        if named.event.kind.parse::<EventType>().is_err() {
            return Ok(());
        }
        let event = IncomingEvent::of_log(named, SOURCE_DEFAULT)
            .map_err(|error| EventError::Unreadable(error.to_string()))?;
        let chain = match (&rule.effect, &named.event.stream) {
            (EventEffect::Start(_), Stream::Saga(saga)) => self.chain(*saga).await?,
            (EventEffect::Start(_) | EventEffect::Signal(_), _) => EventChain::default(),
        };
        let Some(longer) = chain.with(&rule.name) else {
            let error = EventError::TooDeep(chain.to_string());
            self.count(rule, &error);
            return Err(error);
        };
        let plans = self.plan(rule, vec![event]).await.map_err(|error| error.error);
        let plans = plans.inspect_err(|error| self.count(rule, error))?;
        let principal = Principal::of_event_rule(&rule.name, None, Via::Host);
        for mut plan in plans {
            if let Plan::Start { tags, .. } = &mut plan {
                tags.insert(EVENT_CHAIN_TAG.to_owned(), longer.to_string());
            }
            self.carry_out(rule, &principal, plan, None).await?;
        }
        Ok(())
    }

    /// The rules that started this saga and those before it, by domain events of one another.
    async fn chain(&self, saga: SagaId) -> Result<EventChain, EventError> {
        let row = self.saga(saga).await?;
        Ok(EventChain::of_tag(row.as_ref().and_then(|row| row.tags.get(EVENT_CHAIN_TAG))))
    }
}

impl EventPort for WeakHost {
    fn take_of_log(
        &self,
        rule: Arc<EventRule>,
        event: Arc<NamedEvent>,
    ) -> BoxFuture<'_, Result<(), NotTaken>> {
        let take = async move {
            let host = self.host().ok_or_else(|| EventError::Stopping.not_taken())?;
            host.take_of_log(&rule, &event).await.map_err(|error| {
                host.inner.event_rules.tell(&rule.name, &error.to_string(), now());
                error.not_taken()
            })
        };
        take.boxed()
    }
}

impl IncomingPort for WeakHost {
    fn take_incoming(
        &self,
        rule: Arc<EventRule>,
        event: IncomingEvent,
    ) -> BoxFuture<'_, Result<(), NotTaken>> {
        let take = async move {
            let host = self.host().ok_or_else(|| EventError::Stopping.not_taken())?;
            let taken = host.take_events(&rule, vec![event], None, None).await;
            taken.map(|_| ()).map_err(|failed| failed.error.not_taken())
        };
        take.boxed()
    }

    fn refuse_incoming(&self, rule: &EventRule, why: &str) {
        if let Some(host) = self.host() {
            host.refuse_events(rule, why);
        }
    }

    fn is_away(&self, rule: &EventRule, why: Option<String>) {
        let Some(host) = self.host() else { return };
        let (on, has_changed) =
            (&rule.name, host.inner.event_rules.set_away(&rule.name, why.is_some()));
        if let Some(error) = why {
            host.inner.event_rules.tell(&rule.name, &error, now());
            if has_changed {
                tracing::warn!(on, error, "no events come: the host tries again");
            }
        } else if has_changed {
            tracing::info!(on, "events come again");
        }
    }
}
