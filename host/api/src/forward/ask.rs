//! What a host asks the others, so that an answer is the same from any host.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Uri};
use bytes::Bytes;
use futures::future::join_all;

use amends_api_types::SagaView;
use amends_engine::SagaId;
use amends_peers::{
    ACTIVITIES_PATH, Activities, ActivitiesOf, FORWARD_ANSWER_TIME_MAX, OWNER_LOOK_PAUSE,
    OWNER_WAIT_MAX, Passed, PeerError, UNMOVED_PATH, Unmoved,
};
use amends_runtime::{HostInfo, OwnerError, Quarantined, ShardOwner, Stuck};
use tokio::time::Instant;

use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::payloads::Payloads;
use crate::sagas::saga_view::saga_view;

/// The sagas of the other hosts that do not move, and the first error of a host that has not answered.
pub(crate) async fn unmoved_of_others(
    state: &ApiState,
) -> (Vec<Stuck>, Vec<Quarantined>, Option<ApiError>) {
    let (mut stuck, mut quarantined, mut failed) = (Vec::new(), Vec::new(), None);
    let Some(peers) = state.host.peers() else { return (stuck, quarantined, failed) };
    let others = state.host.other_hosts();
    let asked = others.iter().map(|other| peers.ask::<Unmoved>(other, UNMOVED_PATH, &()));
    for (other, answer) in others.iter().zip(join_all(asked).await) {
        match answer {
            Ok(told) => {
                stuck.extend(told.stuck.into_iter().map(|one| Stuck {
                    id: one.id,
                    since: one.since,
                    reason: one.reason,
                }));
                quarantined.extend(
                    told.quarantined
                        .into_iter()
                        .map(|one| Quarantined { id: one.id, reason: one.reason }),
                );
            }
            Err(error) => {
                let detail = format!(
                    "host {} has not said which of its sagas do not move: {error}",
                    other.name
                );
                failed.get_or_insert_with(|| {
                    ApiError::new(503, "host_silent", detail).with_remedy(
                        "try again: a host that is gone is not asked any more after some seconds",
                    )
                });
            }
        }
    }
    (stuck, quarantined, failed)
}

/// What sagas of other hosts do or wait for. Of a host that does not answer, nothing is known.
pub(crate) async fn activities_of_others(
    state: &ApiState,
    ids: impl Iterator<Item = SagaId>,
) -> BTreeMap<SagaId, String> {
    let Some(peers) = state.host.peers() else { return BTreeMap::new() };
    let mut by_owner: Vec<(HostInfo, Vec<SagaId>)> = Vec::new();
    for id in ids {
        let ShardOwner::Other(owner) = state.host.owner_of(id) else { continue };
        match by_owner.iter_mut().find(|(other, _)| *other == owner) {
            Some((_, ids)) => ids.push(id),
            None => by_owner.push((owner, vec![id])),
        }
    }
    let asked = by_owner.into_iter().map(|(owner, ids)| async move {
        peers.ask::<ActivitiesOf>(&owner, ACTIVITIES_PATH, &Activities { ids }).await
    });
    let told = join_all(asked).await.into_iter();
    told.filter_map(Result::ok).flat_map(|told| told.activities).collect()
}

/// Waits for a saga that has moved to another host since it was started here. None when it has not moved; an error
/// when its owner has not answered.
pub(crate) async fn saga_elsewhere(
    state: &ApiState,
    id: SagaId,
    wait: Duration,
    payloads: Payloads,
) -> Option<Result<SagaView, ApiError>> {
    let peers = state.host.peers()?;
    let until = Instant::now() + wait;
    let limit = until + OWNER_WAIT_MAX;
    let mut is_first = true;
    loop {
        let owner = match state.host.owner_of(id) {
            ShardOwner::This if is_first => return None,
            ShardOwner::This => {
                let left = until.saturating_duration_since(Instant::now());
                match state.host.wait(id, left).await {
                    Ok(Some(found)) => return Some(Ok(saga_view(&found, payloads))),
                    Ok(None) => return None,
                    Err(_) => None,
                }
            }
            ShardOwner::Other(owner) => Some(owner),
            ShardOwner::Nobody => None,
        };
        is_first = false;
        if let Some(owner) = owner {
            let left = until.saturating_duration_since(Instant::now());
            let path = format!("/v1/sagas/{id}?wait={}ms", left.as_millis());
            let asked = ask_saga(peers, &owner, &path, left);
            match state.host.answer_of(&owner, asked).await {
                Ok(view) => return Some(Ok(payloads.saga(view))),
                Err(error) if Instant::now() >= limit => {
                    return Some(Err(OwnerError::from(error).into()));
                }
                Err(error) => tracing::debug!(%error, "the owner of a saga has not answered"),
            }
        }
        if Instant::now() >= limit {
            return Some(Err(OwnerError::Nobody.into()));
        }
        tokio::time::sleep(OWNER_LOOK_PAUSE).await;
    }
}

async fn ask_saga(
    peers: &amends_peers::Peers,
    owner: &HostInfo,
    path: &str,
    wait: Duration,
) -> Result<SagaView, PeerError> {
    let uri: Uri = path.parse().map_err(|_| PeerError::Refused("no path".to_owned()))?;
    let (headers, body) = (HeaderMap::new(), Bytes::new());
    let passed = Passed {
        method: &Method::GET,
        uri: &uri,
        headers: &headers,
        body: &body,
        caller: None,
        waited: Duration::ZERO,
    };
    let answer = peers.send(owner, passed, FORWARD_ANSWER_TIME_MAX + wait).await?;
    answer.json().await
}
