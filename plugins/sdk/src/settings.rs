//! Settings and secrets that the config grants.

use serde::de::DeserializeOwned;

/// The setting of that name from `[plugin.NAME] settings`; none when it is not there or of
/// another type.
#[must_use]
pub fn setting<T: DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_str(&text(name)?).ok()
}

#[cfg(target_family = "wasm")]
fn text(name: &str) -> Option<String> {
    crate::bindings::config::setting(name)
}

/// The secret of that name from `[plugin.NAME] secrets`.
#[must_use]
pub fn secret(name: &str) -> Option<String> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::config::secret(name);
    #[cfg(not(target_family = "wasm"))]
    text(name)
}

/// Whether a capability is granted: `state`, `events` or `http`. In a native test all are, unless
/// the setting `denied` names it.
#[must_use]
pub fn granted(capability: &str) -> bool {
    #[cfg(target_family = "wasm")]
    return crate::bindings::config::granted(capability);
    #[cfg(not(target_family = "wasm"))]
    {
        setting::<String>("denied").as_deref() != Some(capability)
    }
}

#[cfg(not(target_family = "wasm"))]
thread_local! {
    static SETTINGS: std::cell::RefCell<serde_json::Map<String, serde_json::Value>> =
        std::cell::RefCell::default();
}

#[cfg(not(target_family = "wasm"))]
fn text(name: &str) -> Option<String> {
    SETTINGS.with_borrow(|settings| settings.get(name).map(ToString::to_string))
}

/// Runs a native test with settings, a JSON object.
#[cfg(not(target_family = "wasm"))]
pub fn with_settings<T>(settings: &serde_json::Value, test: impl FnOnce() -> T) -> T {
    SETTINGS.set(settings.as_object().cloned().unwrap_or_default());
    let result = test();
    SETTINGS.take();
    result
}
