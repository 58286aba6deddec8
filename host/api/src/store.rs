//! What the store holds, and its backup.

pub(crate) mod import;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use amends_api_types::{
    ArchiveBody, ArchivePassView, ArchivedCountView, BACKUP_HEADER, BackupView, GrowthView,
    OldestSagaView, RebuildBody, RebuildUnreadableItem, RebuildView, StoreEventsItem,
    StoreMonthItem, StoreSagasItem, StoreView,
};
use amends_runtime::{Backup, BackupSummary, RebuildPlace, RebuildSlice, StoreError, StoreSurvey};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::files::Binary;

/// The bytes of a backup that are read at a time. A client that does not read costs as much.
const PIECE_BYTES: usize = 256 << 10;

/// Says what the store holds and how fast it grows.
///
/// Counts by type are an estimate from 5,000 events when there are more; `events_sampled` says how many were
/// read. All other counts of sagas and events are exact.
#[utoipa::path(get, path = "/v1/store", operation_id = "get_store", tag = "host",
    security(("token" = ["read"])),
    responses((status = 200, body = StoreView, description = "What the store holds.")))]
pub(crate) async fn survey(State(state): State<ApiState>) -> Result<Json<StoreView>, ApiError> {
    let _turn = state.scans.acquire().await;
    Ok(Json(store_view(state.host.survey().await?)))
}

/// Sends a backup: a SQLite database with everything that was answered before the request.
///
/// The host first makes the copy beside its store, which needs as much room again, and then sends it. The
/// header `amends-backup` says what the backup holds, as JSON.
#[utoipa::path(get, path = "/v1/store/backup", operation_id = "back_up_store", tag = "host",
    security(("token" = ["administer", "payloads"])),
    responses(
        (status = 200, body = inline(Binary), content_type = "application/vnd.sqlite3",
            description = "A copy of the database. The header `amends-backup` says what it holds, in JSON.")))]
pub(crate) async fn back_up(State(state): State<ApiState>) -> Result<Response, ApiError> {
    let backup = state.host.back_up().await?;
    let view = backup_view(backup.summary);
    let told = serde_json::to_string(&view).ok().and_then(|text| HeaderValue::from_str(&text).ok());
    let told = told.unwrap_or(HeaderValue::from_static("{}"));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.sqlite3")),
        (header::CONTENT_LENGTH, HeaderValue::from(view.bytes)),
        (HeaderName::from_static(BACKUP_HEADER), told),
    ];
    Ok((headers, Body::from_stream(pieces(backup))).into_response())
}

/// Moves sagas to the archive whose retention is over, now. The host does that by itself each hour.
///
/// The answer comes when the pass is over. Sagas that were moved stay moved, whatever becomes of the
/// request.
#[utoipa::path(post, path = "/v1/store/archive", operation_id = "archive_sagas", tag = "host",
    security(("token" = ["administer"])),
    params(("amends-user" = Option<String>, Header)),
    request_body = ArchiveBody,
    responses((status = 200, body = ArchivePassView, description = "What the pass of the archive did.")))]
pub(crate) async fn archive(
    State(state): State<ApiState>,
    caller: Caller,
    JsonBody(ArchiveBody {}): JsonBody<ArchiveBody>,
) -> Result<Json<ArchivePassView>, ApiError> {
    let pass = state.host.archive(caller.principal()).await?;
    Ok(Json(ArchivePassView {
        sagas: pass.sagas,
        events: pass.events,
        segments: pass.segments,
        bytes: pass.bytes,
        kept: pass.kept,
        unreadable: pass.unreadable,
        keys: pass.keys,
        deleted: pass.is_deleting,
        components: pass.components.count,
        component_bytes: pass.components.bytes,
    }))
}

