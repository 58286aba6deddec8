//! A span that is over.

use std::time::SystemTime;

use amends_engine::{SpanId, TraceContext};

/// A span that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Which span it is.
    pub context: TraceContext,
    /// The span above it, in the same trace; none for the first span of a trace.
    pub parent: Option<SpanId>,
    /// True when another program made the span above it.
    pub is_parent_remote: bool,
    /// Whether it is a request, and whose.
    pub kind: SpanKind,
    /// Its name. There are few different ones.
    pub name: String,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// True when what it stands for failed.
    pub is_error: bool,
    /// What is known of it, by name.
    pub attributes: Vec<(&'static str, Value)>,
    /// What happened in it, in order.
    pub events: Vec<SpanEvent>,
    /// How many more events there were.
    pub events_dropped: u32,
    /// Other spans that belong to it.
    pub links: Vec<SpanLink>,
}

/// What a span stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Work within the host.
    Internal,
    /// A request to another program.
    Client,
    /// A request of another program.
    Server,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
}

/// Something that happened in a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanEvent {
    /// Its name.
    pub name: &'static str,
    /// When it happened.
    pub at: SystemTime,
    /// What is known of it, by name.
    pub attributes: Vec<(&'static str, Value)>,
}

/// Another span that belongs to a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanLink {
    /// The other span.
    pub context: TraceContext,
    /// What the other span is to it, as the value of the attribute `amends.link`.
    pub relation: &'static str,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(i64::from(number))
    }
}

impl Span {
    /// Returns the bytes that it holds.
    pub(crate) fn memory_bytes(&self) -> usize {
        let events = self.events.iter().map(|event| size_of_val(event) + bytes(&event.attributes));
        size_of_val(self)
            + self.name.len()
            + bytes(&self.attributes)
            + events.sum::<usize>()
            + size_of_val(self.links.as_slice())
    }
}

fn bytes(attributes: &[(&'static str, Value)]) -> usize {
    let texts = attributes.iter().map(|(_, value)| match value {
        Value::Text(text) => text.len(),
        Value::Number(_) => 0,
    });
    size_of_val(attributes) + texts.sum::<usize>()
}
