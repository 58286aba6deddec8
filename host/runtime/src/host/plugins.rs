//! The plugins of a host, as readers see them, and which component operators choose for them.

use amends_engine::{Digest, PluginName};
use amends_registry::{ActivationReason, PluginError, PluginInfo};

use super::Host;
use crate::action::{Action, authorize};
use crate::principal::Principal;

impl Host {
    /// Returns the plugins, by name.
    #[must_use]
    pub fn plugins(&self) -> Vec<PluginInfo> {
        self.inner.plugins.list()
    }

    /// Returns a plugin. None when there is no such plugin.
    #[must_use]
    pub fn plugin(&self, name: &PluginName) -> Option<PluginInfo> {
        self.inner.plugins.info(name)
    }

    /// Returns the component whose digest begins with this text, of those that any plugin has or had.
    ///
    /// # Errors
    /// When there is no such component, or more than one.
    pub fn component_digest(&self, beginning: &str) -> Result<Digest, String> {
        self.inner.plugins.digest_of(beginning)
    }

    /// Activates the canary of a plugin for all sagas.
    ///
    /// # Errors
    /// When no canary runs, or it cannot read what sagas in flight have recorded; and when the store
    /// fails.
    pub async fn promote(
        &self,
        principal: &Principal,
        plugin: &PluginName,
        reason: String,
    ) -> Result<(), PluginError> {
        authorize(principal, &Action::Promote { plugin });
        self.inner.plugins.promote(plugin, principal.subject.clone(), reason).await
    }

    /// Goes back to an earlier component of a plugin: to `to`, or to the last one before the active
    /// one that no rollback left. Without `to`, a running canary is taken back instead. `is_forced`
    /// also activates a component that cannot read what sagas in flight have recorded.
    ///
    /// # Errors
    /// When there is no such component, it cannot be loaded any more, or it cannot read what sagas in
    /// flight have recorded and that is not forced; and when the store fails.
    pub async fn rollback(
        &self,
        principal: &Principal,
        plugin: &PluginName,
        to: Option<Digest>,
        reason: String,
        is_forced: bool,
    ) -> Result<(), PluginError> {
        authorize(principal, &Action::Rollback { plugin });
        let why = ActivationReason {
            who: Some(principal.subject.clone()),
            reason: Some(reason),
            forced: is_forced,
            ..ActivationReason::default()
        };
        self.inner.plugins.rollback(plugin, to, why).await.map(drop)
    }
}
