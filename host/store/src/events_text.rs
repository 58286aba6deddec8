//! The stored text of the events of an append, which both stores write.

use amends_engine::Event;

use crate::append::{NewEvent, is_event_type};
use crate::stream::Stream;

/// Returns the column `events` of an append: `[["step.succeeded",{…}],["saga.completed",{}]]`.
pub(crate) fn events_column(events: &[NewEvent]) -> String {
    const PUNCTUATION: usize = r#"["",],"#.len();
    let bytes = |event: &NewEvent| event.kind.len() + event.data.len() + PUNCTUATION;
    let mut column = String::with_capacity(events.iter().map(bytes).sum::<usize>() + 2);
    for event in events {
        column.push_str(if column.is_empty() { "[[\"" } else { ",[\"" });
        column.push_str(&event.kind);
        column.push_str("\",");
        column.push_str(&event.data);
        column.push(']');
    }
    column.push(']');
    column
}

/// Returns the data of the event that stands for an append that cannot be read.
pub(crate) fn unreadable_data(why: &str) -> String {
    serde_json::json!({ "reason": why }).to_string()
}

/// Returns true when a stream may have events of this type. The types that plugins and services use
/// are not known here.
pub(crate) fn is_kind(stream: &Stream, kind: &str) -> bool {
    match stream {
        Stream::Saga(_) => Event::is_kind(kind),
        Stream::Plugin(_)
        | Stream::Service(_)
        | Stream::Deploys
        | Stream::Erasures
        | Stream::Tokens
        | Stream::Audit => is_event_type(kind),
    }
}
