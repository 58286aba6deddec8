//! Events in the JSON format of CloudEvents 1.0.
//!
//! The attribute `sequence` is the version of the event in its stream, with leading zeros, so that
//! texts sort as numbers do. The attribute `definition` names the definition of the saga.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::NamedEvent;

/// The media type of a single event.
pub const CLOUD_EVENT: &str = "application/cloudevents+json";

/// The media type of a batch of events: a JSON array.
pub const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";

/// An event as it is sent.
#[derive(Debug, Serialize)]
pub struct CloudEvent<'e> {
    specversion: &'static str,
    id: String,
    source: &'e str,
    #[serde(rename = "type")]
    kind: &'e str,
    subject: String,
    time: String,
    datacontenttype: &'static str,
    sequence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<&'e str>,
    data: Data<'e>,
}

/// The data of an event. What is no JSON, because the store is damaged, becomes a text.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Data<'e> {
    Json(&'e RawValue),
    Text(&'e str),
}

impl<'e> CloudEvent<'e> {
    /// Makes the event that is sent.
    #[must_use]
    pub fn new(event: &'e NamedEvent, source: &'e str) -> Self {
        let stored = &event.event;
        Self {
            specversion: "1.0",
            id: event.id(),
            source,
            kind: &stored.kind,
            subject: event.subject(),
            time: stored.at.to_string(),
            datacontenttype: "application/json",
            sequence: format!("{:020}", stored.version.0),
            definition: event.definition.as_deref(),
            data: serde_json::from_str(&stored.data).map_or(Data::Text(&stored.data), Data::Json),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_engine::{Position, Timestamp, Version};
    use amends_store::{StoredEvent, Stream};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_has_the_attributes_of_the_standard() {
        let id = "0198f3a2-0000-7000-8000-000000000001";
        let event = StoredEvent {
            position: Position(40),
            stream: Stream::Saga(id.parse().unwrap()),
            version: Version(3),
            at: Timestamp::from_millis(1_772_357_400_000),
            kind: "step.failed".to_owned(),
            data: r#"{"step":"charge","n":1.50}"#.to_owned(),
        };
        let named = NamedEvent { event, definition: Some("order".into()) };
        let text = serde_json::to_string(&CloudEvent::new(&named, "/amends")).unwrap();
        let expected = json!({
            "specversion": "1.0",
            "id": format!("{id}/3"),
            "source": "/amends",
            "type": "step.failed",
            "subject": id,
            "time": "2026-03-01T09:30:00.000Z",
            "datacontenttype": "application/json",
            "sequence": "00000000000000000003",
            "definition": "order",
            "data": { "step": "charge", "n": 1.5 },
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
        assert!(text.contains("1.50"), "the data goes out as it is recorded: {text}");
        let stored = StoredEvent { stream: Stream::Deploys, data: "{".to_owned(), ..named.event };
        let damaged = NamedEvent { event: stored, definition: None };
        let shown = serde_json::to_value(CloudEvent::new(&damaged, "/amends")).unwrap();
        assert_eq!((&shown["subject"], &shown["data"]), (&json!("deploys"), &json!("{")));
        assert_eq!(shown["id"], json!("deploys/3"));
        assert!(shown.get("definition").is_none());
    }
}
