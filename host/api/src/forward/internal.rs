//! What only the hosts of the store ask one another. [`super::receive`] lets nobody else through.

use axum::extract::State;

use amends_peers::{
    Activities, ActivitiesOf, PeerSignal, PeerStart, PeerStarted, QuarantinedSaga, Signalled,
    StartsAnswer, StartsBody, StuckSaga, Unmoved,
};
use amends_runtime::StartError;
use futures::stream::{self, StreamExt as _};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::sagas::list::activity_of;

/// Starts of one request that are under way at once. They share transactions of the store.
const STARTS_AT_ONCE: usize = 256;

/// Starts sagas for another host.
pub(crate) async fn starts(
    State(state): State<ApiState>,
    axum::Json(StartsBody { starts }): axum::Json<StartsBody>,
) -> Json<StartsAnswer> {
    let start = |start: PeerStart| started(&state, start);
    let answers = stream::iter(starts).map(start).buffered(STARTS_AT_ONCE).collect().await;
    Json(StartsAnswer { answers })
}

async fn started(state: &ApiState, start: PeerStart) -> PeerStarted {
    match state.host.start_for_peer(start).await {
        Ok(started) => PeerStarted::Started { saga: started.id, created: started.created },
        Err(StartError::KeyReused(saga)) => PeerStarted::KeyReused(saga),
        Err(error) => {
            let error = ApiError::from(error);
            if error.is_not_here() {
                return PeerStarted::NotOwner;
            }
            PeerStarted::Refused(error.into_problem())
        }
    }
}

/// Sends a signal for another host.
pub(crate) async fn signal(
    State(state): State<ApiState>,
    axum::Json(signal): axum::Json<PeerSignal>,
) -> Json<Signalled> {
    Json(match state.host.signal_for_peer(signal).await {
        Ok(()) => Signalled::Taken,
        Err(error) => {
            let error = ApiError::from(error);
            if error.is_not_here() {
                Signalled::NotOwner
            } else {
                Signalled::Refused(error.into_problem())
            }
        }
    })
}

/// Says which sagas of this host do not move.
pub(crate) async fn unmoved(State(state): State<ApiState>) -> Json<Unmoved> {
    let stuck = state.host.stuck().await.into_iter();
    let stuck =
        stuck.map(|one| StuckSaga { id: one.id, since: one.since, reason: one.reason }).collect();
    let quarantined = state.host.quarantined().into_iter();
    let quarantined =
        quarantined.map(|one| QuarantinedSaga { id: one.id, reason: one.reason }).collect();
    Json(Unmoved { stuck, quarantined })
}

/// Says what some sagas of this host do or wait for.
pub(crate) async fn activities(
    State(state): State<ApiState>,
    axum::Json(Activities { ids }): axum::Json<Activities>,
) -> Json<ActivitiesOf> {
    let mut told = ActivitiesOf::default();
    for id in ids {
        told.activities.extend(activity_of(&state, id).await.map(|activity| (id, activity)));
    }
    Json(told)
}
