//! What hosts ask one another, and answer, as JSON. Hosts of one store may be of different versions while they
//! are brought up to date, so fields are only added, with defaults.

use std::collections::BTreeMap;

use amends_api_types::Problem;
use amends_engine::{Payload, SagaId, SignalName, Timestamp};
use serde::{Deserialize, Serialize};

/// Where a host takes starts of other hosts: [`StartsBody`], answered by [`StartsAnswer`].
pub const STARTS_PATH: &str = "/internal/v1/starts";

/// Where a host takes a signal of another host: [`PeerSignal`], answered by [`Signalled`].
pub const SIGNAL_PATH: &str = "/internal/v1/signal";

/// Where a host says which of its sagas do not move: answered by [`Unmoved`].
pub const UNMOVED_PATH: &str = "/internal/v1/unmoved";

/// Where a host says what some of its sagas do: [`Activities`], answered by [`ActivitiesOf`].
pub const ACTIVITIES_PATH: &str = "/internal/v1/activities";

/// Who asks for a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPrincipal {
    /// The name that is recorded.
    pub subject: String,
    /// Whether the host itself asks. Nothing reads it, but hosts of earlier versions take no principal without it.
    #[serde(default)]
    pub is_host: bool,
    /// The roles of the subject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The way by which the request came.
    pub via: String,
}

/// A saga to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerStart {
    /// Its id, unless its key has started one.
    pub id: SagaId,
    /// The name of its definition.
    pub definition: String,
    /// Its input.
    pub input: Payload,
    /// Its start key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The trace context of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// When its first steps may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// Who starts it.
    pub principal: PeerPrincipal,
}

/// Sagas to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartsBody {
    /// The sagas.
    pub starts: Vec<PeerStart>,
}

/// What became of one start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerStarted {
    /// It was started, now or earlier with the same key.
    Started {
        /// The saga.
        saga: SagaId,
        /// Whether this request started it.
        created: bool,
    },
    /// The key was used for this saga with another payload.
    KeyReused(SagaId),
    /// The host does not own its shard.
    NotOwner,
    /// It was not started.
    Refused(Problem),
}

/// What became of starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartsAnswer {
    /// An answer for each, in order.
    pub answers: Vec<PeerStarted>,
}

/// A signal that a host sends by itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerSignal {
    /// The saga.
    pub saga: SagaId,
    /// The name of the signal.
    pub name: SignalName,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it carries.
    pub payload: Payload,
    /// Who sends it.
    pub principal: PeerPrincipal,
}

/// What became of a signal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signalled {
    /// It is durable.
    Taken,
    /// The host does not own the shard of the saga.
    NotOwner,
    /// It was not taken.
    Refused(Problem),
}

/// The sagas of a host that do not move.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Unmoved {
    /// Those that do not move, though they should.
    pub stuck: Vec<StuckSaga>,
    /// Those that nothing touches.
    pub quarantined: Vec<QuarantinedSaga>,
}

/// A saga that does not move, though it should.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StuckSaga {
    /// The saga.
    pub id: SagaId,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
}

/// A saga that nothing touches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuarantinedSaga {
    /// The saga.
    pub id: SagaId,
    /// Why.
    pub reason: String,
}

/// The sagas whose activity a host is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Activities {
    /// The sagas.
    pub ids: Vec<SagaId>,
}

/// What sagas do or wait for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ActivitiesOf {
    /// The sagas of which something is known, in words.
    pub activities: BTreeMap<SagaId, String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_principal_is_read_by_the_version_before_and_by_the_next_one() {
        let told = PeerPrincipal {
            subject: "ada@127.0.0.1".to_owned(),
            is_host: false,
            roles: Vec::new(),
            via: "http".to_owned(),
        };
        let mut written = serde_json::to_value(&told).unwrap();
        let expected = json!({"subject": "ada@127.0.0.1", "is_host": false, "via": "http"});
        assert_eq!(written, expected);
        written.as_object_mut().unwrap().remove("is_host");
        assert_eq!(serde_json::from_value::<PeerPrincipal>(written).unwrap(), told);
    }
}
