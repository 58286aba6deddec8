//! The receiver of a subscription.

use std::sync::Arc;

use amends_engine::Timestamp;

use crate::answer::Answer;
use crate::event::NamedEvent;
use crate::local::{NotTaken, TakesEvents};
use crate::nats::Nats;
use crate::settings::{SubscriptionSettings, Target};
use crate::webhook::Webhook;

/// The receiver of a subscription, of whichever kind.
#[derive(Debug)]
pub(crate) enum Receiver {
    Webhook(Box<Webhook>),
    Nats(Box<Nats>),
    Local(Arc<dyn TakesEvents>),
}

impl Receiver {
    pub(crate) fn new(settings: &SubscriptionSettings) -> Self {
        let (target, source) = (settings.target.clone(), settings.source.clone());
        match target {
            Target::Webhook(webhook) => {
                Self::Webhook(Box::new(Webhook::new(webhook, source, settings.batch)))
            }
            Target::Nats(nats) => Self::Nats(Box::new(Nats::new(nats, source))),
            Target::Local(taker) => Self::Local(taker),
        }
    }

    /// Sends events. When the future is dropped, the receiver may have them.
    pub(crate) async fn send(&self, events: &[Arc<NamedEvent>], at: Timestamp) -> Answer {
        match self {
            Self::Webhook(webhook) => webhook.send(events, at).await,
            Self::Nats(nats) => nats.send(events).await,
            Self::Local(taker) => {
                for event in events {
                    if let Err(NotTaken { error, is_passing, .. }) =
                        taker.take(Arc::clone(event)).await
                    {
                        return Answer::failed(error, is_passing, None);
                    }
                }
                Answer::Delivered
            }
        }
    }
}
