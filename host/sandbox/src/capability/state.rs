//! `amends:saga/state`: what a call reads is what is there or what it wrote before; what it writes
//! is kept until it is recorded.

use std::sync::Arc;

use amends_engine::{
    COUNTER_MAX, CounterChange, CounterLimit, Payload, STATE_KEYS_MAX, STATE_ROWS_MAX,
    STATE_VALUE_BYTES_MAX, StateChange, StateList, StateQuery, counter, is_state_key,
};
use serde_json::Value;

use crate::bindings::amends::saga::state::{Added, Host};
use crate::call::guest::Guest;
use crate::capability::state_view::{StateUnreadable, StateView};
use crate::limits::call_limits::Lacks;
use crate::stopped::Stopped;

/// Bytes of all values that one call reads and writes: they are held until it is recorded.
pub(crate) const STATE_BYTES_OF_CALL_MAX: usize = 8 << 20;

type Result<T> = std::result::Result<T, Stopped>;

fn refuse<T>(message: impl Into<String>) -> Result<T> {
    Err(Stopped::new("state_refused", message))
}

impl Host for Guest {
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.host_call()?;
        self.need("state")?;
        let value = self.value(&key).await?;
        Ok(value.map(|value| value.as_ref().to_owned()))
    }

    async fn set(&mut self, key: String, value: String) -> wasmtime::Result<()> {
        self.host_call()?;
        self.need("state")?;
        Ok(self.write(key, Some(value))?)
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<bool> {
        self.host_call()?;
        self.need("state")?;
        let was_there = self.value(&key).await?.is_some();
        self.write(key, None)?;
        Ok(was_there)
    }

    async fn compare_and_swap(
        &mut self,
        key: String,
        expected: Option<String>,
        new: Option<String>,
    ) -> wasmtime::Result<bool> {
        self.host_call()?;
        self.need("state")?;
        let present = self.value(&key).await?;
        let is_expected = match (present.as_deref(), expected.as_deref()) {
            (None, None) => true,
            // Two texts may say the same. An earlier version kept texts without a definite value.
            (Some(present), Some(expected)) => {
                present == expected || serde_json::from_str(present).ok() == Some(json(expected)?)
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        if is_expected {
            self.write(key, new)?;
        }
        Ok(is_expected)
    }

    async fn add(
        &mut self,
        key: String,
        delta: i64,
        min: Option<i64>,
        max: Option<i64>,
    ) -> wasmtime::Result<Added> {
        self.host_call()?;
        self.need("state")?;
        Ok(self.add_to(key, delta, min.unwrap_or(i64::MIN), max.unwrap_or(i64::MAX)).await?)
    }

    async fn list_keys(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> wasmtime::Result<Vec<String>> {
        self.host_call()?;
        self.need("state")?;
        Ok(self.keys(prefix, after, limit).await?)
    }
}

/// Whether a call may have seen so many rows.
fn see(rows: usize) -> Result<()> {
    if rows > STATE_ROWS_MAX {
        return refuse(format!(
            "a call reads and lists at most {STATE_ROWS_MAX} keys of state: ask for fewer keys at \
             once, or keep what it looks for under a key of its own"
        ));
    }
    Ok(())
}

fn json(text: &str) -> Result<Value> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) => refuse(format!("what is compared with state is not JSON: {error}")),
    }
}

impl Guest {
    /// Returns the value of a key for this call, and records that the call saw it.
    async fn value(&mut self, key: &str) -> Result<Option<Arc<str>>> {
        if let Some(written) = self.change(key)?.writes.get(key) {
            return Ok(written.clone());
        }
        let base = match self.change(key)?.reads.get(key) {
            Some(seen) => seen.clone(),
            None => self.read(key).await?,
        };
        let change = self.change(key)?;
        change.reads.insert(key.to_owned(), base.clone());
        let added = change.counters.get(key).map_or(0, |counter| counter.delta);
        Ok(match base.as_deref().and_then(counter) {
            Some(number) if added != 0 => Some(number.saturating_add(added).to_string().into()),
            Some(_) | None => base,
        })
    }

