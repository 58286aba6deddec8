//! The hosts of the store.

use axum::extract::State;

use amends_api_types::{HostItem, HostView};
use amends_runtime::HostShards;

use crate::answer::Json;
use crate::api_state::ApiState;

/// Lists the hosts that share the store, and which shards each owns.
///
/// A saga belongs to a shard by its id, and the owner of the shard runs it. Any host answers requests about any
/// saga. A host that has its store alone lists nobody.
#[utoipa::path(get, path = "/v1/host", operation_id = "list_hosts", tag = "host",
    security(("token" = ["read"])),
    responses((status = 200, body = HostView, description = "The hosts that share the store.")))]
pub(crate) async fn host(State(state): State<ApiState>) -> Json<HostView> {
    let Some((hosts, unowned)) = state.host.hosts() else {
        return Json(HostView { hosts: Vec::new(), shards_unowned: 0 });
    };
    let hosts = hosts.into_iter().map(host_item).collect();
    Json(HostView { hosts, shards_unowned: unowned })
}

fn host_item(HostShards { host, is_this, shards }: HostShards) -> HostItem {
    HostItem { name: host.name, address: host.address, is_this, shards }
}
