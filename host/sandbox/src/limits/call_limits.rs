//! The memory and tables that one call may have, and what the host lacked for a call.

use amends_engine::Direction;
use wasmtime::ResourceLimiter;

use crate::limits::budget::Held;
use crate::limits::memory::PluginMemory;
use crate::settings::PluginSettings;
use crate::stopped::Stopped;

/// Bytes of an element of a table: a pointer.
const TABLE_ELEMENT_BYTES: usize = 8;

/// Memory and tables of one call, over all its instances: a component may have several of each.
pub(crate) struct CallLimits {
    /// What it holds of the memory of all guests.
    pub(crate) held: Held,
    memory_bytes_max: usize,
    table_elements_max: usize,
    instances_max: usize,
    /// Of all memories and tables: less than those allow together where the host has little.
    bytes_max: usize,
    /// Of all memories. Nothing is given back before the call ends, so it only grows.
    memory_bytes: usize,
    /// Of all tables.
    table_elements: usize,
    /// Set when the component wanted more memory than it may have: the bytes that it would have had.
    pub(crate) memory_refused: Option<usize>,
    /// Set when it wanted more elements of tables: how many it would have had.
    pub(crate) table_refused: Option<usize>,
    /// Set when it was stopped because guests have all the memory that they may have together, or the
    /// machine has no more.
    pub(crate) lacked: Option<Lacks>,
}

/// What a host lacked for a call. A call of which nothing has left the sandbox did not begin then: it
/// is made again, as the same attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacks {
    /// Memory of all guests: there is room for it later.
    Memory,
    /// Something else of this machine, in words.
    Machine(String),
}

impl Lacks {
    /// What the host lacked when wasmtime could not make an instance or give it memory, if that is why.
    pub(crate) fn of(error: &wasmtime::Error) -> Option<Self> {
        // Words of a component stand in what it was stopped for.
        if error.is::<wasmtime::Trap>() || error.is::<Stopped>() {
            return None;
        }
        // wasmtime has no type for what the system refused.
        let cause = error.root_cause().to_string();
        let is_refused = cause.contains("os error 12") || cause.contains("os error 24");
        let is_lacking = error.is::<wasmtime::PoolConcurrencyLimitError>() || is_refused;
        is_lacking.then(|| Self::Machine(format!("the sandbox has no room for it: {cause}")))
    }
}

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str(HOST_MEMORY),
            Self::Machine(words) => f.write_str(words),
        }
    }
}

impl CallLimits {
    /// The limits of a call with these settings, which holds nothing yet.
    pub(crate) fn new(settings: &PluginSettings, memory: &PluginMemory) -> Self {
        let memory_max = usize::try_from(settings.memory_bytes_max).unwrap_or(usize::MAX);
        Self {
            held: memory.nothing(Direction::Execute),
            memory_bytes_max: memory_max,
            bytes_max: memory.call_max(),
            table_elements_max: settings.table_elements_max,
            instances_max: settings.instances_max,
            memory_bytes: 0,
            table_elements: 0,
            memory_refused: None,
            table_refused: None,
            lacked: None,
        }
    }

    /// The most bytes that a plugin's settings allow a call.
    pub(crate) fn of_settings(settings: &PluginSettings) -> usize {
        let memory_max = usize::try_from(settings.memory_bytes_max).unwrap_or(usize::MAX);
        Self::bytes_of(memory_max, settings.table_elements_max)
    }

    /// What it holds of the memory of all guests.
    pub(crate) fn into_held(self) -> Held {
        self.held
    }

    /// What it has of the memory of all guests.
    pub(crate) fn bytes(&self) -> usize {
        Self::bytes_of(self.memory_bytes, self.table_elements)
    }

    fn bytes_of(memory_bytes: usize, table_elements: usize) -> usize {
        memory_bytes.saturating_add(table_elements.saturating_mul(TABLE_ELEMENT_BYTES))
    }

    /// The most that its memories may have together.
    pub(crate) fn memory_bytes_max(&self) -> usize {
        self.memory_bytes_max.min(self.bytes_max)
    }

    /// Holds this from now on, if it is or can be enough for what there is; else answers it.
    pub(crate) fn hold(&mut self, mut held: Held) -> Option<Held> {
        if !held.grow_to(self.bytes()) {
            return Some(held);
        }
        self.held = held;
        None
    }

    /// Holds so much; or stops the call, because a component that is told that there is no memory
    /// would say so of its saga, which cannot help it.
    fn grow(&mut self, memory_bytes: usize, table_elements: usize) -> wasmtime::Result<bool> {
        let bytes = Self::bytes_of(memory_bytes, table_elements);
        if !self.held.grow_to(bytes) {
            self.lacked = Some(Lacks::Memory);
            (self.memory_bytes, self.table_elements) = (memory_bytes, table_elements);
            return Err(Stopped::new("host_memory", HOST_MEMORY).into());
        }
        (self.memory_bytes, self.table_elements) = (memory_bytes, table_elements);
        Ok(true)
    }
}

const HOST_MEMORY: &str = "guests have all the memory that they may have together; raise memory_max \
                           in [host], or give plugins a lower concurrency or memory_max";

impl ResourceLimiter for CallLimits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        let is_too_much = Self::bytes_of(wanted, self.table_elements) > self.bytes_max;
        if wanted > self.memory_bytes_max || is_too_much {
            self.memory_refused = Some(wanted);
            return Ok(false);
        }
        // It would fail anyway, and must not count.
        if is_past(desired, maximum) {
            return Ok(false);
        }
        self.grow(wanted, self.table_elements)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Most failures are the component's: it wants more than its own type allows.
        let Some(lacks) = Lacks::of(&error) else { return Ok(()) };
        let stopped = Stopped::new("host_memory", lacks.to_string());
        self.lacked = Some(lacks);
        Err(stopped.into())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self.table_elements.saturating_add(desired.saturating_sub(current));
        let is_too_much = Self::bytes_of(self.memory_bytes, wanted) > self.bytes_max;
        if wanted > self.table_elements_max || is_too_much {
            self.table_refused = Some(wanted);
            return Ok(false);
        }
        if is_past(desired, maximum) {
            return Ok(false);
        }
        self.grow(self.memory_bytes, wanted)
    }

    fn instances(&self) -> usize {
        self.instances_max
    }

    fn tables(&self) -> usize {
        self.instances_max
    }

    fn memories(&self) -> usize {
        self.instances_max
    }
}

fn is_past(desired: usize, maximum: Option<usize>) -> bool {
    maximum.is_some_and(|maximum| desired > maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_component_are_no_lack_of_the_host() {
        let named = Stopped::new("invalid_state", "the value of `os error 12` is no JSON");
        assert_eq!(Lacks::of(&named.into()), None);
        let refused = std::io::Error::from_raw_os_error(12);
        assert!(Lacks::of(&refused.into()).is_some());
    }
}