    /// Reads the value of a key. Does not record that the call saw it.
    async fn read(&mut self, key: &str) -> Result<Option<Arc<str>>> {
        let change = self.change(key)?;
        if change.reads.len().max(change.counters.len()) >= STATE_KEYS_MAX {
            return refuse(format!("a call reads at most {STATE_KEYS_MAX} keys"));
        }
        see(change.rows() + 1)?;
        let (view, plugin) = (self.state_view()?, self.state_of()?);
        let value = match view.value(plugin, key.to_owned()).await {
            Ok(value) => value,
            Err(error) => return Err(self.unreadable(&error)),
        };
        self.hold(value.as_ref().map_or(0, |value| value.len()))?;
        Ok(value)
    }

    /// Adds to a counter, for which this call depends on the limits alone and not on the number.
    async fn add_to(&mut self, key: String, delta: i64, min: i64, max: i64) -> Result<Added> {
        self.check_may_write()?;
        if min > max {
            return refuse(format!("the counter `{key}`: min is {min} and max is {max}"));
        }
        let change = self.change(&key)?;
        let (written, seen) = (change.writes.get(&key).cloned(), change.reads.get(&key).cloned());
        let is_written = written.is_some();
        let base = match written.or(seen) {
            Some(base) => base,
            None => self.read(&key).await?,
        };
        let change = self.change(&key)?;
        let Some(base) = base else {
            if !is_written {
                change.reads.insert(key, None);
            }
            return Ok(Added::Absent);
        };
        let Some(number) = counter(&base) else {
            return refuse(format!(
                "the value of `{key}` is no counter: a counter is a whole number of at most \
                 {COUNTER_MAX}, written without a fraction and without an exponent"
            ));
        };
        let mut own = CounterChange::default();
        let of_call =
            if is_written { &mut own } else { change.counters.entry(key.clone()).or_default() };
        match of_call.add(number, delta, min, max) {
            Ok(()) => {}
            Err(CounterLimit::TooSmall) => return Ok(Added::TooSmall),
            Err(CounterLimit::TooLarge) => return Ok(Added::TooLarge),
        }
        if is_written {
            self.write(key, Some(number.saturating_add(delta).to_string()))?;
        }
        Ok(Added::Done)
    }

    fn check_may_write(&self) -> Result<()> {
        if self.id.as_ref().is_some_and(|id| id.is_probe) {
            return refuse("a probe only looks, and writes no state");
        }
        Ok(())
    }

    fn write(&mut self, key: String, value: Option<String>) -> Result<()> {
        self.check_may_write()?;
        let value = match value.map(|value| self.checked(&key, &value)).transpose()? {
            Some(value) => {
                self.hold(value.len())?;
                Some(value)
            }
            None => None,
        };
        let change = self.change(&key)?;
        if change.writes.len() >= STATE_KEYS_MAX && !change.writes.contains_key(&key) {
            return refuse(format!("a call writes at most {STATE_KEYS_MAX} keys"));
        }
        change.writes.insert(key, value);
        Ok(())
    }

    fn checked(&self, key: &str, value: &str) -> Result<Arc<str>> {
        let value = self.kept(self.granted.secrets.redact_json(value), "its state");
        if value.len() > STATE_VALUE_BYTES_MAX {
            return refuse(format!(
                "the value of `{key}` has {} bytes, at most {STATE_VALUE_BYTES_MAX} are allowed: \
                 divide it over several keys",
                value.len()
            ));
        }
        match Payload::parse(&value) {
            Ok(value) => Ok(value.as_str().into()),
            Err(error) => refuse(format!("the value of `{key}`: {error}")),
        }
    }

