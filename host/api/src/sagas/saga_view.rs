//! Shows a saga that was asked for.

use std::time::{Duration, Instant};

use amends_api_types::{NoteView, ParentView, SagaView};
use amends_engine::{Payload, StepView as EngineStep, pivot_first, step_input};
use amends_runtime::SagaState;

use crate::paging::PAGE_BYTES_MAX;
use crate::payloads::Payloads;
use crate::sagas::step_view::{held_by, step_view, within};

/// An answer has at most this many bytes of what the steps of a saga answered: a saga has up to 1,000 elements
/// for each of its steps, and each may answer a megabyte. The events of the saga have the rest.
const OUTPUTS_BYTES_MAX: usize = PAGE_BYTES_MAX;

/// An answer has at most this many bytes of what the steps were given. The limit is lower, because mostly it
/// is in the saga's input and in what the steps before answered.
const INPUTS_BYTES_MAX: usize = 2 << 20;

/// An answer may compute inputs for this long. An input has an expression to compute and payloads to read, and
/// a saga has up to thousands of elements with an input each.
const INPUTS_TIME_MAX: Duration = Duration::from_millis(500);

/// Shows a saga without the inputs of its steps.
pub(crate) fn saga_view(state: &SagaState, payloads: Payloads) -> SagaView {
    let saga = &state.saga;
    let started = saga.started();
    let mut room = OUTPUTS_BYTES_MAX;
    let view = |step: EngineStep<'_>| {
        let view = held_by(step_view(&step, saga.id(), payloads), &state.stalls);
        within(view, &mut room, saga.id())
    };
    SagaView {
        id: saga.id().to_string(),
        definition: started.definition.to_string(),
        definition_digest: started.definition_digest.to_string(),
        status: saga.status().to_string(),
        input: payloads.payload(started.input.clone()),
        output: payloads.optional(saga.output()),
        steps: saga.steps().map(view).collect(),
        started_at: saga.started_at(),
        start_at: saga.start_at(),
        ended_at: saga.ended_at(),
        deadline_at: saga.deadline_at(),
        next_at: saga.wake_at().filter(|_| !saga.has_ended()),
        version: saga.version().0,
        traceparent: started.traceparent.clone(),
        trace_id: saga.trace_id(),
        key: started.key.clone(),
        tags: started.tags.clone(),
        index: started.index.clone(),
        reason: saga.reason().map(str::to_owned).or_else(|| pivot_first(saga)),
        note: saga.note().map(|note| NoteView {
            at: note.at,
            who: note.who.clone(),
            reason: note.reason.clone(),
        }),
        parent: started.parent.as_ref().map(|parent| ParentView {
            saga: parent.saga.to_string(),
            step: parent.step.to_string(),
        }),
        archived: state.is_archived,
        personal: None,
    }
}

