//! Which effects of a saga stand, in words.

use crate::plan::exposure;
use crate::saga::Saga;
use crate::sentence::shortened;

/// Describes the effects of the saga's own steps that stand or may stand, as a clause. None when
/// there are none.
pub(super) fn effects(saga: &Saga) -> Option<String> {
    let effects = exposure(saga);
    let of = |is_certain| {
        let these = effects.iter().filter(|effect| effect.is_certain == is_certain);
        shortened(these.map(|effect| effect.step.to_string()).collect())
    };
    let clause = |names: Vec<String>, one, many| match names.as_slice() {
        [] => None,
        [name] => Some(format!("the effect of {name} {one}")),
        _ => Some(format!("the effects of {} {many}", names.join(", "))),
    };
    let certain = clause(of(true), "stands", "stand");
    let possible = clause(of(false), "may stand", "may stand");
    let parts: Vec<_> = [certain, possible].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Says that no effect stands, as a clause.
pub(super) fn no_effect(saga: &Saga) -> String {
    let ran_sagas = (0..saga.steps.len()).any(|index| saga.child(index).is_some());
    let of_own = if ran_sagas {
        " of its own steps; `amends why` of each saga that they ran tells of its steps"
    } else {
        ""
    };
    format!("no effect stands{of_own}")
}