    async fn keys(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<String>> {
        let mut query = StateQuery { prefix, after, limit };
        let change = self.change("list")?;
        if change.lists.len() >= STATE_KEYS_MAX {
            return refuse(format!("a call lists keys at most {STATE_KEYS_MAX} times"));
        }
        let most = (limit as usize).min(STATE_KEYS_MAX);
        let written = change.writes.iter().filter(|(key, _)| query.covers(key));
        let written: Vec<_> = written.map(|(key, value)| (key.clone(), value.is_some())).collect();
        // As many more as this call has removed.
        let removed = written.iter().filter(|(_, is_there)| !is_there).count();
        query.limit = u32::try_from((most + removed).min(STATE_KEYS_MAX)).unwrap_or(u32::MAX);
        // One that it saw before is the same for the rest of the call, and is looked at again once.
        let known = change.lists.iter().find(|list| list.query == query);
        let keys = match known.map(|list| list.keys.clone()) {
            Some(keys) => keys,
            None => self.listed(&query).await?,
        };
        // Past the last key of a full page the store has more, which this call does not see.
        let is_full = keys.len() == query.limit as usize;
        let end = keys.last().filter(|_| is_full).cloned();
        let mut seen: std::collections::BTreeSet<_> = keys.iter().cloned().collect();
        for (key, is_there) in written {
            if !is_there {
                seen.remove(&key);
            } else if end.as_ref().is_none_or(|end| key <= *end) {
                seen.insert(key);
            }
        }
        Ok(seen.into_iter().take(most).collect())
    }

    /// Returns the keys that a query finds, and records that the call saw them.
    async fn listed(&mut self, query: &StateQuery) -> Result<Vec<String>> {
        let (view, plugin) = (self.state_view()?, self.state_of()?);
        let keys = match view.keys(plugin, query.clone()).await {
            Ok(keys) => keys,
            Err(error) => return Err(self.unreadable(&error)),
        };
        self.hold(keys.iter().map(String::len).sum())?;
        let change = self.change("list")?;
        see(change.rows() + 1 + keys.len())?;
        change.lists.push(StateList { query: query.clone(), keys: keys.clone() });
        Ok(keys)
    }

    /// The state cannot be read, which no component can help. What is damaged stays so, and is the
    /// call's failure; for anything else the call begins again.
    fn unreadable(&mut self, error: &StateUnreadable) -> Stopped {
        let message = format!("the state cannot be read: {}", error.message);
        if !error.is_lasting {
            self.limits.lacked = Some(Lacks::Machine(message.clone()));
        }
        Stopped::new("state_failed", message)
    }

    /// What this call saw and wrote so far.
    fn change(&mut self, key: &str) -> Result<&mut StateChange> {
        if !is_state_key(key) {
            let shown: String = key.chars().take(80).collect();
            return refuse(format!(
                "{shown:?} is not a key of state: write 1 to 256 bytes without control characters"
            ));
        }
        if self.granted.secrets.redact(key) != key {
            return refuse("a key of state has a secret of the plugin in it");
        }
        let plugin = self.state_of()?;
        let bytes_max = self.id.as_ref().and_then(|id| id.state_bytes_max).unwrap_or_default();
        let new = || Box::new(StateChange::new(plugin, bytes_max));
        Ok(self.effects.state.get_or_insert_with(new))
    }

    fn state_of(&self) -> Result<amends_engine::PluginName> {
        match &self.id {
            Some(id) => Ok(id.state_of.clone()),
            None => refuse("a component has state while it is called, not before"),
        }
    }

    fn state_view(&self) -> Result<Arc<dyn StateView>> {
        match &self.state_view {
            Some(view) => Ok(Arc::clone(view)),
            None => refuse("there is no store here"),
        }
    }

    fn hold(&mut self, bytes: usize) -> Result<()> {
        self.state_bytes = self.state_bytes.saturating_add(bytes);
        if self.state_bytes > STATE_BYTES_OF_CALL_MAX {
            return refuse(format!(
                "a call reads and writes at most {STATE_BYTES_OF_CALL_MAX} bytes of state: do less \
                 in one step"
            ));
        }
        Ok(())
    }
}
