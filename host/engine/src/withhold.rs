//! Events without what only some readers may see: the payloads of sagas and the state of plugins.
//!
//! Deliberately absent: who may see what. Whoever shows an event knows that.

use serde_json::{Map, Value};

use crate::call::Failure;
use crate::emitted::Emitted;
use crate::event::{
    CompensationStarted, Event, OperatorAbandoned, OperatorCancelled, OperatorCompensated,
    OperatorEvent, OperatorNoted, OperatorPaused, OperatorResolved, OperatorResumed,
    OperatorRetried, OperatorSkipped, SagaAbandoned, SagaBlocked, SagaCompensated, SagaCompleted,
    SagaDue, SagaEvent, SagaMarked, SagaRetimed, SagaStarted, SignalEvent, SignalReceived,
    StepEvent, StepExpanded, StepFailed, StepSkipped, StepStarted, StepSucceeded, StepUnknown,
    StepWaiting, UndoBlocked, UndoEvent, UndoFailed, UndoStarted, UndoSucceeded,
};
use crate::payload::Payload;

/// The text that stands in the place of what the reader may not see.
pub const WITHHELD: &str = "[withheld]";

/// The fields of an `operator.state_set` event that are not the plugin's state. A field that a later version
/// adds is withheld.
const STATE_SET_SHOWN: [&str; 2] = ["who", "removed"];

impl Payload {
    /// Returns the payload that stands in the place of one that the reader may not see: the text
    /// [`WITHHELD`].
    #[must_use]
    pub fn withheld() -> Self {
        // A text without quotes or control characters is JSON between quotes.
        Self::recorded(&withheld_json()).unwrap_or_else(|_| Self::null())
    }
}

/// Returns the stored data of an event of a saga with [`WITHHELD`] in the place of each payload: inputs,
/// outputs, receipts, details of failures, payloads of signals and the data of domain events. A payload that is
/// absent stays absent. All else stays as it is, also texts for people.
///
/// The data of an event that cannot be decoded is withheld as a whole.
#[must_use]
pub fn withhold_payloads(kind: &str, data: &str) -> String {
    match Event::decode(kind, data) {
        Ok(mut event) => {
            withhold(&mut event);
            event.data()
        }
        Err(_) => withheld_json(),
    }
}

/// Returns the stored data of an event of a plugin's stream with [`WITHHELD`] in the place of the plugin's state:
/// of keys and values.
///
/// The data of an event whose type is not known here is withheld as a whole, and so is what cannot be read.
#[must_use]
pub fn withhold_state(kind: &str, data: &str) -> String {
    match kind {
        "operator.state_set" => withhold_set(data),
        // An import tells how many keys it wrote. The others are those of early versions: which components
        // served the plugin.
        "operator.state_imported" | "plugin.activated" | "plugin.rejected" => data.to_owned(),
        _ => withheld_json(),
    }
}

fn withhold_set(data: &str) -> String {
    let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(data) else {
        return withheld_json();
    };
    for (name, field) in &mut fields {
        if !STATE_SET_SHOWN.contains(&name.as_str()) {
            *field = Value::from(WITHHELD);
        }
    }
    Value::Object(fields).to_string()
}

fn withheld_json() -> String {
    format!("\"{WITHHELD}\"")
}

// The patterns below name every event and every field, so that a new one does not compile until somebody has
// decided whether readers without payloads see it.

fn withhold(event: &mut Event) {
    match event {
        Event::Saga(event) => withhold_saga(event),
        Event::Step(event) => withhold_step(event),
        Event::Undo(event) => withhold_undo(event),
        Event::Operator(event) => withhold_operator(event),
        Event::Signal(event) => {
            let SignalEvent::Received(SignalReceived { payload, name: _, id: _, who: _ }) = event;
            *payload = Payload::withheld();
        }
        Event::Emitted(Emitted { data, kind: _ }) => *data = Payload::withheld(),
    }
}

fn withhold_saga(event: &mut SagaEvent) {
    match event {
        SagaEvent::Started(SagaStarted {
            input,
            definition: _,
            definition_digest: _,
            key: _,
            tags: _,
            index: _,
            traceparent: _,
            deadline_at: _,
            start_at: _,
            parent: _,
            sealed_key: _,
            who: _,
        }) => *input = Payload::withheld(),
        SagaEvent::Due(SagaDue {})
        | SagaEvent::CompensationStarted(CompensationStarted { cause: _, step: _, reason: _ })
        | SagaEvent::Completed(SagaCompleted {})
        | SagaEvent::Compensated(SagaCompensated {})
        | SagaEvent::Blocked(SagaBlocked { step: _, reason: _ })
        | SagaEvent::Abandoned(SagaAbandoned { reason: _ })
        | SagaEvent::Retimed(SagaRetimed { ahead_ms: _ })
        | SagaEvent::Marked(SagaMarked { personal: _ }) => {}
    }
}