/// Compares what lists and searches read with the events, and writes anew what differs: one slice.
///
/// The rebuild is complete when each slice was done from the `next` of the one before, until there is none.
/// Sagas go on meanwhile. A rebuild may be begun again at any time, because what is right is not written.
#[utoipa::path(post, path = "/v1/store/rebuild", operation_id = "rebuild_store", tag = "host",
    security(("token" = ["administer"])),
    params(("amends-user" = Option<String>, Header)),
    request_body = RebuildBody,
    responses(
        (status = 200, body = RebuildView,
            description = "What this slice of the rebuild did, and where the next one begins.")))]
pub(crate) async fn rebuild(
    State(state): State<ApiState>,
    caller: Caller,
    JsonBody(RebuildBody { from }): JsonBody<RebuildBody>,
) -> Result<Json<RebuildView>, ApiError> {
    let place = from.map_or(Ok(RebuildPlace::START), |from| from.parse());
    let place = place.map_err(|_: StoreError| {
        ApiError::new(400, "bad_query", "`from` is not a place of a rebuild")
            .with_remedy("give the `next` of the slice before, or leave it out to begin")
    })?;
    Ok(Json(rebuild_view(state.host.rebuild(caller.principal(), place).await?)))
}

/// Returns a slice of a rebuild as the API tells it.
#[must_use]
pub fn rebuild_view(slice: RebuildSlice) -> RebuildView {
    let RebuildSlice { sagas, rebuilt, removed, unreadable, next } = slice;
    let unreadable = unreadable
        .into_iter()
        .map(|(saga, reason)| RebuildUnreadableItem { saga: saga.to_string(), reason });
    let next = next.map(|place| place.to_string());
    RebuildView { sagas, rebuilt, removed, unreadable: unreadable.collect(), next }
}

/// Returns the bytes of a backup, piece by piece. The backup exists until the stream is dropped.
fn pieces(backup: Backup) -> impl Stream<Item = std::io::Result<Bytes>> {
    let Backup { file, .. } = &backup;
    let file = file.try_clone().map(File::from_std);
    futures::stream::try_unfold((file, backup), async |(file, backup)| {
        let mut file = file?;
        let mut piece = bytes::BytesMut::with_capacity(PIECE_BYTES);
        let read = file.read_buf(&mut piece).await?;
        Ok((read > 0).then(|| (piece.freeze(), (Ok(file), backup))))
    })
}

/// Returns what a backup holds as the API tells it.
#[must_use]
pub fn backup_view(summary: BackupSummary) -> BackupView {
    let BackupSummary { bytes, events, sagas, at, took } = summary;
    BackupView { bytes, events, sagas, at, seconds: took.as_secs_f64() }
}

/// Returns a survey as the API tells it.
#[must_use]
pub fn store_view(survey: StoreSurvey) -> StoreView {
    let sagas = survey.sagas_total();
    let by_status = survey.sagas.into_iter().map(|count| StoreSagasItem {
        definition: count.definition,
        status: count.status.as_str().to_owned(),
        sagas: count.sagas,
    });
    let by_type = survey.types.into_iter().map(|count| StoreEventsItem {
        kind: count.kind,
        events: count.events,
        bytes: count.bytes,
    });
    let months = survey.months.into_iter().map(|month| StoreMonthItem {
        month: format!("{:04}-{:02}", month.year, month.month),
        sagas: month.sagas,
        events: month.events,
    });
    StoreView {
        bytes: survey.bytes,
        wal_bytes: survey.wal_bytes,
        free_bytes: survey.free_bytes,
        events: survey.events,
        sagas,
        sagas_by_status: by_status.collect(),
        events_by_type: by_type.collect(),
        events_sampled: survey.events_sampled,
        months: months.collect(),
        growth: survey.growth.map(|growth| GrowthView {
            measured_seconds: growth.over.as_secs(),
            events_per_day: growth.events_per_day,
            bytes_per_day: growth.bytes_per_day,
        }),
        archived: ArchivedCountView {
            sagas: survey.archived.sagas,
            events: survey.archived.events,
            segments: survey.archived.segments,
            bytes: survey.archived.bytes,
        },
        oldest_live: survey
            .oldest_live
            .map(|(id, started_at)| OldestSagaView { id: id.to_string(), started_at }),
    }
}
