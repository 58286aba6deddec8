//! Durations in the canonical form of a definition: whole milliseconds.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, Serializer};

/// Writes a duration as milliseconds.
pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(count(duration))
}

/// Reads milliseconds as a duration.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_millis)
}

fn count(duration: &Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The same for a duration that may be absent.
#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
pub(super) mod optional {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::definition::millis::serialize as serialize_one;

    pub(in crate::definition) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serialize_one(duration, to),
            None => to.serialize_none(),
        }
    }

    pub(in crate::definition) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

/// The same for a list of durations.
pub(super) mod list {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::definition::millis::count;

    pub(in crate::definition) fn serialize<S: Serializer>(
        list: &[Duration],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(count))
    }

    pub(in crate::definition) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<u64>::deserialize(from)?.into_iter().map(Duration::from_millis).collect())
    }
}
