//! The stored form of what a worker appends: personal values are sealed in it.

use std::borrow::Cow;

use amends_engine::{Event, Saga, SagaCompleted, Version};
use amends_keys::{DataKey, Sealer};
use amends_store::NewEvent;

/// Events as they are stored: personal values are sealed in them.
pub(crate) struct StoredForm<'e> {
    pub(crate) new: Vec<NewEvent>,
    /// The same, for what is derived from them.
    pub(crate) decoded: Cow<'e, [Event]>,
    /// The reason of the saga after them has a personal value in it.
    has_personal_reason: bool,
    has_reason_changed: bool,
}

/// Returns the stored form of events that a saga gets. `draft` is the saga with them.
pub(crate) fn stored_events<'e>(
    before: Option<&Saga>,
    events: &'e [Event],
    draft: &Saga,
    key: Option<&DataKey>,
) -> StoredForm<'e> {
    if draft.started().sealed_key.is_none() {
        let as_they_are = |event: &Event| NewEvent { kind: event.kind(), data: event.data() };
        return StoredForm {
            new: events.iter().map(as_they_are).collect(),
            decoded: Cow::Borrowed(events),
            has_personal_reason: false,
            has_reason_changed: true,
        };
    }
    let sealer = match key {
        Some(_) => Sealer::new(draft, events, key),
        None => Sealer::of_erased(draft, events),
    };
    let version = before.map_or(Version(0), Saga::version);
    let (mut new, mut decoded) = (Vec::new(), Vec::new());
    for (at, event) in events.iter().enumerate() {
        let (kind, data) = (event.kind(), sealer.data(version.plus(at + 1), event));
        // What is sealed has the form of the event, so it can be read. Nothing is derived of one that
        // cannot: it must not be derived of what is not sealed.
        decoded.push(Event::decode(&kind, &data).unwrap_or(Event::from(SagaCompleted {})));
        new.push(NewEvent { kind, data });
    }
    StoredForm {
        new,
        decoded: Cow::Owned(decoded),
        has_personal_reason: draft.reason().is_some_and(|reason| sealer.is_personal(reason)),
        has_reason_changed: before.is_none_or(|before| before.reason() != draft.reason()),
    }
}

impl StoredForm<'_> {
    /// Whether the reason of the saga is sealed in its events. `before`: whether it was, before these
    /// events. A reason that stays as it was is in the events before.
    pub(crate) fn is_reason_sealed(&self, before: bool) -> bool {
        if self.has_reason_changed { self.has_personal_reason } else { before }
    }
}
