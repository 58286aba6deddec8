//! Shows an event.

use serde_json::value::{RawValue, to_raw_value};

use amends_api_types::EventView;
use amends_runtime::{StoredEvent, Stream};

use crate::payloads::Payloads;

/// Shows an event with what the store has of it.
pub(crate) fn event_view(event: StoredEvent, payloads: Payloads) -> EventView {
    let event = payloads.event(event);
    let (saga, plugin, service) = match event.stream {
        Stream::Saga(id) => (Some(id.to_string()), None, None),
        Stream::Plugin(name) => (None, Some(name.to_string()), None),
        Stream::Service(name) => (None, None, Some(name.to_string())),
        // The data says what they are about.
        Stream::Deploys | Stream::Erasures | Stream::Tokens | Stream::Audit => (None, None, None),
    };
    EventView {
        version: event.version.0,
        position: event.position.0,
        at: event.at,
        saga,
        plugin,
        service,
        kind: event.kind,
        // The store gives back what the engine wrote; should it be damaged, it is shown as text.
        data: RawValue::from_string(event.data)
            .or_else(|error| to_raw_value(&error.to_string()))
            .unwrap_or_default(),
        step: None,
        idempotency_key: None,
    }
}
