//! Whether an answer shows payloads and plugin state, or [`WITHHELD`](amends_engine::WITHHELD) in their place.
//!
//! Whatever makes a part of an answer that may have a payload takes [`Payloads`], so that no handler can forget
//! them. Deliberately absent: texts for people, such as the message of a failure or the reason of an order.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use amends_api_types::SagaView;
use amends_engine::{
    Payload, Saga, Timestamp, WITHHELD, Why, why, why_withheld, withhold_payloads, withhold_state,
};
use amends_runtime::{Permission, StoredEvent, Stream};

use crate::caller::Caller;

/// Whether the caller sees payloads and plugin state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payloads {
    /// The answer has them as they are.
    Shown,
    /// The answer has [`WITHHELD`] in their place.
    Withheld,
}

impl Payloads {
    /// Shows or withholds a payload.
    pub(crate) fn payload(self, payload: Payload) -> Payload {
        match self {
            Self::Shown => payload,
            Self::Withheld => Payload::withheld(),
        }
    }

    /// Shows or withholds a payload that may be absent. One that is absent stays absent.
    pub(crate) fn optional(self, payload: Option<Payload>) -> Option<Payload> {
        payload.map(|payload| self.payload(payload))
    }

    /// Shows or withholds a text that has payloads in it.
    pub(crate) fn text(self, text: String) -> String {
        match self {
            Self::Shown => text,
            Self::Withheld => WITHHELD.to_owned(),
        }
    }

    /// Shows an event, or the event without the payloads and the plugin state in its data. What the audit has of a
    /// request is shown by its own operation alone, which asks for another permission.
    pub(crate) fn event(self, event: StoredEvent) -> StoredEvent {
        let data = match (&event.stream, self) {
            (Stream::Audit, Self::Shown | Self::Withheld) => {
                Payload::withheld().as_str().to_owned()
            }
            (Stream::Saga(_), Self::Withheld) => withhold_payloads(&event.kind, &event.data),
            (Stream::Plugin(_), Self::Withheld) => withhold_state(&event.kind, &event.data),
            (_, Self::Shown)
            | (
                Stream::Service(_) | Stream::Deploys | Stream::Erasures | Stream::Tokens,
                Self::Withheld,
            ) => return event,
        };
        StoredEvent { data, ..event }
    }

    /// Shows or withholds the payloads of a saga that another host has shown.
    pub(crate) fn saga(self, mut view: SagaView) -> SagaView {
        if self == Self::Shown {
            return view;
        }
        view.input = self.payload(view.input);
        view.output = self.optional(view.output);
        for step in &mut view.steps {
            step.input = self.optional(step.input.take());
            step.output = self.optional(step.output.take());
            if let Some(error) = &mut step.error {
                error.details = self.optional(error.details.take());
            }
        }
        view
    }

    /// Explains the state of a saga at `at`, with or without the outputs that the sentence quotes.
    pub(crate) fn why(self, saga: &Saga, at: Timestamp) -> Why {
        match self {
            Self::Shown => why(saga, at),
            Self::Withheld => why_withheld(saga, at),
        }
    }
}

/// What the caller of the request may see. Of a request without a caller, payloads are withheld.
impl<S: Send + Sync> FromRequestParts<S> for Payloads {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>();
        let sees = caller.is_some_and(|caller| caller.permissions().has(Permission::Payloads));
        Ok(if sees { Self::Shown } else { Self::Withheld })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_engine::{Position, SagaId, Version};
    use axum::http::Request;
    use serde_json::{Value, json};

    use super::*;

    fn event(stream: Stream, kind: &str, data: &Value) -> StoredEvent {
        StoredEvent {
            position: Position(7),
            stream,
            version: Version(3),
            at: Timestamp::from_millis(1_000),
            kind: kind.to_owned(),
            data: data.to_string(),
        }
    }

    #[test]
    fn an_event_has_no_payload_and_no_state_unless_they_are_shown() {
        let saga = || Stream::Saga(SagaId::from_bytes([7; 16]));
        let plugin = || Stream::Plugin("inventory".parse().unwrap());
        let service = || Stream::Service("carrier".parse().unwrap());
        let signal = json!({"name": "approved", "payload": "4711"});
        let set = json!({"who": "ada", "key": "4711", "value": "4711"});
        let all = [
            (event(saga(), "signal.received", &signal), true),
            (event(saga(), "order.made", &json!({"number": "4711"})), true),
            (event(plugin(), "operator.state_set", &set), true),
            (event(service(), "breaker.closed", &json!({})), false),
            (event(Stream::Deploys, "plugin.activated", &json!({"components": []})), false),
            (event(Stream::Erasures, "subject.erased", &json!({"who": "ada"})), false),
            (event(Stream::Tokens, "token.revoked", &json!({"id": "1"})), false),
        ];
        for (event, is_changed) in all {
            assert_eq!(Payloads::Shown.event(event.clone()), event);
            let shown = Payloads::Withheld.event(event.clone());
            assert!(!shown.data.contains("4711"), "{shown:?}");
            assert_eq!(shown != event, is_changed, "{shown:?}");
            assert_eq!(StoredEvent { data: event.data.clone(), ..shown }, event);
        }
    }

    #[test]
    fn what_the_audit_has_is_shown_by_its_own_operation_alone() {
        let entry = event(Stream::Audit, "audit.recorded", &json!({"who": "ada"}));
        for payloads in [Payloads::Shown, Payloads::Withheld] {
            let shown = payloads.event(entry.clone());
            assert_eq!(shown.data, "\"[withheld]\"");
            assert_eq!(StoredEvent { data: entry.data.clone(), ..shown }, entry);
        }
    }

    #[test]
    fn an_absent_payload_stays_absent() {
        let payload = || Payload::parse("4711").unwrap();
        assert_eq!(Payloads::Shown.optional(Some(payload())), Some(payload()));
        assert_eq!(Payloads::Withheld.optional(Some(payload())), Some(Payload::withheld()));
        for payloads in [Payloads::Shown, Payloads::Withheld] {
            assert_eq!(payloads.optional(None), None);
        }
    }

    #[tokio::test]
    async fn nobody_sees_payloads_unless_somebody_says_who_asks() {
        let (mut parts, ()) = Request::new(()).into_parts();
        let Ok(payloads) = Payloads::from_request_parts(&mut parts, &()).await;
        assert_eq!(payloads, Payloads::Withheld);
    }
}