fn withhold_step(event: &mut StepEvent) {
    match event {
        StepEvent::Expanded(StepExpanded { items, step: _ }) => items.fill(Payload::withheld()),
        StepEvent::Succeeded(StepSucceeded { output, step: _, attempt: _, probe: _ }) => {
            *output = Payload::withheld();
        }
        StepEvent::Failed(StepFailed {
            error,
            step: _,
            attempt: _,
            class: _,
            retry_at: _,
            probe: _,
        })
        | StepEvent::Unknown(StepUnknown { error, step: _, attempt: _, retry_at: _, probe: _ }) => {
            withhold_details(error);
        }
        StepEvent::Started(StepStarted { step: _, attempt: _, digest: _, child: _, trial: _ })
        | StepEvent::Waiting(StepWaiting { step: _, signal: _, until: _ })
        | StepEvent::Skipped(StepSkipped { step: _, reason: _ }) => {}
    }
}

fn withhold_undo(event: &mut UndoEvent) {
    match event {
        UndoEvent::Succeeded(UndoSucceeded {
            receipt,
            step: _,
            attempt: _,
            nothing: _,
            probe: _,
        }) => withhold_optional(receipt),
        UndoEvent::Failed(UndoFailed {
            error,
            step: _,
            attempt: _,
            class: _,
            retry_at: _,
            probe: _,
        })
        | UndoEvent::Blocked(UndoBlocked { error, step: _, attempt: _, class: _, probe: _ }) => {
            withhold_details(error);
        }
        UndoEvent::Started(UndoStarted { step: _, attempt: _, digest: _, note: _, trial: _ }) => {}
    }
}

fn withhold_operator(event: &mut OperatorEvent) {
    match event {
        OperatorEvent::Retried(OperatorRetried {
            input,
            who: _,
            reason: _,
            step: _,
            new_key: _,
            digest: _,
        }) => withhold_optional(input),
        OperatorEvent::Resolved(OperatorResolved {
            output,
            who: _,
            reason: _,
            step: _,
            happened: _,
            evidence: _,
        }) => withhold_optional(output),
        OperatorEvent::Cancelled(OperatorCancelled { who: _, reason: _ })
        | OperatorEvent::Compensated(OperatorCompensated { who: _, reason: _ })
        | OperatorEvent::Paused(OperatorPaused { who: _, reason: _ })
        | OperatorEvent::Resumed(OperatorResumed { who: _, reason: _ })
        | OperatorEvent::Skipped(OperatorSkipped { who: _, reason: _, step: _ })
        | OperatorEvent::Noted(OperatorNoted { who: _, reason: _ })
        | OperatorEvent::Abandoned(OperatorAbandoned { who: _, reason: _ }) => {}
    }
}

fn withhold_details(failure: &mut Failure) {
    let Failure { details, code: _, message: _, retry_after_ms: _ } = failure;
    withhold_optional(details);
}

