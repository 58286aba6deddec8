//! An event with what the log does not say about it.

use std::sync::Arc;

use amends_store::{StoredEvent, Stream};

/// An event of the log, and the definition of its saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedEvent {
    /// The event.
    pub event: StoredEvent,
    /// The definition of its saga. None when the event is of no saga, or of a saga that cannot be read.
    pub definition: Option<Arc<str>>,
}

impl NamedEvent {
    /// Returns what the event is about: the id of a saga, or a path such as `plugin/inventory`.
    pub(crate) fn subject(&self) -> String {
        match &self.event.stream {
            Stream::Saga(id) => id.to_string(),
            Stream::Plugin(name) => format!("plugin/{name}"),
            Stream::Service(name) => format!("service/{name}"),
            Stream::Deploys => "deploys".to_owned(),
            Stream::Erasures => "erasures".to_owned(),
            Stream::Tokens => "tokens".to_owned(),
            Stream::Audit => "audit".to_owned(),
        }
    }

    /// Returns the id of the event: the same each time that the event is sent.
    pub(crate) fn id(&self) -> String {
        let subject = self.subject();
        match self.event.version.0 {
            // An append that cannot be read may have no version.
            0 => format!("{subject}/position/{}", self.event.position.0),
            version => format!("{subject}/{version}"),
        }
    }

    /// Returns how many bytes the event takes in memory, more or less.
    pub(crate) fn bytes(&self) -> usize {
        self.event.data.len() + self.event.kind.len()
    }
}
