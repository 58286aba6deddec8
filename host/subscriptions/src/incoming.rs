//! Events that other systems send, as CloudEvents 1.0: in the JSON format, alone or in a batch, or with
//! their attributes in headers.
//!
//! Deliberately absent: data that are not JSON, because a saga's input is JSON.

use std::collections::BTreeMap;

use amends_engine::{Payload, PayloadError, Timestamp, check_json, is_steering};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::event::NamedEvent;

/// The bytes of one attribute of an event. Start keys, tags and log lines are made of some.
pub const ATTRIBUTE_BYTES_MAX: usize = 1_024;

/// The attributes of an event, extensions included.
pub const ATTRIBUTES_MAX: usize = 64;

/// The events of a batch that comes in. Each may start a saga, and the answer waits for all of them.
pub const INCOMING_BATCH_EVENTS_MAX: usize = 256;

/// An event of another system, or of the host's own log.
#[derive(Debug, Clone)]
pub struct IncomingEvent {
    /// The attributes, by name: `id`, `source`, `type` and `specversion` are there.
    attributes: BTreeMap<String, Value>,
    /// The data; `null` when there are none.
    data: Payload,
}

/// Why something is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IncomingError {
    /// The text is not JSON that every reader understands the same.
    #[error("it is not valid JSON: {0}")]
    Json(String),
    /// The text is JSON of another form.
    #[error("it is no {0}")]
    Form(&'static str),
    /// A batch has too many events.
    #[error("the batch has {0} events, at most {INCOMING_BATCH_EVENTS_MAX} are allowed")]
    BatchTooLong(usize),
    /// The event has too many attributes.
    #[error("the event has {0} attributes, at most {ATTRIBUTES_MAX} are allowed")]
    AttributesTooMany(usize),
    /// An attribute is missing or wrong.
    #[error("the attribute `{attribute}` {why}")]
    Attribute {
        /// The name of the attribute, shortened.
        attribute: String,
        /// What is wrong with it.
        why: String,
    },
    /// One event of a batch is wrong.
    #[error("event {index} of the batch, counted from 0: {error}")]
    InBatch {
        /// Which one.
        index: usize,
        /// What is wrong with it.
        error: Box<IncomingError>,
    },
}

/// Characters of an attribute's name that an error has.
const NAME_SHOWN_CHARS: usize = 40;

fn wrong(attribute: &str, why: impl Into<String>) -> IncomingError {
    let attribute = attribute.chars().take(NAME_SHOWN_CHARS).collect();
    IncomingError::Attribute { attribute, why: why.into() }
}

impl IncomingEvent {
    /// Reads an event in the JSON format (`application/cloudevents+json`).
    ///
    /// # Errors
    /// When the text is no event; the error names the attribute.
    pub fn parse(text: &str) -> Result<Self, IncomingError> {
        check_json(text).map_err(|error| IncomingError::Json(error.to_string()))?;
        Self::parse_checked(text)
    }

    /// Reads a batch in the JSON format (`application/cloudevents-batch+json`), which may be empty.
    ///
    /// # Errors
    /// When the text is no batch, has too many events, or one of them is wrong.
    pub fn parse_batch(text: &str) -> Result<Vec<Self>, IncomingError> {
        check_json(text).map_err(|error| IncomingError::Json(error.to_string()))?;
        let items: Vec<&RawValue> =
            serde_json::from_str(text).map_err(|_| IncomingError::Form("JSON array of events"))?;
        if items.len() > INCOMING_BATCH_EVENTS_MAX {
            return Err(IncomingError::BatchTooLong(items.len()));
        }
        let parse = |(index, item): (usize, &&RawValue)| {
            let in_batch = |error| IncomingError::InBatch { index, error: Box::new(error) };
            Self::parse_checked(item.get()).map_err(in_batch)
        };
        items.iter().enumerate().map(parse).collect()
    }

