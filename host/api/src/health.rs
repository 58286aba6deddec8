//! Whether the host is well, and its metrics.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use amends_api_types::{AliveView, ReadyView, WarningView};
use amends_runtime::{DEFAULT_NAMESPACE, Host, StoreHealth};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::ApiError;

/// The bounds of the buckets of durations, in seconds: from a reused instance to a slow service.
const SECONDS: [f64; 14] =
    [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0];

/// The bounds of the buckets of batch sizes.
const SIZES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// What each metric is, by name. `/metrics` shows it as `# HELP`.
const HELP: [(&str, &str); 35] = [
    (
        "amends_breaker_state",
        "Whether the breaker of a service is closed (0), half open (1) or open (2).",
    ),
    ("amends_build_info", "The version of the host."),
    ("amends_calls_in_flight", "Calls of plugins under way."),
    ("amends_calls_waiting", "Calls of plugins that wait for room, by the room."),
    (
        "amends_connections_refused_total",
        "Connections that were closed because their address had as many as one address may have.",
    ),
    ("amends_disk_free_bytes", "Bytes that are free on the disk of the store."),
    (
        "amends_fenced_writes_total",
        "Writes of this host that were refused because another host has its shards.",
    ),
    (
        "amends_memory_bytes",
        "Bytes that running plugins (guests) and sagas that have not ended (live_sagas) hold.",
    ),
    ("amends_oldest_live_saga_seconds", "How long ago the oldest saga began that has not ended."),
    (
        "amends_oldest_unfinished_undo_seconds",
        "How long the oldest compensation that has not ended has been under way.",
    ),
    ("amends_plugin_components", "Components whose code is in memory."),
    (
        "amends_plugin_reload_seconds",
        "How long it took to compile a component, or to read its compiled code.",
    ),
    ("amends_plugin_traps_total", "Calls that a trap or a limit of the sandbox ended."),
    ("amends_quarantined", "Sagas that are set aside because their events cannot be read."),
    ("amends_saga_blocked", "Sagas that need a person."),
    (
        "amends_saga_finished_total",
        "Sagas that ended, by outcome: completed, compensated, abandoned.",
    ),
    ("amends_saga_in_memory", "Sagas that have not ended and are in memory; the others wait."),
    ("amends_saga_live", "Sagas that have not ended."),
    ("amends_saga_started_total", "Sagas that were started."),
    ("amends_saga_stuck", "Sagas that do not move, though they neither wait nor need a person."),
    ("amends_shards_owned", "Shards of the 64 that this host owns."),
    ("amends_spans_dropped_total", "Spans that no collector got, by reason: queue_full, not_sent."),
    ("amends_spans_sent_total", "Spans that the collector has taken."),
    ("amends_step_duration_seconds", "How long calls took, by direction: execute, compensate."),
    ("amends_step_failures_total", "Calls that failed, by class: permanent, retryable, unknown."),
    ("amends_store_append_seconds", "How long events waited until they were on the disk."),
    (
        "amends_store_backup_step_seconds",
        "How long one step of a backup held up the writer of the store.",
    ),
    ("amends_store_batch_size", "Appends that were written in one transaction."),
    ("amends_store_bytes", "Bytes of the database file."),
    ("amends_store_failed_total", "Transactions that the database refused, by reason."),
    ("amends_store_wal_bytes", "Bytes of the database's write-ahead log."),
    ("amends_subscription_dead_letters", "Events that a subscription could not deliver and keeps."),
    ("amends_subscription_delivered_total", "Events that the receiver of a subscription accepted."),
    ("amends_subscription_failures_total", "Requests of a subscription that failed."),
    (
        "amends_subscription_lag_events",
        "Events of the log behind the place up to which a subscription has delivered.",
    ),
];

/// Installs the metrics recorder of the process.
///
/// # Errors
/// When the process has a recorder already.
pub fn prometheus() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &SIZES)?
        .install_recorder()?;
    for (name, help) in HELP {
        // The kind is told by the first value; the text is the same for all.
        metrics::describe_gauge!(name, help);
    }
    metrics::gauge!("amends_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Answers that the host lives.
#[utoipa::path(get, path = "/healthz", operation_id = "get_health", tag = "host",
    security(()),
    responses((status = 200, body = AliveView, description = "The host lives.")))]
pub(crate) async fn healthz() -> Json<AliveView> {
    alive()
}

/// The answer of a host that lives, also before it is open.
pub(crate) fn alive() -> Json<AliveView> {
    Json(AliveView { status: "ok".to_owned() })
}

/// Answers that the host takes sagas, in each of its namespaces, or why it does not.
///
/// `warnings` has what will soon keep the host from it: `disk_low`, when the disk of the store has less than
/// 5 % and less than 1 GiB free.
#[utoipa::path(get, path = "/readyz", operation_id = "get_readiness", tag = "host",
    security(()),
    responses((status = 200, body = ReadyView, description = "The host takes sagas.")))]
pub(crate) async fn readyz(State(state): State<ApiState>) -> Result<Json<ReadyView>, ApiError> {
    let mut ready = ReadyView { quarantined: 0, status: "ready".to_owned(), warnings: Vec::new() };
    for host in state.hosts.all() {
        // Of `default`, it is said as on a host that has no other.
        let name = Some(host.namespace()).filter(|name| *name != DEFAULT_NAMESPACE);
        let of = name.map_or_else(String::new, |name| format!("namespace `{name}`: "));
        look_at(host, &of, &mut ready).map_err(|problem| problem.with_detail_before(&of))?;
    }
    Ok(Json(ready))
}

/// Adds what is known of one namespace.
///
/// # Errors
/// When it takes no sagas.
fn look_at(host: &Host, of: &str, ready: &mut ReadyView) -> Result<(), ApiError> {
    if host.is_stopping() {
        return Err(ApiError::new(503, "stopping", "the host is stopping"));
    }
    match host.store_health() {
        StoreHealth::Well => {}
        // Whoever asks only wants to know whether the host takes sagas: 503, whatever is wrong.
        StoreHealth::NoWrites(error) | StoreHealth::Lost(error) => {
            return Err(ApiError::from(error).with_status(503));
        }
    }
    if !host.is_healthy() {
        return Err(ApiError::new(503, "shard_failed", "a part of the host has failed")
            .with_remedy("start the host again: nothing that was accepted is lost"));
    }
    ready.quarantined += host.quarantined().len();
    if let Some(disk) = host.stats().disk.filter(|disk| disk.is_low) {
        let detail = format!(
            "{of}the disk of the store is nearly full: {} MiB of {} MiB are free; when it is full, no saga \
             goes on",
            disk.free_bytes >> 20,
            disk.total_bytes >> 20
        );
        ready.warnings.push(WarningView {
            code: "disk_low".to_owned(),
            detail,
            disk_bytes: disk.total_bytes,
            free_bytes: disk.free_bytes,
        });
    }
    Ok(())
}

/// Answers with the metrics of the host, as Prometheus text: those of all namespaces.
#[utoipa::path(get, path = "/metrics", operation_id = "get_metrics", tag = "host",
    security(("token" = ["read"])),
    responses((status = 200, body = String, description = "The metrics, as Prometheus reads them.")))]
pub(crate) async fn metrics(State(state): State<ApiState>) -> Result<Response, ApiError> {
    state.only_in_default("the metrics")?;
    for host in state.hosts.all() {
        host.refresh_gauges().await;
    }
    state.prometheus.run_upkeep();
    let text = state.prometheus.render();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
