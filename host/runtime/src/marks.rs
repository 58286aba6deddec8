//! What components mark as personal, as places of a saga: those that serve when it starts, and each that
//! served a call of it.
//!
//! Deliberately absent: values that were recorded before a component marked them. They stay as they are.

use std::collections::BTreeSet;

use amends_engine::{
    Definition, Direction, Input, PERSONAL_PATHS_MAX, PersonalPath, Saga, marked_places,
};
use amends_registry::Registry;

/// Returns the places that are personal in a saga of this definition that starts now, beside those that the
/// definition names.
pub(crate) fn at_start(plugins: &Registry, definition: &Definition) -> Vec<PersonalPath> {
    let mut found = BTreeSet::new();
    for step in definition.steps() {
        let names = step.plugin().into_iter().chain(step.undo_plugin());
        for marks in names.flat_map(|name| plugins.serving_marks(name)) {
            found.extend(marked_places(definition, step, &marks));
        }
    }
    let whole = found.len() > PERSONAL_PATHS_MAX;
    let mut places: Vec<PersonalPath> = Vec::new();
    // A place sorts before those that lie in it.
    for place in found {
        if !places.iter().any(|known| known.covers(&place)) {
            places.push(if whole { place.whole() } else { place });
        }
    }
    places
}

/// Returns what the component marks that came to an outcome, if the saga does not know all of it. An
/// outcome has to be decided on after it.
pub(crate) fn before(plugins: &Registry, saga: &Saga, input: &Input) -> Option<Input> {
    let Input::Outcome { step, direction: Direction::Execute, .. } = input else { return None };
    // Without a subject there is no key to seal with. Deploys and starts refuse that.
    saga.started().sealed_key.as_ref()?;
    let view = saga.step(step)?;
    let marks = plugins.marks(view.digest?)?;
    let mut personal = marked_places(saga.definition(), view.spec, &marks);
    personal.retain(|place| !saga.personal().any(|known| known.covers(place)));
    (!personal.is_empty()).then_some(Input::Mark { personal })
}
