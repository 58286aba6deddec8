//! The state of plugins as operators see and change it. Each change is an event in the plugin's stream.

use std::sync::Arc;

use amends_engine::{
    Payload, PluginName, STATE_KEYS_MAX, STATE_VALUE_BYTES_MAX, StateChange, StateQuery, Version,
    is_state_key,
};
use amends_store::{Append, Appended, NewEvent, StoreError, Stream};
use serde_json::json;

use crate::action::{Action, authorize};
use crate::host::Host;
use crate::principal::Principal;
use amends_registry::now;

/// One value that an operator writes; none removes the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// The key.
    pub key: String,
    /// The new value, a JSON text; none removes the key.
    pub value: Option<String>,
}

impl StateWrite {
    /// The rules that need no look at the plugin.
    ///
    /// # Errors
    /// [`StateError::Invalid`].
    pub fn check(&self) -> Result<(), StateError> {
        check_key(&self.key)?;
        let Some(value) = &self.value else { return Ok(()) };
        if value.len() > STATE_VALUE_BYTES_MAX {
            let message = format!(
                "the value of `{}` has {} bytes, at most {STATE_VALUE_BYTES_MAX} are allowed",
                self.key,
                value.len()
            );
            return Err(StateError::Invalid(message));
        }
        match Payload::parse(value) {
            Ok(_) => Ok(()),
            Err(error) => Err(StateError::Invalid(format!("the value of `{}`: {error}", self.key))),
        }
    }
}

/// Why an operator's change of state was not made. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is no such plugin.
    #[error("there is no plugin `{0}`")]
    NoPlugin(PluginName),
    /// The config grants it no state.
    #[error("plugin `{0}` has no state: it would have with state = true in [plugin.{0}]")]
    NotGranted(PluginName),
    /// A key, a value or their number is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The plugin's state would be too large.
    #[error("the state of plugin `{0}` would be larger than its state_max of {1} bytes")]
    Full(PluginName, u64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How often a change that only enters new keys is tried, while plugins enter them as well.
const TRIES_MAX: u32 = 100;

impl Host {
    /// The value of a key, a JSON text, as it is or is about to be.
    ///
    /// # Errors
    /// When the plugin has no state, the key cannot be one, or the store fails.
    pub async fn plugin_state(
        &self,
        plugin: &PluginName,
        key: &str,
    ) -> Result<Option<Arc<str>>, StateError> {
        self.has_state(plugin)?;
        check_key(key)?;
        Ok(self.store().state().value(plugin.clone(), key.to_owned()).await?)
    }

    /// Keys in the order of their bytes.
    ///
    /// # Errors
    /// As [`Self::plugin_state`].
    pub async fn plugin_state_keys(
        &self,
        plugin: &PluginName,
        query: StateQuery,
    ) -> Result<Vec<String>, StateError> {
        self.has_state(plugin)?;
        Ok(self.store().state().keys(plugin.clone(), query).await?)
    }

    /// Writes a value or removes it.
    ///
    /// # Errors
    /// As [`StateError`] says.
    pub async fn set_plugin_state(
        &self,
        principal: &Principal,
        plugin: &PluginName,
        write: StateWrite,
    ) -> Result<(), StateError> {
        authorize(principal, &Action::SetState { plugin, key: &write.key });
        let who = &principal.subject;
        let value = match &write.value {
            Some(value) => serde_json::from_str(value)
                .map_err(|error| StateError::Invalid(format!("the value is not JSON: {error}")))?,
            None => serde_json::Value::Null,
        };
        let data = match &write.value {
            Some(_) => json!({"who": who, "key": write.key, "value": value}),
            None => json!({"who": who, "key": write.key, "removed": true}),
        };
        self.write_plugin_state(plugin, "operator.state_set", vec![write], false, |_| data.clone())
            .await?;
        Ok(())
    }

    /// Writes up to [`STATE_KEYS_MAX`] values at once, from `source`; with `only_new` it leaves keys
    /// that are there as they are. Answers how many it wrote.
    ///
    /// # Errors
    /// As [`StateError`] says.
    pub async fn import_plugin_state(
        &self,
        principal: &Principal,
        plugin: &PluginName,
        source: &str,
        writes: Vec<StateWrite>,
        only_new: bool,
    ) -> Result<usize, StateError> {
        authorize(principal, &Action::ImportState { plugin });
        let who = &principal.subject;
        let data = |written| json!({"who": who, "source": source, "keys": written});
        self.write_plugin_state(plugin, "operator.state_imported", writes, only_new, data).await
    }

    async fn write_plugin_state(
        &self,
        plugin: &PluginName,
        kind: &'static str,
        writes: Vec<StateWrite>,
        only_new: bool,
        data: impl Fn(usize) -> serde_json::Value,
    ) -> Result<usize, StateError> {
        self.has_state(plugin)?;
        if writes.len() > STATE_KEYS_MAX {
            let message = format!("at most {STATE_KEYS_MAX} keys are written at once");
            return Err(StateError::Invalid(message));
        }
        writes.iter().try_for_each(StateWrite::check)?;
        let bytes_max = self.registry().configured(plugin).state_bytes_max;
        for _ in 0..TRIES_MAX {
            let mut change = StateChange::new(plugin.clone(), bytes_max);
            for write in &writes {
                if only_new {
                    let store = self.store();
                    if store.state().value(plugin.clone(), write.key.clone()).await?.is_some() {
                        continue;
                    }
                    change.reads.insert(write.key.clone(), None);
                }
                let value = write.value.as_deref().map(Arc::from);
                change.writes.insert(write.key.clone(), value);
            }
            let written = change.writes.len();
            if written == 0 {
                return Ok(0);
            }
            let event = NewEvent { kind: kind.into(), data: data(written).to_string() };
            match self.record_of_plugin(plugin, event, Arc::new(change)).await? {
                Appended::Done { .. } => return Ok(written),
                Appended::StateFull(_) => return Err(StateError::Full(plugin.clone(), bytes_max)),
                Appended::StateChanged(_) | Appended::Duplicate(_) | Appended::KeyReused(_) => {}
            }
        }
        Err(StateError::Invalid("plugins change these keys all the time; try again".to_owned()))
    }

    /// Appends an event to the plugin's own stream, with a change of its state.
    async fn record_of_plugin(
        &self,
        plugin: &PluginName,
        event: NewEvent,
        change: Arc<StateChange>,
    ) -> Result<Appended, StoreError> {
        // The store says where the stream is. Operators change state rarely, so nobody keeps count.
        let mut expected = Version(0);
        loop {
            let stream = Stream::Plugin(plugin.clone());
            let append = Append {
                state: vec![Arc::clone(&change)],
                ..Append::shared(stream, expected, now(), vec![event.clone()])
            };
            match self.store().state().change(append).await {
                // Whoever else writes to the stream changes nothing that this event rests on.
                Err(StoreError::Conflict { actual, .. }) => expected = actual,
                appended => return appended,
            }
        }
    }

    fn has_state(&self, plugin: &PluginName) -> Result<(), StateError> {
        if !self.registry().is_known(plugin) {
            return Err(StateError::NoPlugin(plugin.clone()));
        }
        if !self.registry().configured(plugin).state {
            return Err(StateError::NotGranted(plugin.clone()));
        }
        Ok(())
    }
}

fn check_key(key: &str) -> Result<(), StateError> {
    if is_state_key(key) {
        return Ok(());
    }
    let shown: String = key.chars().take(80).collect();
    let message =
        format!("{shown:?} is not a key: write 1 to 256 bytes without control characters");
    Err(StateError::Invalid(message))
}
