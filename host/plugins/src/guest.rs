//! What a component sees of the host during one call.

use std::fmt::Write as _;
use std::sync::Arc;

use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime::{Engine, ResourceLimiter, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use amends_engine::{PAYLOAD_BYTES_MAX, PluginName, SagaId, StepName};

use crate::bindings::amends::saga::{config, log, types};
use crate::config::PluginSettings;
use crate::sandbox::{LOG_LINE_BYTES_MAX, LOG_LINES_MAX};

/// Bytes that a component may hand to the host in one answer or import: a payload and some words.
/// Past it the call traps, before the bytes are copied.
pub(crate) const HOST_CALL_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX + (64 << 10);

/// Elements of all tables of a call.
const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Which call it is, for log lines.
#[derive(Debug, Clone)]
pub(crate) struct CallId {
    pub(crate) plugin: PluginName,
    pub(crate) saga_id: SagaId,
    pub(crate) step: StepName,
    pub(crate) attempt: u32,
    pub(crate) traceparent: Option<String>,
}

/// The trace of a call, for log lines; empty when it has none.
#[must_use]
pub fn trace_id(traceparent: Option<&str>) -> &str {
    // `version-trace_id-parent_id-flags` (W3C Trace Context).
    traceparent.and_then(|text| text.split('-').nth(1)).unwrap_or_default()
}

/// The state of one call.
pub(crate) struct Guest {
    /// None while it is described.
    id: Option<CallId>,
    settings: Arc<PluginSettings>,
    pub(crate) limits: Limits,
    log_lines: u32,
    /// Made when WASI is first used: most components never do.
    wasi: Option<WasiCtx>,
    table: ResourceTable,
}

/// Memory and tables of one call, over all its instances: a component may have several of each.
pub(crate) struct Limits {
    memory_bytes_max: usize,
    /// Of all memories. Nothing is given back before the call ends, so it only grows.
    memory_bytes: usize,
    /// Of all tables.
    table_elements: usize,
    /// Set when the component wanted more than it may have: the bytes that it would have had.
    pub(crate) memory_refused: Option<usize>,
}

impl Guest {
    pub(crate) fn store(
        engine: &Engine,
        id: Option<CallId>,
        settings: Arc<PluginSettings>,
    ) -> Store<Self> {
        let memory_bytes_max = usize::try_from(settings.memory_bytes_max).unwrap_or(usize::MAX);
        let limits = Limits::new(memory_bytes_max);
        let table = ResourceTable::new();
        let guest = Self { id, settings, limits, log_lines: 0, wasi: None, table };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(HOST_CALL_BYTES_MAX);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store
    }
}

impl Guest {
    /// For another call in the same instance. Its memory counts on: it is still there.
    pub(crate) fn begin(&mut self, id: CallId, settings: Arc<PluginSettings>) {
        (self.id, self.settings, self.log_lines) = (Some(id), settings, 0);
        self.limits.memory_refused = None;
    }
}

/// Everything that a component may import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    types::add_to_linker::<_, This>(&mut linker, |guest| guest)?;
    config::add_to_linker::<_, This>(&mut linker, |guest| guest)?;
    log::add_to_linker::<_, This>(&mut linker, |guest| guest)?;
    Ok(linker)
}

struct This;

impl HasData for This {
    type Data<'a> = &'a mut Guest;
}

impl types::Host for Guest {}

impl config::Host for Guest {
    fn setting(&mut self, name: String) -> Option<String> {
        self.settings.settings.get(&name).map(ToString::to_string)
    }

    fn secret(&mut self, name: String) -> Option<String> {
        self.settings.secrets.get(&name).map(|secret| secret.reveal().to_owned())
    }
}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) {
        self.log_lines += 1;
        if self.log_lines > LOG_LINES_MAX {
            if self.log_lines == LOG_LINES_MAX + 1 {
                self.line(
                    log::Level::Warn,
                    &format!("more than {LOG_LINES_MAX} lines, the rest of this call's is dropped"),
                );
            }
            return;
        }
        let mut line = message;
        for (name, value) in fields {
            let _ = write!(line, " {name}={value:?}");
        }
        if line.len() > LOG_LINE_BYTES_MAX {
            let end = (0..=LOG_LINE_BYTES_MAX).rev().find(|at| line.is_char_boundary(*at));
            line.truncate(end.unwrap_or(0));
            line.push('…');
        }
        self.line(level, &line);
    }
}

impl Guest {
    fn line(&self, level: log::Level, line: &str) {
        let id = self.id.as_ref();
        let plugin = id.map(|id| tracing::field::display(&id.plugin));
        let saga_id = id.map(|id| tracing::field::display(id.saga_id));
        let step = id.map(|id| tracing::field::display(&id.step));
        let attempt = id.map(|id| id.attempt);
        let trace_id = trace_id(id.and_then(|id| id.traceparent.as_deref()));
        macro_rules! write_line {
            ($macro:ident) => {
                tracing::$macro!(target: "plugin", plugin, saga_id, step, attempt, trace_id, "{line}")
            };
        }
        match level {
            log::Level::Debug => write_line!(debug),
            log::Level::Info => write_line!(info),
            log::Level::Warn => write_line!(warn),
            log::Level::Error => write_line!(error),
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // Nothing granted: no folders, no environment, no arguments, no network, no output.
        let ctx = self.wasi.get_or_insert_with(|| WasiCtx::builder().build());
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl Limits {
    fn new(memory_bytes_max: usize) -> Self {
        Self { memory_bytes_max, memory_bytes: 0, table_elements: 0, memory_refused: None }
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if wanted > self.memory_bytes_max {
            self.memory_refused = Some(wanted);
            return Ok(false);
        }
        // It would fail anyway, and must not count.
        if is_past(desired, maximum) {
            return Ok(false);
        }
        self.memory_bytes = wanted;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self.table_elements.saturating_add(desired.saturating_sub(current));
        if wanted > TABLE_ELEMENTS_MAX || is_past(desired, maximum) {
            return Ok(false);
        }
        self.table_elements = wanted;
        Ok(true)
    }
}

fn is_past(desired: usize, maximum: Option<usize>) -> bool {
    maximum.is_some_and(|maximum| desired > maximum)
}
