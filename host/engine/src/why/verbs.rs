//! Which verbs of an operator would change something.

use crate::decide::permits;
use crate::definition::StepKind;
use crate::ids::{StepName, Timestamp};
use crate::order::{Order, Verb};
use crate::saga::{Phase, Progress, Saga};
use crate::status::SagaStatus;

/// Returns the verbs that are permitted and would change something.
pub(super) fn verbs(saga: &Saga, at: Timestamp) -> Vec<&'static str> {
    let is_forward = saga.phase == Phase::Forward;
    let resolve = |undo| {
        let evidence = "seen".to_owned();
        Verb::Resolve { step: None, happened: true, output: None, evidence, undo }
    };
    let all = [
        (Verb::Retry { step: None, input: None, digest: None }, true),
        (resolve(false), true),
        (resolve(true), true),
        (Verb::Skip { step: None, undo: false }, true),
        (Verb::Skip { step: None, undo: true }, true),
        (Verb::Resume, true),
        (Verb::Cancel, is_forward && saga.wish.is_none()),
        (Verb::Compensate, saga.phase == Phase::Completed),
        (Verb::Pause, saga.paused.is_none()),
        (Verb::Abandon, saga.status() != SagaStatus::Abandoned),
    ];
    let permits = |verb: Verb| {
        let order = Order { who: String::new(), reason: String::new(), verb };
        permits(saga, at, &order).is_ok()
    };
    // When several steps need the verb, the order must name one of them.
    let permits_one = |verb: &Verb| {
        let is_meant = |step: &usize| saga.needs_operator(*step) || saga.undo_waits(*step);
        let mut steps = (0..saga.steps.len()).filter(is_meant);
        steps.any(|step| permits(of_step(verb, saga.name(step))))
    };
    let permitted = |verb: &Verb| permits(verb.clone()) || permits_one(verb);
    let wanted = all.into_iter().filter(|(verb, does)| *does && permitted(verb));
    let signal = waits_for_signal(saga).then_some("signal");
    let mut words: Vec<_> = signal.into_iter().chain(wanted.map(|(verb, _)| verb.word())).collect();
    // The same verb may fit both a step and an undo.
    words.dedup();
    words
}

/// Returns true when a step waits for a signal now. To send it is not an order, but it moves the
/// saga.
fn waits_for_signal(saga: &Saga) -> bool {
    !saga.has_ended()
        && (0..saga.steps.len()).any(|index| {
            matches!(saga.steps[index].progress, Progress::Waiting { .. })
                && matches!(saga.spec(index).kind, StepKind::Wait { .. })
        })
}

/// Makes a verb about this step, if the verb is about steps.
fn of_step(verb: &Verb, name: &StepName) -> Verb {
    let name = Some(name.clone());
    match verb.clone() {
        Verb::Retry { input, digest, .. } => Verb::Retry { step: name, input, digest },
        Verb::Skip { undo, .. } => Verb::Skip { step: name, undo },
        Verb::Resolve { happened, output, evidence, undo, .. } => {
            Verb::Resolve { step: name, happened, output, evidence, undo }
        }
        other @ (Verb::Cancel
        | Verb::Compensate
        | Verb::CompensateWithParent
        | Verb::Pause
        | Verb::Resume
        | Verb::Abandon
        | Verb::Note) => other,
    }
}
