//! `keep` of each saga, and what it and `retention` have to go with.

use std::collections::BTreeMap;
use std::time::Duration;

use amends_engine::{Definition, DefinitionName};
use amends_runtime::Retention;

use crate::host::StoreSettings;
use crate::table::Context;

/// Checks that no saga leaves the store while it may still be compensated, and that every `keep` is in
/// force.
pub(super) fn check_retention(
    store: &StoreSettings,
    keep: &BTreeMap<DefinitionName, Duration>,
    definitions: &[Definition],
    context: &mut Context<'_>,
) {
    let Some(retention) = store.retention else {
        for name in keep.keys() {
            let key = format!("saga.{name}.keep");
            let message = "without retention in [store] every saga stays in the store";
            let help = "set retention in [store], such as \"90d\", or leave keep out";
            context.warn(context.places.of(&key), &key, message, help);
        }
        return;
    };
    let retention = Retention { store: retention, keep: keep.clone() };
    for definition in definitions {
        let name = definition.name();
        let Some(within) = definition.spec().compensate_within else { continue };
        let kept = retention.of(name);
        if kept >= within {
            continue;
        }
        let key = format!("saga.{name}.compensate_within");
        let message = format!(
            "a saga can be compensated for {} after it completed, and leaves the store after {}",
            written(within),
            written(kept)
        );
        let help = format!(
            "set keep = \"{0}\" or more in this [[saga]], raise retention in [store], or shorten \
             compensate_within",
            written(within)
        );
        context.error(context.places.of(&key), &key, message, help);
    }
}

/// A duration as a config has it: `90d`, `36h`, `1500ms`.
fn written(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let (unit, word) =
        units.into_iter().find(|(unit, _)| millis.is_multiple_of(*unit)).unwrap_or((1, "ms"));
    format!("{}{word}", millis / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_the_largest_unit_that_fits() {
        for (duration, text) in [
            (Duration::from_hours(24 * 90), "90d"),
            (Duration::from_hours(36), "36h"),
            (Duration::from_secs(90), "90s"),
            (Duration::from_millis(1_500), "1500ms"),
        ] {
            assert_eq!(written(duration), text);
        }
    }
}
