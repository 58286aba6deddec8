//! Takes the personal values out of what is exported.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::value::RawValue;

use amends_api_types::{DefinitionView, EventView};
use amends_engine::{Definition, Event, Version, replay};
use amends_keys::Sealer;

/// Reads a definition of the host.
pub(super) fn definition_of(definition: &DefinitionView) -> anyhow::Result<Arc<Definition>> {
    match Definition::from_canonical(definition.spec.as_str()) {
        Ok(definition) => Ok(Arc::new(definition)),
        Err(error) => bail!(
            "the definition {} cannot be read, so nobody knows which values are personal: {error}; \
             use a command line of the host's version, or --personal, which writes all values",
            definition.digest
        ),
    }
}

/// Replaces the personal values of a saga, if its definition has a subject.
pub(super) fn withhold(
    definition: &Arc<Definition>,
    id: &str,
    events: &mut [EventView],
) -> anyhow::Result<()> {
    if definition.spec().subject.is_none() {
        return Ok(());
    }
    let decoded = events.iter().map(|event| Event::decode(&event.kind, event.data.get()));
    let decoded = decoded.collect::<Result<Vec<_>, _>>();
    let decoded =
        decoded.context("the events cannot be read; --personal writes them as they are")?;
    let log = events.iter().map(|event| event.at).zip(&decoded);
    let saga = replay(id.parse()?, Arc::clone(definition), log)
        .context("the events cannot be read; --personal writes them as they are")?;
    let sealer = Sealer::new(&saga, &decoded, None);
    for (event, fact) in events.iter_mut().zip(&decoded) {
        event.data = RawValue::from_string(sealer.data(Version(event.version), fact))?;
    }
    Ok(())
}
