//! How much memory a saga takes, for budgets. Only what callers and components can make large
//! counts.
//!
//! Deliberately absent: what the allocator adds, and what sagas share (their definition).

use crate::call::{Failure, Outcome};
use crate::decide::Input;
use crate::ids::SignalName;
use crate::order::Verb;
use crate::payload::Payload;
use crate::saga::{Saga, StepState};

/// The most bytes of signals that a saga keeps until its steps take them: eight of the largest
/// payloads. They are in memory for as long as the saga is live.
pub(crate) const SIGNAL_BYTES_MAX: usize = 8 << 20;

impl Saga {
    /// Returns the bytes of its payloads, its texts and the states of its steps. Sagas with the
    /// same log have the same size.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let started = &self.started;
        let held = [&self.paused, &self.given_up].into_iter().flatten();
        let held = held.map(|held| held.who.len() + held.reason.len());
        let wish = self.wish.as_ref().map_or(0, |wish| wish.who.len() + wish.reason.len());
        let blocked = self.blocked.as_ref().map_or(0, |blocked| blocked.reason.len());
        let note = self.note.as_ref().map_or(0, |note| note.who.len() + note.reason.len());
        let tags = started.tags.iter().map(|(name, value)| name.len() + value.len());
        let index = started.index.iter().map(|(name, value)| name.as_str().len() + value.bytes());
        let elements = self.fan_outs.iter().flat_map(|fan_out| fan_out.elements.iter());
        let elements = elements
            .map(|element| size_of_val(element) + element.name.as_str().len() + len(&element.item));
        let signals = self.signals.iter().map(|signal| {
            size_of_val(signal)
                + signal.name.as_str().len()
                + text(&signal.id)
                + signal.payload.as_ref().map_or(0, len)
        });
        size_of::<Self>()
            + len(&started.input)
            + text(&started.key)
            + text(&started.traceparent)
            + text(&started.who)
            + held.sum::<usize>()
            + wish
            + blocked
            + note
            + tags.sum::<usize>()
            + index.sum::<usize>()
            + elements.sum::<usize>()
            + signals.sum::<usize>()
            + self.steps.iter().map(StepState::memory_bytes).sum::<usize>()
    }

    /// Returns true when the saga has room for the payload of a signal ([`SIGNAL_BYTES_MAX`]).
    /// There is always room for a signal that came before, because it is not kept again.
    #[must_use]
    pub fn has_room_for_signal(
        &self,
        name: &SignalName,
        id: Option<&str>,
        payload: &Payload,
    ) -> bool {
        let came_before = |id| {
            self.signals
                .iter()
                .any(|signal| signal.name == *name && signal.id.as_deref() == Some(id))
        };
        let kept = self.signals.iter().filter_map(|signal| signal.payload.as_ref().map(len));
        id.is_some_and(came_before) || kept.sum::<usize>() + len(payload) <= SIGNAL_BYTES_MAX
    }
}

impl StepState {
    /// Returns the bytes of a step.
    fn memory_bytes(&self) -> usize {
        let payloads = self.input.iter().chain(&self.output).map(len);
        let error = self.error.as_ref().map_or(0, |error| failure(error));
        let chosen = self.chosen.as_ref().map_or(0, |one| one.who.len() + one.reason.len());
        let by_hand = self.by_hand.as_deref();
        let by_hand = by_hand.map_or(0, |one| size_of_val(one) + one.who.len() + one.reason.len());
        size_of::<Self>() + payloads.sum::<usize>() + error + chosen + by_hand
    }
}

impl Input {
    /// Returns the bytes of the payloads and texts of the input.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Outcome { outcome, emitted, .. } => {
                let outcome = match outcome {
                    Outcome::Succeeded(output) => len(output),
                    Outcome::NothingToUndo => 0,
                    Outcome::Permanent(error)
                    | Outcome::Retryable(error)
                    | Outcome::Unknown(error) => failure(error),
                };
                outcome + emitted.iter().map(|event| len(&event.data)).sum::<usize>()
            }
            Self::Refuse { error, .. } => failure(error),
            Self::Signal { id, payload, who, .. } => {
                let texts = id.iter().chain(who).map(String::len);
                texts.sum::<usize>() + len(payload)
            }
            Self::Operate(order) => {
                let brings = match &order.verb {
                    Verb::Retry { input, .. } => input.as_ref().map_or(0, len),
                    Verb::Resolve { output, evidence, .. } => {
                        output.as_ref().map_or(0, len) + evidence.len()
                    }
                    Verb::Cancel
                    | Verb::Compensate
                    | Verb::CompensateWithParent
                    | Verb::Pause
                    | Verb::Resume
                    | Verb::Skip { .. }
                    | Verb::Abandon
                    | Verb::Note => 0,
                };
                order.who.len() + order.reason.len() + brings
            }
            Self::Admit { note, .. } => note.as_ref().map_or(0, String::len),
            Self::Mark { personal } => size_of_val(personal.as_slice()),
            Self::Tick => 0,
        }
    }
}

fn len(payload: &Payload) -> usize {
    payload.as_str().len()
}

fn failure(failure: &Failure) -> usize {
    let details = failure.details.as_ref().map_or(0, len);
    size_of_val(failure) + failure.code.len() + failure.message.len() + details
}