    fn parse_checked(text: &str) -> Result<Self, IncomingError> {
        let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)
            .map_err(|_| IncomingError::Form("JSON object of an event"))?;
        let data = match (fields.remove("data"), fields.remove("data_base64")) {
            (Some(_), Some(_)) => return Err(wrong("data_base64", "stands beside `data`")),
            (Some(data), None) => payload("data", data.get())?,
            (None, Some(data)) => of_base64(data.get())?,
            (None, None) => Payload::null(),
        };
        if fields.len() > ATTRIBUTES_MAX {
            return Err(IncomingError::AttributesTooMany(fields.len()));
        }
        let mut attributes = BTreeMap::new();
        for (name, value) in fields {
            let value: Value = serde_json::from_str(value.get())
                .map_err(|error| IncomingError::Json(error.to_string()))?;
            // The format has null for an attribute that is absent.
            if !value.is_null() {
                attributes.insert(name, value);
            }
        }
        Self::new(attributes, data)
    }

    /// Makes an event of attributes that came apart from its data, as in the headers of HTTP.
    ///
    /// # Errors
    /// When an attribute is missing or wrong.
    pub fn of_attributes(
        attributes: BTreeMap<String, String>,
        data: Option<&str>,
    ) -> Result<Self, IncomingError> {
        if attributes.len() > ATTRIBUTES_MAX {
            return Err(IncomingError::AttributesTooMany(attributes.len()));
        }
        let data = data.map_or_else(|| Ok(Payload::null()), |text| payload("data", text))?;
        let text = |(name, value)| (name, Value::String(value));
        Self::new(attributes.into_iter().map(text).collect(), data)
    }

    fn new(attributes: BTreeMap<String, Value>, data: Payload) -> Result<Self, IncomingError> {
        for (name, value) in &attributes {
            let text = match value {
                Value::String(text) => text,
                Value::Bool(_) | Value::Number(_) => continue,
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(wrong(name, "is no text, no number and neither true nor false"));
                }
            };
            if text.len() > ATTRIBUTE_BYTES_MAX || name.len() > ATTRIBUTE_BYTES_MAX {
                let bytes = text.len().max(name.len());
                let why = format!("has {bytes} bytes, at most {ATTRIBUTE_BYTES_MAX} are allowed");
                return Err(wrong(name, why));
            }
            if let Some(found) = text.chars().chain(name.chars()).find(|c| is_steering(*c)) {
                let why = format!("has a control character, U+{:04X}", u32::from(found));
                return Err(wrong(name, why));
            }
        }
        let event = Self { attributes, data };
        for name in ["specversion", "id", "source", "type"] {
            match event.attributes.get(name) {
                None => return Err(wrong(name, "is missing")),
                Some(Value::String(text)) if text.trim().is_empty() => {
                    return Err(wrong(name, "is empty"));
                }
                Some(Value::String(_)) => {}
                Some(_) => return Err(wrong(name, "is no text")),
            }
        }
        if event.text("specversion") != "1.0" {
            return Err(wrong("specversion", "is not 1.0"));
        }
        if event.source().contains(char::is_whitespace) {
            return Err(wrong("source", "is no URI: it has a blank"));
        }
        for name in ["subject", "time"] {
            if event.attributes.get(name).is_some_and(|value| !value.is_string()) {
                return Err(wrong(name, "is no text"));
            }
        }
        let time = event.text("time");
        if !time.is_empty() && time.parse::<Timestamp>().is_err() {
            return Err(wrong("time", "is no time such as 2026-03-01T09:30:00Z"));
        }
        Ok(event)
    }

    /// Makes the event that an event of the log is for the rules of the same host.
    ///
    /// # Errors
    /// When the log is damaged there.
    pub fn of_log(named: &NamedEvent, source: &str) -> Result<Self, PayloadError> {
        let stored = &named.event;
        let mut attributes = BTreeMap::from([
            ("specversion", "1.0".to_owned()),
            ("id", named.id()),
            ("source", source.to_owned()),
            ("type", stored.kind.clone()),
            ("subject", named.subject()),
            ("time", stored.at.to_string()),
        ]);
        attributes.extend(named.definition.as_deref().map(|name| ("definition", name.to_owned())));
        let text = |(name, value): (&str, String)| (name.to_owned(), Value::String(value));
        Ok(Self {
            attributes: attributes.into_iter().map(text).collect(),
            data: Payload::recorded(&stored.data)?,
        })
    }

    fn text(&self, name: &str) -> &str {
        self.attributes.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the id: unique among the events of the source.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// Returns where the event happened: a URI without blanks.
    #[must_use]
    pub fn source(&self) -> &str {
        self.text("source")
    }

    /// Returns the type.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("type")
    }

    /// Returns the data; `null` when there are none.
    #[must_use]
    pub fn data(&self) -> &Payload {
        &self.data
    }

    /// Returns the event as expressions see it, and its size in bytes. `subject` and `time` are null when
    /// the event has none.
    ///
    /// # Errors
    /// When the data have no definite value, because an earlier version recorded them.
    pub fn to_value(&self) -> Result<(Value, usize), PayloadError> {
        let mut fields = Map::new();
        for name in ["subject", "time"] {
            fields.insert(name.to_owned(), Value::Null);
        }
        let bytes = |value: &Value| value.as_str().map_or(8, str::len);
        let bytes: usize =
            self.attributes.iter().map(|(name, value)| name.len() + bytes(value)).sum();
        fields.extend(self.attributes.clone());
        fields.insert("data".to_owned(), self.data.to_value()?);
        Ok((Value::Object(fields), bytes + self.data.as_str().len()))
    }
}

fn payload(attribute: &str, text: &str) -> Result<Payload, IncomingError> {
    Payload::parse(text).map_err(|error| wrong(attribute, format!("cannot be taken: {error}")))
}

