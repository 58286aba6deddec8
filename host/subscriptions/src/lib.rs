//! Subscriptions: the events of the log reach other systems, at least once, in order within a saga.
//!
//! [`Subscriptions::open`] starts one reader of the log for all subscriptions, and one task for each of
//! them. The task sends events to its receiver and writes down how far it has come. The rules of order,
//! retries and dead letters are in `queue`, which knows neither a clock nor the network.
//!
//! Deliberately absent: exactly-once delivery (receivers recognise a repeated event by its id), a way for
//! a receiver to slow sagas down, and a choice of which of several hosts delivers (with an embedded store
//! there is one).

mod answer;
mod cloud_event;
mod definition_names;
mod delivery;
mod event;
mod filter;
mod handle;
mod incoming;
mod limits;
mod local;
mod nats;
mod nats_client;
mod nats_source;
mod outlet;
mod queue;
mod receiver;
mod resolver;
mod settings;
mod signature;
mod status;
mod stop;
mod tail;
mod webhook;

pub use cloud_event::{CLOUD_EVENT, CLOUD_EVENTS, CloudEvent};
pub use definition_names::DefinitionNames;
pub use event::NamedEvent;
pub use filter::{EventFilter, PatternError, TypePattern};
pub use handle::Subscriptions;
pub use incoming::{
    ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, INCOMING_BATCH_EVENTS_MAX, IncomingError, IncomingEvent,
};
pub use limits::{BATCH_EVENTS_MAX, DEAD_LETTERS_MAX};
pub use local::{NotTaken, TakesEvents};
pub use nats_source::{NatsSources, TakesIncoming};
pub use settings::{
    AfterDeadLetter, BatchSettings, NatsCredentials, NatsSettings, NatsSourceSettings,
    RetrySettings, SOURCE_DEFAULT, ServerAddr, StartFrom, SubscriptionSettings, Target, UrlError,
    WebhookSettings,
};
pub use signature::{
    SIGNATURE_AGE_MAX, SecretError, SignatureError, SignatureHeaders, SigningSecret, verify,
};
pub use status::SubscriptionStatus;