fn withhold_optional(payload: &mut Option<Payload>) {
    if let Some(payload) = payload {
        *payload = Payload::withheld();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    /// Where payloads are in the data of an event: JSON pointers (RFC 6901).
    const PAYLOADS: [(&str, &str); 11] = [
        ("saga.started", "/input"),
        ("step.expanded", "/items"),
        ("step.succeeded", "/output"),
        ("step.failed", "/error/details"),
        ("step.unknown", "/error/details"),
        ("undo.succeeded", "/receipt"),
        ("undo.failed", "/error/details"),
        ("undo.blocked", "/error/details"),
        ("operator.retried", "/input"),
        ("operator.resolved", "/output"),
        ("signal.received", "/payload"),
    ];

    fn without_payloads(kind: &str, data: &str) -> Value {
        let mut expected: Value = serde_json::from_str(data).unwrap();
        if !Event::KINDS.contains(&kind) {
            return json!(WITHHELD);
        }
        for (_, place) in PAYLOADS.iter().filter(|(of, _)| *of == kind) {
            match expected.pointer_mut(place) {
                Some(Value::Array(items)) if *place == "/items" => items.fill(json!(WITHHELD)),
                Some(payload) => *payload = json!(WITHHELD),
                None => {}
            }
        }
        expected
    }

    #[test]
    fn no_payload_is_left_and_all_else_is_as_before() {
        let mut changed = BTreeSet::new();
        for line in include_str!("../tests/golden/events.ndjson").lines() {
            let (kind, data) = line.split_once(' ').unwrap();
            let shown = withhold_payloads(kind, data);
            let expected = without_payloads(kind, data);
            assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), expected, "{line}");
            assert_eq!(withhold_payloads(kind, &shown), shown, "{line}");
            if shown != data {
                changed.insert(kind);
            }
        }
        // In the golden file these fail without details.
        for (kind, data) in [
            (
                "step.unknown",
                r#"{"step":"a","attempt":1,"error":{"code":"c","message":"m","details":[1]}}"#,
            ),
            (
                "undo.failed",
                r#"{"step":"a","attempt":1,"class":"retryable","error":{"code":"c","message":"m","details":{"a":1}},"retry_at":"2026-03-01T09:30:00.000Z"}"#,
            ),
            (
                "undo.blocked",
                r#"{"step":"a","attempt":1,"class":"retryable","error":{"code":"c","message":"m","details":"x"}}"#,
            ),
        ] {
            let shown = withhold_payloads(kind, data);
            let expected = without_payloads(kind, data);
            assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), expected, "{kind}");
            changed.insert(kind);
        }
        let all: BTreeSet<_> = PAYLOADS.iter().map(|(kind, _)| *kind).collect();
        let domain: BTreeSet<_> = changed.difference(&all).copied().collect();
        assert!(all.is_subset(&changed), "{changed:?}");
        assert_eq!(domain, BTreeSet::from(["order.counted", "order.prescription_created"]));
    }

    #[test]
    fn a_null_that_stands_there_is_a_payload_and_an_absent_one_stays_absent() {
        let shown =
            withhold_payloads("undo.succeeded", r#"{"step":"a","attempt":1,"receipt":null}"#);
        assert_eq!(shown, r#"{"step":"a","attempt":1,"receipt":"[withheld]"}"#);
        let nothing = r#"{"step":"a","attempt":1,"nothing":true}"#;
        assert_eq!(withhold_payloads("undo.succeeded", nothing), nothing);
    }

    #[test]
    fn what_cannot_be_read_is_withheld_as_a_whole() {
        for (kind, data) in [
            ("event.unreadable", r#"{"reason":"no 4711"}"#),
            ("step.exploded", r#"{"output":"4711"}"#),
            ("step.succeeded", r#"{"step":"a","attempt":"4711"}"#),
            ("step.succeeded", "4711"),
            ("order.made", "{4711"),
        ] {
            assert_eq!(withhold_payloads(kind, data), r#""[withheld]""#, "{kind} {data}");
        }
        let later = r#"{"step":"a","attempt":1,"output":{},"since_version_9":"4711"}"#;
        let shown = withhold_payloads("step.succeeded", later);
        assert_eq!(shown, r#"{"step":"a","attempt":1,"output":"[withheld]"}"#);
    }

    #[test]
    fn events_of_a_plugin_tell_nothing_of_its_state() {
        let shown = |kind: &str, data: Value| -> Value {
            serde_json::from_str(&withhold_state(kind, &data.to_string())).unwrap()
        };
        assert_eq!(
            shown("operator.state_set", json!({"who": "ada", "key": "4711", "value": {"a": 4711}})),
            json!({"who": "ada", "key": WITHHELD, "value": WITHHELD})
        );
        assert_eq!(
            shown("operator.state_set", json!({"who": "ada", "key": "4711", "removed": true})),
            json!({"who": "ada", "key": WITHHELD, "removed": true})
        );
        let imported = json!({"who": "ada", "source": "stock.ndjson", "keys": 3});
        assert_eq!(shown("operator.state_imported", imported.clone()), imported);
        let activated = json!({"digest": "sha256:0", "version": "0.1.0", "reason": "file"});
        assert_eq!(shown("plugin.activated", activated.clone()), activated);
        assert_eq!(shown("operator.state_moved", json!({"key": "4711"})), json!(WITHHELD));
        assert_eq!(withhold_state("operator.state_set", "[4711"), r#""[withheld]""#);
    }

    #[test]
    fn a_withheld_payload_is_a_text() {
        assert_eq!(Payload::withheld().to_value(), Ok(json!(WITHHELD)));
    }
}
