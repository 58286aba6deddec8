//! The HTTP API of Amends: JSON under `/v1`, described by `/v1/openapi.json` (OpenAPI 3.1).
//!
//! Errors are problem details (RFC 9457) with a stable `code`. Times are RFC 3339, UTC. Lists take `limit` and
//! an opaque `cursor` and answer `{items, next_cursor}`. The structs of the JSON are in `amends-api-types`.
//!
//! Deliberately absent: decisions. Every handler asks the host, which decides and which alone reaches the store.

#![expect(clippy::result_large_err, reason = "a problem is made once for a request that failed")]

mod access;
mod answer;
mod answers;
mod api_state;
mod arrived;
mod audit;
mod body;
mod breakers;
mod caller;
mod crowded;
mod definitions;
mod door;
mod encrypted;
mod erasures;
mod error;
mod events;
mod exposure;
mod extract;
mod files;
mod forward;
mod head;
mod header;
mod health;
mod hosts;
mod ids;
mod legible;
mod lines;
mod names;
mod namespaces;
mod network;
mod on;
mod openapi;
mod pace;
mod paging;
mod payloads;
mod plugin_state;
mod plugins;
mod rates;
mod reason;
mod request_span;
mod router;
mod sagas;
mod schedules;
mod server;
mod starting;
mod store;
mod subscriptions;
mod tokens;

pub use api_state::ApiState;
pub use health::prometheus;
pub use metrics_exporter_prometheus::PrometheusHandle;
pub use router::router;
pub use server::{CONNECTIONS_MAX, ConnectionLimit, Server, Tls, TlsError};
pub use starting::{Opening, starting};
pub use store::{backup_view, rebuild_view, store_view};
