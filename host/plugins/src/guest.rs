//! What a component sees of the host during one call.

mod events;
mod last_words;
mod log;
mod said;
mod state;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::{DefinitionName, Direction, PAYLOAD_BYTES_MAX, PluginName, SagaId, StepName};
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime::{Engine, ResourceLimiter, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

pub(crate) use self::last_words::LastWords;
use self::said::Said;
use crate::bindings::amends::saga::{
    config as config_import, events as events_import, log as log_import, state as state_import,
    types,
};
use crate::budget::Held;
use crate::config::PluginSettings;
use crate::effects::Effects;
use crate::granted::{Granted, Named};
use crate::meter;
use crate::outbound::{Left, Requests};
use crate::stopped::Stopped;

/// Bytes that a component may hand to the host in one answer or import: a payload and some words.
/// Past it the call traps, before the bytes are copied.
pub(crate) const HOST_CALL_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX + (64 << 10);

/// Bytes of one call of `wasi:random`.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// Resources that a component holds of the host's: streams, requests, headers. Each costs memory of
/// the host, up to some 128 KiB of headers.
const RESOURCES_MAX: usize = 256;

/// Resources that an instance may still hold after a call and serve another one: its standard streams,
/// which the libraries of most languages open once and keep. More would be a leak.
const RESOURCES_KEPT_MAX: usize = 8;

/// Which call it is.
#[derive(Debug, Clone)]
pub(crate) struct CallId {
    pub(crate) plugin: PluginName,
    /// Whose state it works on.
    pub(crate) state_of: PluginName,
    /// How large that may be; none while that plugin is granted none.
    pub(crate) state_bytes_max: Option<u64>,
    pub(crate) saga_id: SagaId,
    pub(crate) definition: DefinitionName,
    pub(crate) step: StepName,
    pub(crate) attempt: u32,
    pub(crate) idempotency_key: String,
    pub(crate) traceparent: Option<String>,
    /// It is asked what became of the call, and may only look.
    pub(crate) is_probe: bool,
}

/// The trace id of a call, for log lines; empty when it has none.
#[must_use]
pub fn trace_id(traceparent: Option<&str>) -> &str {
    // `version-trace_id-parent_id-flags` (W3C Trace Context).
    traceparent.and_then(|text| text.split('-').nth(1)).unwrap_or_default()
}

/// The state of one call.
pub(crate) struct Guest {
    /// None while it is described.
    id: Option<CallId>,
    granted: Arc<Granted>,
    /// Where plugins' state is; none where there is no store.
    store: Option<Arc<dyn amends_store::Store>>,
    pub(crate) limits: Limits,
    host_calls: u32,
    log_lines: u32,
    /// The places where it said a secret in this call: each makes one warning.
    said_secret: Mutex<BTreeSet<&'static str>>,
    state_bytes: usize,
    emitted_bytes: usize,
    effects: Effects,
    requests: Option<Box<Requests>>,
    http: WasiHttpCtx,
    said: Said,
    /// Made when WASI is first used: most components never do.
    wasi: Option<WasiCtx>,
    table: ResourceTable,
}

/// Bytes of an element of a table: a pointer.
const TABLE_ELEMENT_BYTES: usize = 8;

/// Memory and tables of one call, over all its instances: a component may have several of each.
pub(crate) struct Limits {
    /// What it holds of the memory of all guests.
    held: Held,
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

impl Guest {
    /// What is kept of a text that the component said. The first text of a call and place that had a secret
    /// in it makes a warning.
    fn kept(&self, clean: Cow<'_, str>, place: &'static str) -> String {
        if let (Cow::Owned(_), Some(id)) = (&clean, &self.id)
            && self.said_secret.lock().unwrap_or_else(PoisonError::into_inner).insert(place)
        {
            let CallId { plugin, saga_id, step, attempt, .. } = id;
            let named = Named { plugin, saga_id: *saga_id, step, attempt: *attempt };
            self.granted.warn_of_secret(&named, place);
        }
        clean.into_owned()
    }

    pub(crate) fn store(
        engine: &Engine,
        store: Option<Arc<dyn amends_store::Store>>,
        id: Option<CallId>,
        granted: Arc<Granted>,
    ) -> Store<Self> {
        let limits = Limits::new(&granted);
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let guest = Self {
            id,
            granted,
            store,
            limits,
            host_calls: 0,
            log_lines: 0,
            said_secret: Mutex::default(),
            state_bytes: 0,
            emitted_bytes: 0,
            effects: Effects::default(),
            requests: None,
            http: WasiHttpCtx::new(),
            said: Said::default(),
            wasi: None,
            table,
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(HOST_CALL_BYTES_MAX);
        meter::count(&mut store);
        store
    }

    /// For another call in the same instance, which holds so much memory; answers whether that is
    /// enough. Its memory counts on: it is still there.
    pub(crate) fn begin(&mut self, id: CallId, granted: Arc<Granted>, held: Held) -> Option<Held> {
        if let Some(held) = self.limits.hold(held) {
            return Some(held);
        }
        (self.id, self.granted) = (Some(id), granted);
        (self.host_calls, self.log_lines) = (0, 0);
        self.said_secret = Mutex::default();
        (self.state_bytes, self.emitted_bytes) = (0, 0);
        self.effects = Effects::default();
        // Requests that the last call has left behind end here.
        self.requests = None;
        (self.limits.memory_refused, self.limits.table_refused) = (None, None);
        self.limits.lacked = None;
        None
    }

    /// The call is over: what it did that is to be recorded, and what it has left outside. Requests that
    /// it left behind are broken off.
    pub(crate) fn end(&mut self) -> (Effects, Left) {
        let left = self.requests.take().map(|requests| requests.left()).unwrap_or_default();
        (std::mem::take(&mut self.effects), left)
    }

    /// Has a new call hold memory that was taken for it.
    pub(crate) fn hold_memory(&mut self, held: Held) {
        self.limits.held = held;
    }

    /// Has the instance wait to be used again; false when those that wait have enough memory.
    pub(crate) fn rest(&mut self) -> bool {
        let rest = self.granted.memory.rest(self.limits.bytes());
        rest.map(|held| self.limits.held = held).is_some()
    }

    /// Whether the instance may serve another call: no limit was met in this one, and it holds no more
    /// of the host's resources than its standard streams need.
    pub(crate) fn is_clean(&mut self) -> bool {
        let Limits { memory_refused, table_refused, lacked, .. } = &self.limits;
        let is_refused = memory_refused.is_some() || table_refused.is_some() || lacked.is_some();
        !is_refused && self.table.iter_mut().nth(RESOURCES_KEPT_MAX).is_none()
    }

    pub(crate) fn granted(&self) -> &Arc<Granted> {
        &self.granted
    }

    /// As [`crate::config::PluginSettings::grants`]; state is granted to the plugin that it belongs to.
    fn grant(&self, capability: &str) -> Option<(bool, &'static str)> {
        let (is_granted, key) = self.granted.settings.grants(capability)?;
        let of_call = self.id.as_ref().filter(|_| capability == "state");
        Some((of_call.map_or(is_granted, |id| id.state_bytes_max.is_some()), key))
    }

    /// Refuses what is not granted.
    fn need(&self, capability: &'static str) -> Result<(), Stopped> {
        let Some((false, key)) = self.grant(capability) else { return Ok(()) };
        let message = format!(
            "the component uses {capability}, which is not granted; grant it by {key} in [{}]",
            self.granted.settings.section()
        );
        Err(Stopped::new("not_granted", message))
    }

    /// Counts a call of the host.
    fn host_call(&mut self) -> Result<(), Stopped> {
        self.host_calls += 1;
        let max = self.granted.settings.host_calls_max;
        if self.host_calls > max {
            let message = format!(
                "the component called the host more than {max} times; raise host_calls_max in [{}] or \
                 make it call less",
                self.granted.settings.section()
            );
            return Err(Stopped::new("host_call_limit", message));
        }
        Ok(())
    }
}

/// Everything that a component may import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    types::add_to_linker::<_, This>(&mut linker, |guest| guest)?;
    config_import::add_to_linker::<_, This>(&mut linker, |guest| guest)?;
    events_import::add_to_linker::<_, This>(&mut linker, |guest| guest)?;
    log_import::add_to_linker::<_, This>(&mut linker, |guest| guest)?;
    state_import::add_to_linker::<_, This>(&mut linker, |guest| guest)?;
    Ok(linker)
}

struct This;

impl HasData for This {
    type Data<'a> = &'a mut Guest;
}

impl types::Host for Guest {}

impl config_import::Host for Guest {
    fn setting(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.host_call()?;
        Ok(self.granted.settings.settings.get(&name).map(ToString::to_string))
    }

    fn secret(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.host_call()?;
        // What it says of itself before it is called is for everybody.
        let secret = self.id.as_ref().and_then(|_| self.granted.settings.secrets.get(&name));
        Ok(secret.map(|secret| secret.reveal().to_owned()))
    }

    fn granted(&mut self, capability: String) -> wasmtime::Result<bool> {
        self.host_call()?;
        Ok(self.grant(&capability).is_some_and(|(is_granted, _)| is_granted))
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.hear(false);
        let said = &self.said;
        // Nothing granted: no folders, no environment, no arguments, no network. Sockets are not even
        // made: each would be a file of this machine's.
        let ctx = self.wasi.get_or_insert_with(|| {
            let mut builder = WasiCtx::builder();
            builder.max_random_size(RANDOM_BYTES_MAX).allow_tcp(false).allow_udp(false);
            said.streams(&mut builder);
            builder.build()
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let (granted, id) = (&self.granted, self.id.as_ref());
        let hooks = self.requests.get_or_insert_with(|| {
            let key = id.map(|id| id.idempotency_key.clone()).unwrap_or_default();
            let traceparent = id.and_then(|id| id.traceparent.clone());
            Box::new(Requests::new(Arc::clone(granted), key, traceparent))
        });
        WasiHttpCtxView { hooks: &mut **hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

impl Limits {
    fn new(granted: &Granted) -> Self {
        let settings = &granted.settings;
        let memory_max = usize::try_from(settings.memory_bytes_max).unwrap_or(usize::MAX);
        Self {
            held: granted.memory.nothing(Direction::Execute),
            memory_bytes_max: memory_max,
            bytes_max: granted.memory.call_max(),
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
    fn hold(&mut self, mut held: Held) -> Option<Held> {
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

impl ResourceLimiter for Limits {
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