/// Reads the data of `data_base64`. They have to be JSON, as `datacontenttype` says or leaves out.
fn of_base64(text: &str) -> Result<Payload, IncomingError> {
    let name = "data_base64";
    let text: String = serde_json::from_str(text).map_err(|_| wrong(name, "is no text"))?;
    let bytes = STANDARD.decode(text).map_err(|_| wrong(name, "is not base64"))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(name, "has data that are not JSON"))?;
    payload(name, &text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({
            "specversion": "1.0", "id": "7", "source": "/shop", "type": "order.placed",
            "data": {"order_id": "a", "price": 1.50},
        })
    }

    fn with(name: &str, value: Value) -> Result<IncomingEvent, IncomingError> {
        let mut event = event();
        event[name] = value;
        IncomingEvent::parse(&event.to_string())
    }

    #[test]
    fn an_event_has_its_attributes_and_its_data() {
        let text = r#"{"specversion":"1.0","id":"7","source":"/shop","type":"order.placed",
            "time":"2026-03-01T09:30:00+01:00","subject":null,"tries":3,"vip":true,
            "data":{"price":1.50}}"#;
        let event = IncomingEvent::parse(text).unwrap();
        assert_eq!((event.id(), event.source(), event.kind()), ("7", "/shop", "order.placed"));
        assert_eq!(event.data().as_str(), r#"{"price":1.50}"#, "as it was written");
        let (value, bytes) = event.to_value().unwrap();
        assert_eq!(
            value,
            json!({
                "specversion": "1.0", "id": "7", "source": "/shop", "type": "order.placed",
                "time": "2026-03-01T09:30:00+01:00", "subject": null, "tries": 3, "vip": true,
                "data": {"price": 1.5},
            })
        );
        assert!((80..200).contains(&bytes), "{bytes}");
        let base64 = with("data", Value::Null).unwrap();
        assert_eq!(base64.data().as_str(), "null");
        let text = text.replace(r#""data":{"price":1.50}"#, r#""data_base64":"eyJhIjoxfQ==""#);
        assert_eq!(IncomingEvent::parse(&text).unwrap().data().as_str(), r#"{"a":1}"#);
    }

    #[test]
    fn an_error_names_the_attribute() {
        let long = "a".repeat(ATTRIBUTE_BYTES_MAX + 1);
        for (name, value, words) in [
            ("specversion", json!("0.3"), "is not 1.0"),
            ("specversion", Value::Null, "is missing"),
            ("id", Value::Null, "is missing"),
            ("id", json!(""), "is empty"),
            ("id", json!("  "), "is empty"),
            ("id", json!(7), "is no text"),
            ("id", json!("a\nb"), "control character, U+000A"),
            ("id", json!("a\u{202e}b"), "control character, U+202E"),
            ("id", json!(long), "has 1025 bytes"),
            ("source", json!("a b"), "is no URI"),
            ("type", Value::Null, "is missing"),
            ("subject", json!(1), "is no text"),
            ("time", json!("yesterday"), "is no time"),
            ("extra", json!([1]), "is no text, no number"),
            ("extra", json!({}), "is no text, no number"),
            ("data_base64", json!("e30="), "stands beside `data`"),
        ] {
            let error = with(name, value).unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{name}` {words}")) || error.contains(words),
                "{error}"
            );
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
        assert!(with("id", json!("a".repeat(ATTRIBUTE_BYTES_MAX))).is_ok());
        let mut many = event();
        for number in 0..ATTRIBUTES_MAX {
            many[format!("x{number}")] = json!(1);
        }
        let error = IncomingEvent::parse(&many.to_string()).unwrap_err();
        assert_eq!(error, IncomingError::AttributesTooMany(ATTRIBUTES_MAX + 4));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let deep = format!("{{\"data\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        for text in ["", "7", "[]", "null", "{", "{\"id\":\"a\",\"id\":\"b\"}", deep.as_str()] {
            assert!(IncomingEvent::parse(text).is_err(), "{text}");
        }
        let nested =
            |depth| serde_json::from_str(&("[".repeat(depth) + &"]".repeat(depth))).unwrap();
        assert!(with("data", nested(64)).is_ok());
        let error = with("data", nested(65)).unwrap_err().to_string();
        assert!(error.contains("nested deeper than 64"), "{error}");
    }

    #[test]
    fn a_batch_is_a_list_of_events() {
        let batch = |events: &[Value]| IncomingEvent::parse_batch(&json!(events).to_string());
        assert_eq!(batch(&[]).unwrap().len(), 0);
        assert_eq!(batch(&[event(), event()]).unwrap().len(), 2);
        let error = batch(&[event(), json!({})]).unwrap_err().to_string();
        assert_eq!(
            error,
            "event 1 of the batch, counted from 0: the attribute `specversion` is missing"
        );
        assert_eq!(batch(&vec![event(); INCOMING_BATCH_EVENTS_MAX]).unwrap().len(), 256);
        let error = batch(&vec![event(); INCOMING_BATCH_EVENTS_MAX + 1]).unwrap_err();
        assert_eq!(error, IncomingError::BatchTooLong(257));
        assert!(IncomingEvent::parse_batch(&event().to_string()).is_err());
    }
}
