//! Events in a stream of NATS JetStream: each is a message of its own.
//!
//! The messages of a request are published one after the other, each when the stream has the one before. So
//! the events of a saga reach the stream in order also when one of them has to be sent again. The header
//! `Nats-Msg-Id` lets the stream leave out what it has already, for as long as its duplicate window says.

use std::error::Error;
use std::sync::Arc;

use async_nats::connection::State;
use async_nats::header::{HeaderMap, NATS_MESSAGE_ID};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::{Client, jetstream};
use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::answer::{Answer, with_causes};
use crate::cloud_event::{CLOUD_EVENT, CloudEvent};
use crate::event::NamedEvent;
use crate::nats_client::{LastError, connect};
use crate::settings::NatsSettings;

/// The client of one NATS server, or of the cluster that it belongs to.
#[derive(Debug)]
pub(crate) struct Nats {
    settings: NatsSettings,
    source: String,
    /// Made with the first event. It connects again by itself.
    client: OnceCell<Client>,
    last_error: LastError,
}

impl Nats {
    pub(crate) fn new(settings: NatsSettings, source: String) -> Self {
        let (client, last_error) = Default::default();
        Self { settings, source, client, last_error }
    }

    /// Publishes events. When the future is dropped, the stream may have some of them.
    pub(crate) async fn send(&self, events: &[Arc<NamedEvent>]) -> Answer {
        let client = match self.client().await {
            Ok(client) => client,
            Err(error) => return Answer::failed(with_causes(&*error), true, None),
        };
        if client.connection_state() != State::Connected {
            let error = format!("no connection: {}", self.last_error.text());
            return Answer::failed(error, true, None);
        }
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(self.settings.timeout);
        for event in events {
            let published = tokio::time::timeout(
                self.settings.timeout,
                publish(&jetstream, self.subject(event), &self.source, event),
            );
            match published.await {
                Ok(Answer::Delivered) => {}
                Ok(answer) => return answer,
                Err(_) => {
                    let error = format!("no answer within {:?}", self.settings.timeout);
                    return Answer::failed(error, true, None);
                }
            }
        }
        Answer::Delivered
    }

    async fn client(&self) -> Result<&Client, Box<dyn Error + Send + Sync>> {
        let NatsSettings { server, credentials, .. } = &self.settings;
        let connect = || connect(server, credentials.as_ref(), &self.last_error);
        self.client.get_or_try_init(connect).await
    }

    /// Returns the subject of an event: `amends.order-fulfillment.saga.started`. An event of no saga has `_` in
    /// place of the definition.
    fn subject(&self, event: &NamedEvent) -> String {
        let definition = event.definition.as_deref().unwrap_or("_");
        // Characters that mean something else in a subject, or nothing.
        let is_free = |c: char| c.is_ascii_graphic() && !matches!(c, '*' | '>' | '$');
        let kind = event.event.kind.chars().map(|c| if is_free(c) { c } else { '_' });
        let kind: String = kind.collect();
        let tokens: Vec<_> =
            kind.split('.').map(|token| if token.is_empty() { "_" } else { token }).collect();
        format!("{}.{definition}.{}", self.settings.subject, tokens.join("."))
    }
}

/// Publishes one event, and waits until the stream has it.
async fn publish(
    jetstream: &jetstream::Context,
    subject: String,
    source: &str,
    event: &NamedEvent,
) -> Answer {
    let body = match serde_json::to_vec(&CloudEvent::new(event, source)) {
        Ok(body) => Bytes::from(body),
        Err(error) => return Answer::failed(error.to_string(), false, None),
    };
    let mut headers = HeaderMap::new();
    // Stores that share a stream have sources that differ. A store that was restored gives a version anew,
    // at another time.
    let (id, at) = (event.id(), event.event.at.as_millis());
    headers.insert(NATS_MESSAGE_ID, format!("{source}/{id}/{at}"));
    headers.insert("content-type", CLOUD_EVENT);
    let published =
        async { jetstream.publish_with_headers(subject.clone(), headers, body).await?.await };
    let Err(error) = published.await else { return Answer::Delivered };
    match error.kind() {
        PublishErrorKind::StreamNotFound => {
            let error = format!("no stream of the server takes the subject {subject}");
            Answer::failed(error, false, None)
        }
        PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::MaxAckPending => Answer::failed(with_causes(&error), true, None),
        PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::WrongLastSequence
        | PublishErrorKind::MaxPayloadExceeded => Answer::failed(with_causes(&error), false, None),
        PublishErrorKind::Other => {
            // The stream is full, or has no leader or no resources: that is not about the event.
            let cause = error.source().and_then(|cause| cause.downcast_ref::<jetstream::Error>());
            let is_away = cause.is_some_and(|cause| cause.code() == 503);
            Answer::failed(with_causes(&error), is_away, None)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::time::Duration;

    use amends_engine::{Position, Timestamp, Version};
    use amends_store::{StoredEvent, Stream};

    use super::*;

    #[test]
    fn a_subject_has_no_characters_that_mean_something_else() {
        let settings = NatsSettings {
            server: "nats://127.0.0.1".parse().unwrap(),
            subject: "shop.amends".to_owned(),
            credentials: None,
            timeout: Duration::from_secs(1),
        };
        let nats = Nats::new(settings, "/amends".to_owned());
        let event = |kind: &str, definition: Option<&str>| NamedEvent {
            event: StoredEvent {
                position: Position(1),
                stream: Stream::Deploys,
                version: Version(1),
                at: Timestamp::from_millis(0),
                kind: kind.to_owned(),
                data: "{}".to_owned(),
            },
            definition: definition.map(Into::into),
        };
        for (kind, definition, subject) in [
            ("saga.started", Some("order"), "shop.amends.order.saga.started"),
            ("plugin.activated", None, "shop.amends._.plugin.activated"),
            ("a b*.>..é.", Some("order"), "shop.amends.order.a_b_._._._._"),
        ] {
            assert_eq!(nats.subject(&event(kind, definition)), subject);
        }
    }
}
