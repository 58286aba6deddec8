//! The store of a host that is stopped.

use std::path::Path;

use amends_config::{Loaded, OverrideFlags, Overrides, Severity, look};
use amends_engine::NamespaceName;
use amends_runtime::DEFAULT_NAMESPACE;
use amends_store::OpenError;

use crate::commands::exit::{EXIT_ERROR, EXIT_NOT_FOUND, Failed};
use crate::commands::namespace;
use crate::commands::output::shown;

/// Returns the URL of the store of a config, in the namespace that was said, whatever else is wrong with it.
pub(super) fn url_of(config: &Path) -> anyhow::Result<String> {
    let overrides = Overrides::of_process(OverrideFlags::default());
    let mut loaded = match look(config, &overrides, Severity::Warning) {
        Ok(loaded) => loaded,
        Err(report) => anyhow::bail!("{}", shown(report.to_string().trim_end())),
    };
    let name = namespace::said()?.filter(|name| name != DEFAULT_NAMESPACE);
    let Some(name) = name else { return Ok(loaded.config.store.url) };
    let named = |(one, _): &(NamespaceName, Loaded)| one.as_str() == name;
    let found = std::mem::take(&mut loaded.namespaces).into_iter().find(named);
    let Some((_, loaded)) = found else {
        let wrong = format!("the config has no namespace `{name}`");
        let help = "name one of its [namespace.NAME], or leave it out for the store at the top";
        return Err(Failed::with_help(EXIT_NOT_FOUND, &wrong, help).into());
    };
    Ok(loaded.config.store.url)
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