/// Shows a saga with the input of each step that was called or edited. Takes at most [`INPUTS_TIME_MAX`] and
/// the time of one input.
pub(crate) fn saga_view_with_inputs(state: &SagaState, payloads: Payloads) -> SagaView {
    let mut view = saga_view(state, payloads);
    let (began, mut room) = (Instant::now(), INPUTS_BYTES_MAX);
    for (step, view) in state.saga.steps().zip(&mut view.steps) {
        let is_edited = step.edited_input.is_some();
        if !is_edited && step.attempts == 0 {
            continue;
        }
        if payloads == Payloads::Withheld {
            // Nothing is computed to be withheld. So this may stand for an input that cannot be computed.
            view.input = Some(Payload::withheld());
            continue;
        }
        if began.elapsed() > INPUTS_TIME_MAX {
            view.input_omitted = true;
            continue;
        }
        let Some(input) = step_input(&state.saga, step.name) else { continue };
        match room.checked_sub(input.as_str().len()) {
            Some(left) => (room, view.input) = (left, Some(input)),
            None => view.input_omitted = true,
        }
    }
    view
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::collections::BTreeMap;
    use std::sync::Arc;

    use amends_engine::{
        Definition, DefinitionSpec, Digest, Direction, Failure, Input, Outcome, PAYLOAD_BYTES_MAX,
        RetrySpec, SagaId, Start, StepKind, StepSpec, Timestamp, decide_on,
    };

    use super::*;

    /// A saga of so many steps, each of which has answered as much as it may.
    fn large(steps: usize) -> SagaState {
        let output = Payload::parse(&format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 2))).unwrap();
        called(steps, |_| Outcome::Succeeded(output.clone()))
    }

    /// A saga of so many steps, each of which was called and ended so.
    fn called(steps: usize, outcome: impl Fn(usize) -> Outcome) -> SagaState {
        let step = |number: usize| StepSpec {
            name: format!("step-{number}").parse().unwrap(),
            kind: StepKind::Call { plugin: "test".parse().unwrap(), service: None },
            after: Vec::new(),
            each: None,
            when: None,
            input: None,
            timeout: std::time::Duration::from_secs(1),
            retry: RetrySpec::default(),
            undo: None,
            pivot: false,
        };
        let definition = Definition::new(DefinitionSpec {
            name: "large".parse().unwrap(),
            deadline: None,
            compensate_within: None,
            index: std::collections::BTreeMap::new(),
            subject: None,
            personal: Vec::new(),
            steps: (0..steps).map(step).collect(),
        });
        let at = Timestamp::from_millis(1_000);
        let (mut saga, _) = amends_engine::start(
            at,
            Start {
                id: SagaId::from_parts(at, &[1; 10]),
                definition: Arc::new(definition.unwrap()),
                input: Payload::parse(r#"{"order":4711}"#).unwrap(),
                key: None,
                tags: BTreeMap::new(),
                traceparent: None,
                start_at: None,
                parent: None,
                sealed_key: None,
                who: None,
                personal: Vec::new(),
            },
        );
        for number in 0..steps {
            let (step, direction) = (format!("step-{number}"), Direction::Execute);
            let step = || step.parse().unwrap();
            let digest = Digest::of(b"test");
            let admit =
                Input::Admit { step: step(), direction, digest, note: None, is_trial: false };
            let outcome = Input::Outcome {
                step: step(),
                direction,
                attempt: 1,
                outcome: outcome(number),
                probe: None,
                emitted: Vec::new(),
            };
            for input in [admit, outcome] {
                assert!(decide_on(&mut saga, at, input).refused.is_none());
            }
        }
        let (is_archived, is_imported) = (false, false);
        SagaState { saga, stalls: Vec::new(), unrecorded: None, now: at, is_archived, is_imported }
    }

    #[test]
    fn an_answer_has_room_for_some_outputs_and_says_where_the_others_are() {
        let fits = OUTPUTS_BYTES_MAX / PAYLOAD_BYTES_MAX;
        let state = large(fits + 3);
        let view = saga_view(&state, Payloads::Shown);
        for (number, step) in view.steps.iter().enumerate() {
            assert_eq!(step.status, "succeeded");
            assert_eq!(step.output.is_some(), number < fits, "{number}");
            let omitted = step.omitted.as_ref().map(|it| (it.bytes, it.see.clone()));
            let see = format!("/v1/sagas/{}/events", view.id);
            assert_eq!(omitted, (number >= fits).then_some((PAYLOAD_BYTES_MAX, see)));
        }
        let answer = serde_json::to_vec(&view).unwrap();
        assert!(answer.len() < OUTPUTS_BYTES_MAX + (64 << 10), "{}", answer.len());
        // Of a saga whose outputs fit, nothing is said.
        let view = saga_view(&large(fits), Payloads::Shown);
        let answer = serde_json::to_string(&view).unwrap();
        assert!(!answer.contains("omitted"));
    }

    #[test]
    fn a_reader_without_payloads_sees_all_else() {
        let payload = || Payload::parse("[4711]").unwrap();
        let failure = Failure { details: Some(payload()), ..Failure::new("gone", "it is gone") };
        let outcome = |number| match number {
            2 => Outcome::Permanent(failure.clone()),
            _ => Outcome::Succeeded(payload()),
        };
        let state = called(3, outcome);
        let text = |view: &SagaView| serde_json::to_string(view).unwrap();
        let shown = saga_view_with_inputs(&state, Payloads::Shown);
        let withheld = saga_view_with_inputs(&state, Payloads::Withheld);
        assert_eq!(shown.steps[0].output, Some(payload()));
        assert!(shown.steps.iter().all(|step| step.input.is_some()));
        assert!(text(&shown).contains("it is gone") && !text(&withheld).contains("4711"));
        assert_eq!(text(&withheld), text(&Payloads::Withheld.saga(shown)));
        let details = |view: &SagaView| view.steps[2].error.as_ref().unwrap().details.clone();
        assert_eq!(details(&withheld), Some(Payload::withheld()));
    }
}
