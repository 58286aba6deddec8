//! The start of a host: something serves each plugin that a definition needs.

use std::sync::Arc;

use amends_engine::{Digest, PluginName};
use amends_sandbox::{Priority, Rejection};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::activation::ActivationReason;
use crate::error::PluginError;
use crate::folder;
use crate::loads::LOADS_MAX;
use crate::registry::Registry;

impl Registry {
    /// Has something serve each plugin that a definition needs, all at once.
    pub(crate) async fn begin(&self) -> Result<(), PluginError> {
        let room = Arc::new(Semaphore::new(LOADS_MAX));
        let mut begun = JoinSet::new();
        let required = self.inner.config.plugins.iter();
        let required: Vec<_> = required
            .filter(|(_, settings)| settings.required.any())
            .map(|(name, _)| name)
            .collect();
        self.inner.config.progress.begin(required.len());
        for name in required {
            let (host, name, room) = (self.clone(), name.clone(), Arc::clone(&room));
            begun.spawn(async move {
                let _room = room.acquire().await;
                let begun = host.begin_one(&name).await;
                host.inner.config.progress.done(&name);
                begun
            });
        }
        while let Some(done) = begun.join_next().await {
            done.map_err(|error| PluginError::Start(error.to_string()))??;
        }
        Ok(())
    }

    /// Has what served last serve again. False when there is nothing that can be loaded.
    async fn begin_from_store(&self, name: &PluginName) -> Result<bool, PluginError> {
        let Some(last) = self.last(name) else { return Ok(false) };
        match self.by_digest(name, last.digest).await {
            Ok(component) => {
                self.put_to_use(name, &component);
                Ok(true)
            }
            Err(PluginError::Store(error)) => Err(error.into()),
            Err(error) => {
                tracing::error!(plugin = %name, %error, "what served last cannot be loaded");
                self.note_unloadable(name, last.digest, &error);
                Ok(false)
            }
        }
    }

    async fn begin_one(&self, name: &PluginName) -> Result<(), PluginError> {
        if self.begin_from_store(name).await? {
            return Ok(());
        }
        // With several hosts a file replaces nothing at the start, also not what this host cannot load now.
        if !self.takes_file_of_start(name) {
            return Ok(());
        }
        // Nothing serves, so there is nothing that the guard would have to keep serving.
        let (dir, of) = (self.inner.config.dir.clone(), name.clone());
        let read = tokio::task::spawn_blocking(move || folder::read_component(&dir, &of)).await;
        let read = read.unwrap_or_else(|error| Err(Rejection::NotReadable(error.to_string())));
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(()),
            Err(rejection) => return self.reject(name, None, &rejection).await,
        };
        let digest = Digest::of(&bytes);
        if self.is_superseded(name, digest) {
            return Ok(());
        }
        let refused = match self.load(name, bytes, Priority::Awaited).await {
            Ok(candidate) => match self.misnamed(name, &candidate.component) {
                None => {
                    let (is_wanted, why) =
                        (|| self.takes_file_of_start(name), ActivationReason::default());
                    if !self.activate_while(vec![candidate], why, is_wanted).await? {
                        // Another host has had its file serve meanwhile.
                        self.begin_from_store(name).await?;
                    }
                    return Ok(());
                }
                Some(rejection) => rejection,
            },
            Err(rejection) => rejection,
        };
        self.reject(name, Some(digest), &refused).await
    }
}
