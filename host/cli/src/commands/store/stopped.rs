//! The store of a host that is stopped.

use std::path::Path;

use amends_config::{OverrideFlags, Overrides, Severity, look};
use amends_store::OpenError;

use crate::commands::exit::{EXIT_ERROR, Failed};
use crate::commands::output::shown;

/// Returns the URL of the store of a config, whatever else is wrong with it.
pub(super) fn url_of(config: &Path) -> anyhow::Result<String> {
    let overrides = Overrides::of_process(OverrideFlags::default());
    match look(config, &overrides, Severity::Warning) {
        Ok(loaded) => Ok(loaded.config.store.url),
        Err(report) => Err(anyhow::anyhow!("{}", shown(report.to_string().trim_end()))),
    }
}

/// Says what to do when a host has the store.
pub(super) fn in_use(error: OpenError) -> anyhow::Error {
    if !matches!(error, OpenError::InUse(_)) {
        return error.into();
    }
    let help =
        "stop the host; `amends store backup` and `stats` without --config ask a running host";
    Failed::with_help(EXIT_ERROR, "a host has the store of this config open", help).into()
}
