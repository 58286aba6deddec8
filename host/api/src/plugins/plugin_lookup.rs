//! The plugin that a path names.

use amends_engine::PluginName;
use amends_registry::PluginInfo;

use crate::api_state::ApiState;
use crate::error::ApiError;

/// Reads a plugin.
///
/// # Errors
/// 404 when there is no such plugin.
pub(crate) fn plugin(state: &ApiState, name: &PluginName) -> Result<PluginInfo, ApiError> {
    state.host.plugin(name).ok_or_else(|| {
        ApiError::new(404, "plugin_unknown", format!("there is no plugin `{name}`"))
            .with_remedy("GET /v1/plugins lists the plugins of this host")
    })
}
